"""One video request: all the API's parameters, in older forms too; the current form is sent.

Facts: Together's docs, OpenAPI document and SDK 3.1.1 (state of November 2026). The limits of single models
are in `catalogue`; what this module refuses can be right for no model.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from prefect_together.request.fields import (
    DOUBTFUL_ALIASES,
    PARAMETER_ALIASES,
    FramesPerSecond,
    GuidanceScale,
    JsonObject,
    ModelId,
    OutputFormat,
    OutputQuality,
    Pixels,
    Seconds,
    Seed,
    Steps,
    Text,
    Word,
    json_text_too,
    plain_numbers,
    shown,
    wrong,
)
from prefect_together.request.media import (
    ClipRef,
    FrameImage,
    Image,
    LocalImage,
    Media,
    VideoRef,
    address_identity,
    address_name,
    image_identity,
    image_name,
)

PARAMETERS = (
    "model",
    "prompt",
    "width",
    "height",
    "resolution",
    "ratio",
    "seconds",
    "fps",
    "steps",
    "guidance_scale",
    "seed",
    "negative_prompt",
    "output_format",
    "output_quality",
    "generate_audio",
    "media",
)
"""The parameters of POST /v2/videos, in the order of Together's reference."""

OLDER_MEDIA = ("frame_images", "reference_images")
"""Top level in the older documents, a TypeError in the SDK from 3.0.0 on: moved into `media` here."""

_MEANT = {
    **PARAMETER_ALIASES,
    **DOUBTFUL_ALIASES,
    **dict.fromkeys(("first_frame", "image", "image_url", "last_frame"), "media.frame_images"),
    "video": "media.source_video",
}


def _foreign_parameters_only(body: dict[str, Any]) -> dict[str, Any]:
    known = sorted({*PARAMETERS, *OLDER_MEDIA}.intersection(body))
    if known:
        raise wrong(f"holds {', '.join(known)}: give what the API documents as a parameter of its own")
    return body


