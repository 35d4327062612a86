"""`POST /v1/images/generations`: what it refuses, charges, draws and answers. Its links are in `downloads`."""

from __future__ import annotations

import asyncio
import base64
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prefect_together.sandbox.answers import (
    JsonAnswer,
    LateAnswer,
    caller_refusal,
    fault_answer,
    half_json,
    json_object,
    refusal_answer,
)
from prefect_together.sandbox.faults import ANSWERS
from prefect_together.sandbox.models import Refusal, model_not_available, wrong_model, wrong_type

if TYPE_CHECKING:
    from prefect_together.sandbox.service import VideoService

SIDES = range(256, 1921, 8)
DEFAULT_SIDE = 1024
MOST_PICTURES = 4
MAX_SEED = 2**31 - 1
JPEG_QUALITY = 90
PICTURES_DRAWN_ONCE = 16
"""How many pictures are kept after they were drawn: one is downloaded at once, as a rule."""

_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "prompt": (str,),
    "n": (int,),
    "width": (int,),
    "height": (int,),
    "seed": (int,),
    "steps": (int,),
    "guidance_scale": (int, float),
    "negative_prompt": (str,),
    "image_url": (str,),
    "reference_images": (list,),
    "response_format": (str,),
    "output_format": (str,),
    "prompt_upsampling": (bool,),
    "disable_safety_checker": (bool,),
    "image_loras": (list,),
}
_WORDS = {"response_format": ("url", "base64"), "output_format": ("jpeg", "png")}


@dataclass(frozen=True)
class ImageModel:
    """What a picture costs: by its megapixels and steps (`default_steps`, 0 for a model without), or as it is."""

    usd: float
    by_megapixel: bool = False
    default_steps: int = 0

    def price_usd(self, *, width: int, height: int, steps: int | None) -> float:
        """The price of one picture. More steps than the default cost more, fewer do not cost less."""
        if not self.by_megapixel:
            return self.usd
        more = max(1.0, steps / self.default_steps) if steps and self.default_steps else 1.0
        return self.usd * width * height / 1_000_000 * more


IMAGE_MODELS: Mapping[str, ImageModel] = {
    "black-forest-labs/FLUX.1-schnell": ImageModel(0.0027, by_megapixel=True, default_steps=4),
    "black-forest-labs/FLUX.1.1-pro": ImageModel(0.04, by_megapixel=True),
    "black-forest-labs/FLUX.1-krea-dev": ImageModel(0.025, by_megapixel=True, default_steps=28),
    "black-forest-labs/FLUX.1-kontext-pro": ImageModel(0.04, by_megapixel=True),
    "black-forest-labs/FLUX.1-kontext-max": ImageModel(0.08, by_megapixel=True),
    "black-forest-labs/FLUX.2-dev": ImageModel(0.0154, by_megapixel=True),
    "black-forest-labs/FLUX.2-flex": ImageModel(0.03, by_megapixel=True),
    "black-forest-labs/FLUX.2-pro": ImageModel(0.03, by_megapixel=True),
    "black-forest-labs/FLUX.2-max": ImageModel(0.07, by_megapixel=True),
    "ByteDance-Seed/Seedream-4.0": ImageModel(0.03),
    "Qwen/Qwen-Image": ImageModel(0.0058, by_megapixel=True),
    "google/flash-image-2.5": ImageModel(0.039),
    "google/gemini-3-pro-image": ImageModel(0.134),
    "google/imagen-4.0-fast": ImageModel(0.02),
    "google/imagen-4.0-preview": ImageModel(0.04),
    "google/imagen-4.0-ultra": ImageModel(0.06),
    "ideogram/ideogram-3.0": ImageModel(0.06),
}
"""The sandbox's own table of round figures: the service's answer has no cost, so nobody can hold it to them."""
UNKNOWN_IMAGE_MODEL = ImageModel(0.04)


@dataclass
class Picture:
    """One picture that was made and billed. A call's pictures have the same `id`, and an `index` each."""

    id: str
    index: int
    model: str
    prompt: str
    seed: int
    width: int
    height: int
    png: bool
    created_at: float
    cost_usd: float
    downloads: int = 0

    @property
    def suffix(self) -> str:
        return ".png" if self.png else ".jpg"

    def content(self) -> bytes:
        """The file: the same bytes for the same prompt, model, seed, index and size."""
        return _drawn(self.prompt, self.model, self.seed + self.index, self.width, self.height, png=self.png)


