"""One request for a still: the parameters of POST /v1/images/generations that are used here. Sends nothing.

Facts: Together's docs and SDK 3.1.1 (state of November 2026). What this module refuses is right for no model.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from prefect_together.request.fields import ModelId, Pixels, Seed, Steps, Text, shown, wrong
from prefect_together.stills.models import image_models

SHORTEST_SIDE, LONGEST_SIDE, SIDE_STEP = 256, 1920, 8
"""Width and height in pixels."""

MAX_STILL_BYTES = 50_000_000
"""A PNG of the largest size has 11 MB without any compression."""

PARAMETERS = ("model", "prompt", "width", "height", "seed", "steps")


def _side(pixels: int) -> int:
    if not SHORTEST_SIDE <= pixels <= LONGEST_SIDE or pixels % SIDE_STEP:
        allowed = f"{SHORTEST_SIDE} to {LONGEST_SIDE} pixels, a multiple of {SIDE_STEP}"
        raise wrong(f"{shown(pixels)} is not a side of a still: {allowed}")
    return pixels


Side = Annotated[Pixels, AfterValidator(_side)]


class StillRequest(BaseModel):
    """What one picture is asked for with. None: not set, not sent, so that the model's own default applies.

    `prompt_upsampling` lets the service rewrite the prompt. Where a model does so unasked it is told not to, so that
    what was planned is what is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: ModelId
    prompt: Text
    width: Side | None = None
    height: Side | None = None
    seed: Seed | None = None
    steps: Steps | None = None
    prompt_upsampling: bool | None = None

    @property
    def output_format(self) -> str:
        """What the service sends where nothing else is asked for."""
        return "JPEG"

    def create_kwargs(self) -> dict[str, Any]:
        """The keyword arguments of the SDK's `client.images.generate`: one picture, as a link."""
        body: dict[str, Any] = {**self.parameters(), "n": 1, "response_format": "url"}
        upsampling = body.pop("prompt_upsampling", None)
        if upsampling is not None:  # which the SDK does not know
            body["extra_body"] = {"prompt_upsampling": upsampling}
        return body

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what would be sent; never that of a video's request."""
        text = json.dumps(self.parameters(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(f"still {text}".encode("ascii")).hexdigest()

    def parameters(self, *, with_prompt: bool = True) -> dict[str, Any]:
        """What would be sent, in the API's order, for pages and logs."""
        values = {name: getattr(self, name) for name in PARAMETERS if with_prompt or name != "prompt"}
        values["prompt_upsampling"] = self._upsampling()
        return {name: value for name, value in values.items() if value is not None}

    def _upsampling(self) -> bool | None:
        known = image_models().get(self.model)
        if self.prompt_upsampling is None and known and known.takes_prompt_upsampling:
            return False
        return self.prompt_upsampling
