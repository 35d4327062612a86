"""What the catalogue knows to be wrong with a request's `media`: frames, references, clips, sounds. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from prefect_together.catalogue_checks import Finding
from prefect_together.inputs import FrameImage, Media
from prefect_together.model_spec import Keyframes, MediaField, ModelSpec
from prefect_together.requests import VideoRequest

OTHER_MEDIA: tuple[MediaField, ...] = (
    "reference_images",
    "frame_videos",
    "reference_videos",
    "source_video",
    "audio_inputs",
    "reference_audios",
)
REFERENCES: tuple[MediaField, ...] = ("reference_images", "reference_videos", "reference_audios")

Place = Literal["first", "middle", "last", "unknown"]


def count(media: Media | None, field: MediaField) -> int:
    """How many items a field of `media` holds."""
    value = None if media is None else getattr(media, field)
    if value is None:
        return 0
    return 1 if isinstance(value, str) else len(value)


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
    has_first = "first" in places(images, last_frame=None)
    goes_on = "frame_videos" in spec.reference_limits
    if not has_first and not (goes_on and count(media, "frame_videos")):
        instead = " or frame_videos" if goes_on else ""
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
    found = places(images, last_frame=_last_frame(spec, request))
    for image, place in zip(images, found, strict=True):
        if not _has_place(keyframes, place):
            frame = place if image.frame is None else image.frame
            message = f"frame {frame} cannot be fixed: {spec.id} takes {keyframes}"
            yield Finding("media.frame_images", message, is_error=keyframes.documented)


def _has_place(keyframes: Keyframes, place: Place) -> bool:
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


def places(images: list[FrameImage], *, last_frame: float | None) -> list[Place]:
    """Where each image sits: one without `frame` is the first, two are first and last (Together's docs)."""
    free: list[Place] = ["first"]
    if len(images) > 1:
        free.extend("middle" for _ in images[2:])
        free.append("last")
    found: list[Place | None] = [_place(image.frame, last_frame) for image in images]
    for taken in found:
        if taken in free:
            free.remove(taken)
    settled: list[Place] = []
    for place in found:
        settled.append(place or (free.pop(0) if free else "middle"))
    return settled


def _place(frame: Literal["first", "last"] | float | None, last_frame: float | None) -> Place | None:
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