class VideoRequest(BaseModel):
    """What one video is asked for with. None: not set, not sent, so that the model's own default applies.

    `seconds` is kept and sent as text ("8"). `extra_body` is for what the SDK does not know, for example
    {"settings": {"audio": False}}. Building one raises pydantic's ValidationError, in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: ModelId
    prompt: Text | None = None
    width: Pixels | None = None
    height: Pixels | None = None
    resolution: Word | None = None
    ratio: Word | None = None
    seconds: Seconds | None = None
    fps: FramesPerSecond | None = None
    steps: Steps | None = None
    guidance_scale: GuidanceScale | None = None
    seed: Seed | None = None
    negative_prompt: Text | None = None
    output_format: OutputFormat | None = None
    output_quality: OutputQuality | None = None
    generate_audio: bool | None = None
    media: Annotated[Media, BeforeValidator(json_text_too)] | None = None
    extra_body: Annotated[JsonObject, AfterValidator(_foreign_parameters_only)] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _accept_older_forms(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        details: list[InitErrorDetails] = []
        if isinstance(value, Mapping):
            value, details = _in_current_form(cast("Mapping[str, object]", value))
        try:
            request = handler(value)
        except ValidationError as error:
            details += [_in_plain_words(cast("dict[str, Any]", line)) for line in error.errors(include_url=False)]
        else:
            if not details:
                return request
        raise ValidationError.from_exception_data(cls.__name__, details, hide_input=True)

    def create_kwargs(self, *, encode_image: Callable[[LocalImage], str] | None = None) -> dict[str, Any]:
        """The keyword arguments of the SDK's `client.videos.create`: only what was set, in the current form.

        `encode_image` reads a local image and gives its bare base64 text; TypeError if needed and missing, and for a
        reference to another clip, which has to be replaced before (`with_clips`).
        """

        def sent(image: Image) -> str:
            if isinstance(image, str):
                return image
            if isinstance(image, ClipRef):
                raise TypeError(f"{image} is another row's clip, which only a run over a table has")
            if encode_image is None:
                raise TypeError(f"{image.path} is a local file: pass encode_image to have it read")
            return encode_image(image)

        return self._body(image=sent, address=sent)

    def take(self, number: int) -> VideoRequest:
        """The request of take 1, 2, 3...: with a seed it is `seed + number - 1`, or each take would be the same clip.

        Without a seed the service draws one, so that equal requests give different clips.
        """
        return self if self.seed is None or number == 1 else self.model_copy(update={"seed": self.seed + number - 1})

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what would be sent. Pictures given as bytes or files count by their content."""
        body = self._body(image=image_identity, address=address_identity)
        body.update(body.pop("extra_body", {}))
        text = json.dumps(plain_numbers(body), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def parameters(self, *, with_prompt: bool = True) -> dict[str, Any]:
        """What would be sent, in the API's order, for pages and logs: pictures by name, no signed URL."""
        body = self._body(image=image_name, address=address_name)
        if not with_prompt:
            body.pop("prompt", None)
        return body

    def images(self) -> list[tuple[str, Image]]:
        """Every picture with its field in `media`, in the API's order."""
        return [] if self.media is None else self.media.images()

    def clip_refs(self) -> list[tuple[str, ClipRef]]:
        """Every reference to another clip with its field in `media`, in the API's order."""
        return [] if self.media is None else self.media.clip_refs()

    def with_clips(self, replace: Callable[[ClipRef], ClipRef | str]) -> VideoRequest:
        """The same with each reference to another clip replaced: by one with its key, base64 text, or a URL."""
        if self.media is None or not self.clip_refs():
            return self
        return self.model_copy(update={"media": self.media.with_clips(replace)})

    def with_image(self, given: str, image: Image) -> VideoRequest:
        """The same with another picture wherever a frame is fixed by the `given` one."""
        frames = self.media.frame_images if self.media is not None else None
        if self.media is None or not frames:
            return self
        changed = [
            item.model_copy(update={"input_image": image}) if item.input_image == given else item for item in frames
        ]
        return self.model_copy(update={"media": self.media.model_copy(update={"frame_images": changed})})

    def _body(self, *, image: Callable[[Image], str], address: Callable[[str | ClipRef], str]) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name in (*PARAMETERS, "extra_body"):
            value = getattr(self, name)
            if isinstance(value, Media):
                value = value.on_the_wire(image=image, address=address) or None
            if value is not None and value != {}:
                body[name] = value
        return body


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each mistake as (parameter, message): `("fps", "5 is ...")`, `("media.source_video", "...")`."""
    lines = error.errors(include_url=False, include_input=False)
    return [(".".join(str(part) for part in line["loc"]) or "request", line["msg"]) for line in lines]


def _in_current_form(given: Mapping[str, object]) -> tuple[dict[str, object], list[InitErrorDetails]]:
    """`given` with the older top-level media fields moved into `media`, and what is wrong about them."""
    current = dict(given)
    older = {name: current.pop(name) for name in OLDER_MEDIA if name in current}
    older = {name: value for name, value in older.items() if value is not None}
    if not older:
        return current, []
    media = current.get("media")
    if isinstance(media, str):
        try:
            media = json.loads(media)
        except (ValueError, RecursionError):
            return current, []  # said by the check of `media` itself
    if isinstance(media, Media):
        media = {name: getattr(media, name) for name in media.model_fields_set}
    if media is not None and not isinstance(media, Mapping):
        return current, []
    merged = dict(cast("Mapping[str, object]", media or {}))
    twice = [name for name in older if merged.get(name) is not None]
    merged.update({name: value for name, value in older.items() if name not in twice})
    current["media"] = merged
    message = "is given twice, here and in media: give it in media only"
    return current, [InitErrorDetails(type=wrong(message), loc=(name,), input=None) for name in twice]


def _in_plain_words(line: dict[str, Any]) -> InitErrorDetails:
    """A line of pydantic's report with a message for people who have a table before them."""
    loc, kind, value = cast("tuple[int | str, ...]", line["loc"]), str(line["type"]), line["input"]
    if kind == "extra_forbidden":
        message = _unknown_name(loc)
    elif kind == "missing":
        message = "is missing: every request needs it"
    elif kind == "string_type":
        message = f"{shown(value)} is not text"
    elif kind == "string_unicode":
        message = "holds half a character (a lone surrogate), which cannot be sent: take it out"
    elif kind in {"bool_parsing", "bool_type"}:
        message = f"{shown(value)} is neither true nor false"
    elif kind == "list_type":
        message = f"{shown(value)} is not a list: put it in brackets, [...]"
    elif kind in {"model_type", "dict_type", "model_attributes_type"}:
        message = f"{shown(value)} is not an object, {{...}}"
    elif kind == "value_error":
        message = str(line["ctx"]["error"])
    else:
        message = str(line["msg"])
    return InitErrorDetails(type=wrong(message), loc=loc, input=value)


def _unknown_name(loc: tuple[int | str, ...]) -> str:
    name = str(loc[-1])
    if len(loc) == 1:
        known: tuple[str, ...] = (*PARAMETERS, "extra_body")
    elif len(loc) == 2:
        known = tuple(Media.model_fields)
    else:
        known = tuple({**FrameImage.model_fields, **VideoRef.model_fields})
    meant = _MEANT.get(name.lower()) if len(loc) == 1 else None
    close = [meant] if meant else difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"is not a parameter of the API: {hint}"
