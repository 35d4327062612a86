"""What the catalogue knows to be wrong with a request for a model: parameters, then media.

Each check is a generator over (spec, request). What Together documents is an error, what only other hosts
say a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from prefect_together.request.fields import HIGHEST_SEED, LOWEST_SEED, counted, shown
from prefect_together.request.media import (
    MAX_INLINE_CHARACTERS,
    ClipRef,
    FrameImage,
    Media,
    address_name,
    image_name,
    inline_characters,
    page_advice,
)
from prefect_together.request.model_spec import Choices, Keyframes, MediaField, ModelSpec
from prefect_together.request.request import PARAMETERS, VideoRequest

STRONGEST_GUIDANCE = 12
"""Above it pictures break (Together's docs, November 2026)."""

UNCHECKED = "If the catalogue is wrong, --no-catalogue-checks (catalogue_checks=False) sends it anyway"

FEWEST_STEPS, MOST_STEPS = 10, 50
"""The OpenAPI document's range (April 2026). The docs say of more than 50 only that it gains little."""


@dataclass(frozen=True)
class Finding:
    """One thing about a request. `field` is an API parameter, `media.reference_images` for parts of `media`.

    `message` says what is wrong and what would be right. Only an error stops the request.
    """

    field: str
    message: str
    is_error: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def any_model_findings(request: VideoRequest) -> Iterator[Finding]:
    """What holds for every model, known or not."""
    if request.guidance_scale is not None and request.guidance_scale > STRONGEST_GUIDANCE:
        message = f"{request.guidance_scale:g} causes artifacts: 6 to 10 is usual, above 12 is advised against"
        yield Finding("guidance_scale", message, is_error=False)
    if request.steps is not None and request.steps < FEWEST_STEPS:
        yield Finding("steps", f"{request.steps} is too few: 10 (quick test) to 50", is_error=True)
    if request.steps is not None and request.steps > MOST_STEPS:
        message = f"{request.steps} gains little over 50 and may be refused: 30 to 40 is production quality"
        yield Finding("steps", message, is_error=False)
    for field, image in request.images():
        if (size := inline_characters(image)) > MAX_INLINE_CHARACTERS:
            message = f"{image_name(image)} is {size / 1000:.0f} KB when sent; above 60 KB it may be refused:"
            yield Finding(f"media.{field}", f"{message} give an https URL or a smaller image", is_error=False)
    for field, link in request.media.links() if request.media else ():
        if advice := page_advice(link):
            message = f"{address_name(link)} leads to a web page, not to the file: give {advice}"
            yield Finding(f"media.{field}", message, is_error=False)


def seed_findings(spec: ModelSpec | None, request: VideoRequest, takes: int) -> Iterator[Finding]:
    """A seed, or that of the last take, which counts it up, that is out of the model's range."""
    if request.seed is None:
        return
    low, high, whose = LOWEST_SEED, HIGHEST_SEED, "any model"
    if spec is not None and spec.seed_low is not None and spec.seed_high is not None:
        low, high, whose = spec.seed_low, spec.seed_high, spec.id
    last = request.seed + takes - 1
    if not low <= request.seed <= high:
        yield Finding("seed", f"{request.seed} is not a seed of {whose}: {low} to {high}", is_error=True)
    elif last > high:
        takes_it = f"{whose} takes seeds from {low} to {high}"
        message = (
            f"{request.seed} is counted up to {last} by {takes} takes, and {takes_it}: lower the seed or the count"
        )
        yield Finding("seed", message, is_error=True)


def parameter_findings(spec: ModelSpec, request: VideoRequest, known_ids: Collection[str]) -> Iterator[Finding]:
    """Everything that `spec` says about the request's parameters, `media` aside."""
    yield from _listing(spec)
    yield from _prompts(spec, request)
    yield from _unsupported(spec, request)
    yield from _seconds(spec, request)
    yield from _size(spec, request)
    yield from _named_sizes(spec, request)
    yield from _rate(spec, request)
    yield from _audio(spec, request, known_ids)


def _listing(spec: ModelSpec) -> Iterator[Finding]:
    if spec.retired:
        end = spec.retired
        message = f"{spec.id} was shut down by {end.by} on {end.date}: use {end.successor}. {UNCHECKED}"
        yield Finding("model", message, is_error=True)
    elif not spec.listed:
        message = f"{spec.id} is no longer in Together's lists ({spec.listing}): expect model_not_available"
        yield Finding("model", message, is_error=False)


def _prompts(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    if request.prompt is None:
        if spec.prompt_required:
            yield Finding("prompt", f"is missing: {spec.id} needs one", is_error=True)
    else:
        length = len(request.prompt)
        if spec.prompt_max is not None and length > spec.prompt_max:
            message = f"has {length:,} characters: {spec.id} takes at most {spec.prompt_max:,}"
            yield Finding("prompt", message, is_error=spec.prompt_documented)
        if spec.prompt_min is not None and length < spec.prompt_min:
            message = f"has {counted(length, 'character')}: {spec.id} needs at least {spec.prompt_min}"
            yield Finding("prompt", message, is_error=spec.prompt_documented)
    negative, most = request.negative_prompt, spec.negative_prompt_max
    if negative is not None and most is not None and len(negative) > most:
        message = f"has {len(negative):,} characters: {spec.id} takes at most {most:,}"
        yield Finding("negative_prompt", message, is_error=True)


def _unsupported(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    for item in spec.unsupported_params:
        if not _is_set(request, item.parameter):
            continue
        field = item.parameter if item.parameter in PARAMETERS else "extra_body"
        says = "does not take" if item.documented else "may not take"
        message = f"{spec.id} {says} {item.parameter} ({item.why}): leave it out"
        yield Finding(field, message, is_error=item.documented)
    if spec.only_params:
        taken = {"model", "prompt", "media", *spec.only_params}
        for name in PARAMETERS:
            if name not in taken and _is_set(request, name):
                message = f"{spec.id} may not take {name} (third party): only {', '.join(spec.only_params)}"
                yield Finding(name, message, is_error=False)


def _is_set(request: VideoRequest, parameter: str) -> bool:
    if "." not in parameter:
        return getattr(request, parameter) is not None
    group, _, name = parameter.partition(".")
    inner = (request.extra_body or {}).get(group)
    return isinstance(inner, dict) and inner.get(name) is not None


def _seconds(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    if request.seconds is None or spec.seconds is None:
        return
    seconds = float(request.seconds)
    if not spec.seconds.allows(seconds):
        who = "" if spec.seconds.documented else " elsewhere"
        message = f"{request.seconds} is not a length of {spec.id}: {spec.seconds} seconds{who}"
        yield Finding("seconds", message, is_error=spec.seconds.documented)
    elif not seconds.is_integer():
        yield Finding("seconds", f"{request.seconds}: only whole seconds are documented", is_error=False)


def _size(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    """Width and height."""
    width, height = request.width, request.height
    if (width is None and height is None) or _documented_against(spec, "width"):
        return
    field = "width" if width is not None else "height"
    if spec.sizing == "resolution":
        named = f" ({', '.join(spec.resolutions.values)})" if spec.resolutions else ""
        yield Finding(field, f"{spec.id} is sized by resolution{named}, not in pixels", is_error=False)
    if spec.dimensions is None:
        return
    allowed = ", ".join(spec.dimensions.values)
    if width is not None and height is not None:
        size = f"{width}x{height}"
        if size in spec.dimensions.elsewhere:
            message = f"{size} is a size of {spec.id} on other hosts; Together lists {allowed}"
            yield Finding(field, message, is_error=False)
        elif size not in spec.dimensions.values:
            message = f"{size} is not a size of {spec.id}: {allowed}"
            yield Finding(field, message, is_error=spec.dimensions.documented)
        return
    other, given = ("height", width) if height is None else ("width", height)
    matching = [s for s in spec.dimensions.values if s.split("x")[height is not None] == str(given)]
    if matching:
        message = f"{field} {given} is given without {other}: give both ({', '.join(matching)})"
        yield Finding(other, message, is_error=False)
    else:
        message = f"{field} {given} is in no size of {spec.id}: {allowed}"
        yield Finding(field, message, is_error=spec.dimensions.documented)


def _named_sizes(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    """Resolution and ratio."""
    for field, value, choices in (
        ("resolution", request.resolution, spec.resolutions),
        ("ratio", request.ratio, spec.ratios),
    ):
        if value is None or _documented_against(spec, field):
            continue
        if choices is not None:
            yield from _choice(spec, field, value, choices)
        elif spec.sizing == "pixels":
            sizes = ", ".join(spec.dimensions.values) if spec.dimensions else "pixels"
            message = f"{spec.id} is sized by width and height ({sizes}), not by {field}"
            yield Finding(field, message, is_error=spec.sizing_documented)


def _choice(spec: ModelSpec, field: str, value: str, choices: Choices) -> Iterator[Finding]:
    if value in choices.values:
        return
    spelt = next((right for right in choices.values if right.lower() == value.lower()), None)
    if spelt:
        message = f"{shown(value)} is spelt {spelt} for {spec.id}: case matters"
    else:
        who = "" if choices.documented else " elsewhere"
        message = f"{shown(value)} is not a {field} of {spec.id}: {', '.join(choices.values)}{who}"
    yield Finding(field, message, is_error=choices.documented)


def _documented_against(spec: ModelSpec, parameter: str) -> bool:
    return any(item.parameter == parameter and item.documented for item in spec.unsupported_params)


def _rate(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    if request.fps is not None and spec.fps is not None and request.fps not in spec.fps.values:
        rates = " or ".join(str(rate) for rate in spec.fps.values)
        message = f"{request.fps} is not a rate of {spec.id}: {rates} frames a second"
        yield Finding("fps", message, is_error=spec.fps.documented)


def _audio(spec: ModelSpec, request: VideoRequest, known_ids: Collection[str]) -> Iterator[Finding]:
    wanted = request.generate_audio
    if wanted is None:
        return
    if spec.audio == "no" and wanted:
        with_sound = f"{spec.id}-audio"
        hint = f": {with_sound} has it" if with_sound in known_ids else ": leave generate_audio out"
        yield Finding("generate_audio", f"{spec.id} makes no sound{hint}", is_error=True)
    elif spec.audio == "no":
        message = f"{spec.id} makes no sound and may fail with the parameter: leave it out"
        yield Finding("generate_audio", message, is_error=False)
    elif spec.audio == "always" and not wanted:
        yield Finding("generate_audio", f"{spec.id} always makes sound: false has no effect", is_error=False)
    elif spec.audio == "on by default" and not wanted:
        message = f'{spec.id} is silenced by extra_body {{"settings": {{"audio": false}}}}, not by generate_audio'
        yield Finding("generate_audio", message, is_error=False)


OTHER_MEDIA: tuple[MediaField, ...] = (
    "reference_images",
    "frame_videos",
    "reference_videos",
    "source_video",
    "audio_inputs",
    "reference_audios",
)
REFERENCES: tuple[MediaField, ...] = ("reference_images", "reference_videos", "reference_audios")
VIDEOS: tuple[MediaField, ...] = ("frame_videos", "reference_videos", "source_video")

FramePlace = Literal["first", "middle", "last", "unknown"]


def count(media: Media | None, field: MediaField) -> int:
    """How many items a field of `media` holds."""
    value = None if media is None else getattr(media, field)
    if value is None:
        return 0
    return 1 if isinstance(value, str | ClipRef) else len(value)


def media_findings(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    """Everything that `spec` says about the request's `media`."""
    yield from _what_is_missing(spec, request.media)
    yield from _frame_images(spec, request)
    yield from _other_media(spec, request.media)
    references = [field for field in REFERENCES if count(request.media, field)]
    if spec.frames_or_references and count(request.media, "frame_images") and references:
        message = f"{spec.id} takes frame images or references, not both: leave out {', '.join(references)}"
        yield Finding("media.frame_images", message, is_error=True)


def _what_is_missing(spec: ModelSpec, media: Media | None) -> Iterator[Finding]:
    if spec.needs and not any(count(media, field) for field in spec.needs):
        message = f"is missing: {spec.id} needs {' or '.join(spec.needs)}"
        yield Finding(f"media.{spec.needs[0]}", message, is_error=True)
    if spec.keyframes is None or not spec.keyframes.first_required:
        return
    images = (media.frame_images if media else None) or []
    has_first = "first" in frame_places(images, last_frame=None)
    continues = "frame_videos" in spec.reference_limits
    if not has_first and not (continues and count(media, "frame_videos")):
        instead = " or frame_videos" if continues else ""
        message = f"has no first frame: {spec.id} makes videos from images and needs one{instead}"
        yield Finding("media.frame_images", message, is_error=True)


def _frame_images(spec: ModelSpec, request: VideoRequest) -> Iterator[Finding]:
    images = (request.media.frame_images if request.media else None) or []
    if not images:
        return
    if spec.keyframes is None:
        if spec.inputs_documented and not {"i2v", "storyboard"}.intersection(spec.modes):
            message = f"{spec.id} takes no frame images: leave them out or choose an image-to-video model"
            yield Finding("media.frame_images", message, is_error=True)
        return
    yield from _beyond_the_end(spec, request, images)
    keyframes = spec.keyframes
    if len(images) > keyframes.most:
        message = f"has {len(images)} images: {spec.id} takes {keyframes}"
        yield Finding("media.frame_images", message, is_error=keyframes.documented)
        return
    found = frame_places(images, last_frame=_last_frame(spec, request))
    for image, place in zip(images, found, strict=True):
        if not _can_fix(keyframes, place):
            frame = place if image.frame is None else image.frame
            message = f"frame {frame} cannot be fixed: {spec.id} takes {keyframes}"
            yield Finding("media.frame_images", message, is_error=keyframes.documented)


def _can_fix(keyframes: Keyframes, place: FramePlace) -> bool:
    if keyframes.anywhere or place == "unknown":
        return True
    return (keyframes.first and place == "first") or (keyframes.last and place == "last")


def _beyond_the_end(spec: ModelSpec, request: VideoRequest, images: list[FrameImage]) -> Iterator[Finding]:
    last = _last_frame(spec, request)
    for image in images:
        if isinstance(image.frame, (int, float)) and last is not None and image.frame > last:
            surely = request.seconds is not None and request.fps is not None
            message = f"frame {image.frame:g} is beyond the clip's end: seconds x fps is {last:g}"
            yield Finding("media.frame_images", message, is_error=surely)


def _last_frame(spec: ModelSpec, request: VideoRequest) -> float | None:
    """Seconds x fps, as asked for or as the model does by itself; None if unknown."""
    seconds = float(request.seconds) if request.seconds else (spec.seconds.default if spec.seconds else None)
    rate = request.fps or (spec.fps.values[0] if spec.fps else None)
    return None if seconds is None or rate is None else seconds * rate


def frame_places(images: list[FrameImage], *, last_frame: float | None) -> list[FramePlace]:
    """Where each image sits: one without `frame` is the first, two are first and last (Together's docs)."""
    free: list[FramePlace] = ["first"]
    if len(images) > 1:
        free.extend("middle" for _ in images[2:])
        free.append("last")
    found: list[FramePlace | None] = [_frame_place(image.frame, last_frame) for image in images]
    for taken in found:
        if taken in free:
            free.remove(taken)
    settled: list[FramePlace] = []
    for place in found:
        settled.append(place or (free.pop(0) if free else "middle"))
    return settled


def _frame_place(frame: Literal["first", "last"] | float | None, last_frame: float | None) -> FramePlace | None:
    if frame is None or isinstance(frame, str):
        return frame
    if frame == 0:
        return "first"
    if last_frame is None:
        return "unknown"
    return "last" if frame >= last_frame - 1 else "middle"


def _other_media(spec: ModelSpec, media: Media | None) -> Iterator[Finding]:
    for field in OTHER_MEDIA:
        number = count(media, field)
        if not number:
            continue
        if field in spec.reference_limits:
            most = spec.reference_limits[field]
            if most is not None and number > most:
                message = f"has {number} items: {spec.id} takes at most {most}"
                yield Finding(f"media.{field}", message, is_error=True)
        elif field in spec.inputs_unclear or not spec.inputs_documented:
            yield Finding(f"media.{field}", f"is not documented for {spec.id}", is_error=False)
        else:
            taken = [*(["frame_images"] if spec.keyframes else []), *spec.reference_limits]
            instead = f"it takes {', '.join(taken)}" if taken else "leave it out"
            yield Finding(f"media.{field}", f"is not taken by {spec.id}: {instead}", is_error=True)