@lru_cache(maxsize=PICTURES_DRAWN_ONCE)
def _drawn(prompt: str, model: str, seed: int, width: int, height: int, *, png: bool) -> bytes:
    from prefect_together.sandbox.drawing import draw_still  # here: without pictures no Pillow is loaded

    file = io.BytesIO()
    still = draw_still(width, height, prompt=prompt, model=f"{model}   seed {seed}")
    still.save(file, "PNG" if png else "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def image_refusal_of(body: Mapping[str, Any] | None, *, accept_unknown: bool) -> Refusal | None:
    """Why the service makes no picture of `body` (None for what is no JSON object), None if it does."""
    if wrong := wrong_model(body):
        return wrong
    assert body is not None
    if wrong := wrong_type(body, _TYPES):
        return wrong
    if body["model"] not in IMAGE_MODELS and not accept_unknown:
        return model_not_available(body["model"])
    if not (body.get("prompt") or "").strip():
        return Refusal(400, "prompt is required.", param="prompt")
    if not 1 <= _given(body, "n", 1) <= MOST_PICTURES:
        return Refusal(400, f"n must be between 1 and {MOST_PICTURES}.", param="n")
    for side in ("width", "height"):
        if _given(body, side, DEFAULT_SIDE) not in SIDES:
            limits = f"a multiple of {SIDES.step} between {SIDES[0]} and {SIDES[-1]}"
            return Refusal(400, f"{side} must be {limits}.", param=side)
    if _given(body, "steps", 1) < 1:
        return Refusal(400, "steps must be at least 1.", param="steps")
    for name, words in _WORDS.items():
        if _given(body, name, words[0]) not in words:
            return Refusal(400, f"{name} must be {' or '.join(words)}.", param=name)
    return None


def pictures_of(body: Mapping[str, Any], *, any_seed: int, now: float, cost_factor: float) -> list[Picture]:
    """The pictures of a call that was accepted, none drawn yet. `any_seed` is taken where none was sent."""
    model, width, height = body["model"], _given(body, "width", DEFAULT_SIDE), _given(body, "height", DEFAULT_SIDE)
    known = IMAGE_MODELS.get(model, UNKNOWN_IMAGE_MODEL)
    price = known.price_usd(width=width, height=height, steps=body.get("steps")) * cost_factor
    call_id = str(uuid.uuid4())
    return [
        Picture(
            id=call_id,
            index=index,
            model=model,
            prompt=body["prompt"],
            seed=_given(body, "seed", any_seed),
            width=width,
            height=height,
            png=body.get("output_format") == "png",
            created_at=now,
            cost_usd=round(price, 6),
        )
        for index in range(_given(body, "n", 1))
    ]


def _given(body: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    value = body.get(name)
    return otherwise if value is None else value


class ImageRoutes:
    """The endpoint. A picture is billed when the call is accepted, and drawn when somebody wants its bytes."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def generate(self, request: Request) -> Response:
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Response()
        body = json_object(raw)
        fault = self._service.faults.draw("images", str((body or {}).get("prompt") or ""))
        answer = caller_refusal(request, raw) or await self._generate(request, body, fault)
        self._service.recorder.note(request, "images", answer, body=body, fault=fault, at=self._service.clock.time())
        return answer

    async def _generate(self, request: Request, body: dict[str, Any] | None, fault: str | None) -> Response:
        settings = self._service.settings
        seconds, authorization = settings.retry_after_seconds, request.headers.get("authorization", "")
        if fault in ANSWERS:
            return fault_answer(fault, retry_after_seconds=seconds, authorization=authorization)
        if wrong := image_refusal_of(body, accept_unknown=settings.accept_unknown_models):
            return refusal_answer(wrong)
        assert body is not None
        pictures = self._service.make_pictures(body)
        if fault is not None and fault.endswith("-after"):
            name = fault.removesuffix("-after")
            return fault_answer(name, retry_after_seconds=seconds, authorization=authorization)
        answer: dict[str, Any] = {"id": pictures[0].id, "model": body["model"], "object": "list"}
        answer["data"] = [await self._entry(picture, body) for picture in pictures]
        if fault == "no-data":
            answer["data"] = []
        if fault == "no-url":
            answer["data"] = [{"index": picture.index, "type": "url"} for picture in pictures]
        if fault == "half-json":
            return half_json(answer)
        return LateAnswer(answer, settings.late_seconds) if fault == "late" else JsonAnswer(answer)

    async def _entry(self, picture: Picture, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("response_format") == "base64":
            content = await asyncio.to_thread(picture.content)
            return {"index": picture.index, "type": "b64_json", "b64_json": base64.b64encode(content).decode()}
        return {"index": picture.index, "type": "url", "url": self._service.picture_link(picture)}
