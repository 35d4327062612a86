"""Images, videos and sounds as inputs of a request: their forms and names. Reads no file, opens no URL."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from prefect_together.request.fields import FramePosition, is_sendable, shown, wrong

ImageKind = Literal["url", "data_uri", "base64", "local"]

MAX_INLINE_CHARACTERS = 60_000
"""Above it an image sent inside the request is worth a warning: one client reports a cap near 60 KB."""

PAGE_HOSTS = frozenset(
    {
        *("1drv.ms", "onedrive.live.com", "icloud.com", "share.icloud.com", "photos.google.com", "photos.app.goo.gl"),
        *(
            "imgur.com",
            "flickr.com",
            "pinterest.com",
            "youtube.com",
            "youtu.be",
            "vimeo.com",
            "we.tl",
            "wetransfer.com",
        ),
    }
)
"""Their links lead to pages that show a file; the files themselves have other hosts, such as i.imgur.com."""

_DATA_URI = re.compile(r"data:image/[\w.+-]+(;[\w.=+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_SPACE = re.compile(r"\s+")
_IMAGE_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_SURELY_BASE64_CHARACTERS = 64


class LocalImage(BaseModel):
    """An image file that is read only at the moment when it is sent. Its bytes are not kept here.

    `path` is absolute, `sha256` the hex digest of the file's content. `size_bytes` and `media_type` ("image/png") are
    those of what is sent: another picture than the file's if `is_converted`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    size_bytes: int
    media_type: str
    is_converted: bool = False


_CLIP_REF = re.compile(
    r"@(?P<row>.+?)(?:#(?P<take>[0-9]+))?(?::(?:(?P<end>first|last)|(?P<seconds>[0-9]+(?:\.[0-9]+)?)s))?", re.DOTALL
)


class ClipRef(BaseModel):
    """The clip of another video, or a frame of it, to be had once that clip is there: `@shot-1`, `@shot-1#2:last`.

    `row` is the id of a row or of one of its videos, `take` which of its takes. `frame` is the first or last one, or
    the one at so many seconds; None is the clip itself, or a still as it is. `key` is the source's identity, which the
    plan finds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str
    take: int | None = None
    frame: Literal["first", "last"] | float | None = None
    key: str | None = None

    @classmethod
    def parse(cls, text: str) -> ClipRef:
        """Read `@row-id`, `@row-id#2`, each with `:first`, `:last` or `:2.5s` behind it. Raises ValueError."""
        found = _CLIP_REF.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{shown(text)} names no row: @row-id is right, or @row-id#2 for its second take")
        end = cast('Literal["first", "last"] | None', found["end"])
        frame = float(found["seconds"]) if found["seconds"] else end
        return cls(row=found["row"].strip(), take=int(found["take"]) if found["take"] else None, frame=frame)

    def __str__(self) -> str:
        take = "" if self.take is None else f"#{self.take}"
        frame = "" if self.frame is None else f":{self.frame if isinstance(self.frame, str) else f'{self.frame:g}s'}"
        return f"@{self.row}{take}{frame}"

    @property
    def identity(self) -> str:
        """What it adds to a request's fingerprint: which clip, and so how that is made, and which frame of it."""
        frame = self.frame if self.frame is None or isinstance(self.frame, str) else f"{self.frame:g}s"
        return f"clip:{self.key or self}:{frame or ''}"


Image = str | LocalImage | ClipRef
"""A picture as a request holds it: a URL, a data URI or base64 text, a local file, or a frame of another clip."""


def is_web_address(text: str) -> bool:
    """Whether `text` is an http(s) URL with a host."""
    if _SPACE.search(text) or not is_sendable(text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    compact = _SPACE.sub("", text)
    if not compact or not _BASE64.fullmatch(compact):
        return False
    beginning = base64.b64decode(compact[:16])
    return len(compact) >= _SURELY_BASE64_CHARACTERS or beginning.startswith(_IMAGE_BEGINNINGS)


def image_kind(image: str | LocalImage) -> ImageKind:
    """What `image` is. Raises ValueError, with what would be right, for text that is none of the forms."""
    if isinstance(image, LocalImage):
        return "local"
    if is_web_address(image):
        return "url"
    if image[:5].lower() == "data:":
        head = _DATA_URI.match(image)
        if head and _BASE64.fullmatch(_SPACE.sub("", image[head.end() :])):
            return "data_uri"
        raise ValueError(f"{shown(image)} is not a whole data URI: data:image/png;base64,... is right")
    if _is_base64(image):
        return "base64"
    raise ValueError(
        f"{shown(image)} is not an image: an https URL, a data URI or base64 text"
        " (a prompt table can also name a local image file)"
    )


def inline_bytes(image: str | LocalImage) -> int:
    """How many bytes of picture travel inside the request: 0 for a URL."""
    if isinstance(image, LocalImage):
        return image.size_bytes
    if image_kind(image) == "url":
        return 0
    text = _SPACE.sub("", image.partition(",")[2] if image[:5].lower() == "data:" else image)
    return len(text) * 3 // 4 - (len(text) - len(text.rstrip("=")))


def inline_characters(image: Image) -> int:
    """How many characters an image sent inside the request takes: 0 for a URL. Base64 is 4 for 3 bytes.

    0 for a frame of another clip too, which is made to fit.
    """
    if isinstance(image, ClipRef):
        return 0
    if isinstance(image, LocalImage):
        return -(-image.size_bytes // 3) * 4
    return 0 if image_kind(image) == "url" else len(image)


def page_advice(url: str) -> str | None:
    """What to give in place of a link that leads to a web page about a file; None for a link that may be the file."""
    parts = urlsplit(url)
    host, query = (parts.hostname or "").removeprefix("www."), parse_qs(parts.query)
    if host in ("drive.google.com", "docs.google.com"):
        found = re.search(r"/d/([\w-]+)", parts.path)
        drive_id = found[1] if found else query.get("id", [None])[0]
        is_page = parts.path.startswith(("/file/", "/open", "/drive/"))
        return f"https://drive.google.com/uc?export=download&id={drive_id or 'ID'}" if is_page else None
    if host == "dropbox.com":
        is_file = query.get("dl") == ["1"] or query.get("raw") == ["1"]
        return None if is_file else "the same link with dl=1 in place of dl=0"
    if host == "github.com" and "/blob/" in parts.path:
        return f"https://raw.githubusercontent.com{parts.path.replace('/blob/', '/', 1)}"
    return "the file's own address" if host in PAGE_HOSTS else None


def image_name(image: Image) -> str:
    """`image` as pages and logs show it: no bytes, and no query of a URL (it may be signed)."""
    if isinstance(image, ClipRef):
        return str(image)
    if isinstance(image, LocalImage):
        return f"{PurePath(image.path).name} (sha256 {image.sha256[:8]}…)"
    kind = image_kind(image)
    if kind == "url":
        return address_name(image)
    size = f"{inline_bytes(image) / 1000:.0f} KB"
    return f"{image.partition(',')[0]},… ({size})" if kind == "data_uri" else f"base64 image ({size})"


def address_name(url: str | ClipRef) -> str:
    """`url` as pages and logs show it: without query, fragment, user and password."""
    if isinstance(url, ClipRef):
        return str(url)
    if url[:5].lower() == "data:":
        return f"{url.partition(',')[0]},…"
    parts = urlsplit(url)
    rest = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{rest}"


def image_identity(image: Image) -> str:
    """`image` as the fingerprint counts it: bytes by their SHA-256 wherever from, a URL as it stands."""
    if isinstance(image, ClipRef):
        return image.identity
    if isinstance(image, LocalImage):
        return f"sha256:{image.sha256.lower()}"
    if image_kind(image) == "base64":
        return f"sha256:{hashlib.sha256(base64.b64decode(image)).hexdigest()}"
    return image


def address_identity(url: str | ClipRef) -> str:
    """`url` as the fingerprint counts it."""
    return url.identity if isinstance(url, ClipRef) else url


def _image_input(value: object) -> object:
    if isinstance(value, LocalImage | ClipRef):
        return value
    if isinstance(value, str) and value.strip().startswith("@"):
        return ClipRef.parse(value)
    if isinstance(value, Mapping):
        try:
            return (ClipRef if "row" in value else LocalImage).model_validate(value)
        except ValidationError as error:
            raise wrong("is not an image: text (URL, data URI, base64) or a LocalImage") from error
    if not isinstance(value, str):
        raise wrong(f"{shown(value)} is not an image: text (URL, data URI, base64) or a LocalImage")
    text = value.strip()
    return text if image_kind(text) == "url" else _SPACE.sub("", text)


def _address(key: str) -> Callable[[object], object]:
    """A check for the URL of a video or a sound, taken as text or as {key: url}."""

    def check(value: object) -> object:
        if key == "video" and (ref := _clip_itself(value)) is not None:
            return ref
        if isinstance(value, Mapping):
            ref = cast("Mapping[str, object]", value)
            if set(ref) != {key}:
                raise wrong(f'{shown(dict(ref))} is not of the form {{"{key}": "https://..."}}')
            value = ref[key]
        text = value.strip() if isinstance(value, str) else ""
        if not (is_web_address(text) or text.lower().startswith(f"data:{key}/")):
            raise wrong(f"{shown(value)} is not the URL of a {key} (local files can be given for images only)")
        return text

    return check


def _clip_itself(value: object) -> ClipRef | None:
    """The reference that `value` is, checked to mean a whole clip; None if it is none."""
    if isinstance(value, Mapping) and set(cast("Mapping[str, object]", value)) == {"video"}:
        value = cast("Mapping[str, object]", value)["video"]
    if isinstance(value, Mapping) and "row" in value:
        value = ClipRef.model_validate(value)
    if isinstance(value, str) and value.strip().startswith("@"):
        value = ClipRef.parse(value)
    if isinstance(value, ClipRef) and value.frame is not None:
        raise wrong(f"{value} is a frame, and a video is wanted: write {value.model_copy(update={'frame': None})}")
    return value if isinstance(value, ClipRef) else None


ImageInput = Annotated[Image, BeforeValidator(_image_input)]
AudioUrl = Annotated[str, BeforeValidator(_address("audio"))]
VideoUrl = Annotated[str | ClipRef, BeforeValidator(_address("video"))]


class FrameImage(BaseModel):
    """A picture and the frame of the clip that it fixes.

    Without `frame`, one picture is the first frame, two are the first and the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input_image: ImageInput
    frame: FramePosition | None = None

    @model_validator(mode="before")
    @classmethod
    def _picture_alone(cls, value: object) -> object:
        return {"input_image": value} if isinstance(value, (str, LocalImage, ClipRef)) else value


class VideoRef(BaseModel):
    """The URL of a video in the form that lists of videos have: {"video": url}; the bare URL is taken too."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    video: VideoUrl

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, value: object) -> object:
        return {"video": value} if isinstance(value, (str, ClipRef)) else value


def _one_image_a_frame(images: list[FrameImage]) -> None:
    places = Counter(image.frame for image in images if image.frame is not None)
    twice = [str(place) for place, count in places.items() if count > 1]
    if twice:
        raise wrong(f"has more than one image for frame {', '.join(twice)}: one image a frame")


def _frames_checked(images: list[FrameImage]) -> list[FrameImage]:
    """One image a frame; of a clip that goes on in this one, the frame that joins the two."""
    _one_image_a_frame(images)
    named = [
        item.model_copy(update={"input_image": _frame_for(item, place, len(images))})
        for place, item in enumerate(images)
    ]
    _all_named([item.input_image for item in named])
    return named


def _frame_for(item: FrameImage, place: int, count: int) -> Image:
    """The picture of a frame; of another clip, if none of its frames is named, the one that joins the two."""
    ref, frame = item.input_image, item.frame
    if not isinstance(ref, ClipRef) or ref.frame is not None or ref.key is not None:
        return ref
    if frame in ("first", 0) or (frame is None and place == 0):
        return ref.model_copy(update={"frame": "last"})
    if frame == "last" or (frame is None and place == count - 1):
        return ref.model_copy(update={"frame": "first"})
    return ref


def _all_named(images: list[Image]) -> list[Image]:
    for ref in images:
        if isinstance(ref, ClipRef) and ref.frame is None and ref.key is None:
            raise wrong(f"which frame of the clip? Write {ref}:first, {ref}:last or, at 2.5 seconds, {ref}:2.5s")
    return images


class Media(BaseModel):
    """The pictures, videos and sounds of a request. `reference_audios` is in the docs only."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    frame_images: Annotated[list[FrameImage], AfterValidator(_frames_checked)] | None = None
    reference_images: Annotated[list[ImageInput], AfterValidator(_all_named)] | None = None
    frame_videos: list[VideoRef] | None = None
    reference_videos: list[VideoRef] | None = None
    source_video: VideoUrl | None = None
    audio_inputs: list[AudioUrl] | None = None
    reference_audios: list[AudioUrl] | None = None

    def with_clips(self, replace: Callable[[ClipRef], ClipRef | str]) -> Media:
        """The same with each reference to another clip replaced."""

        def replaced(item: object) -> object:
            if isinstance(item, ClipRef):
                return replace(item)
            if isinstance(item, FrameImage):
                return item.model_copy(update={"input_image": replaced(item.input_image)})
            if isinstance(item, VideoRef):
                return item.model_copy(update={"video": replaced(item.video)})
            return [replaced(one) for one in cast("list[object]", item)] if isinstance(item, list) else item

        return self.model_copy(update={name: replaced(getattr(self, name)) for name in self.model_fields_set})

    def clip_refs(self) -> list[tuple[str, ClipRef]]:
        """Every reference to another clip with the name of its field, in the API's order."""
        return [(field, item) for field, item in (*self.images(), *self.videos()) if isinstance(item, ClipRef)]

    def on_the_wire(
        self, *, image: Callable[[Image], str], address: Callable[[str | ClipRef], str] = str
    ) -> dict[str, Any]:
        """`media` as JSON in the newest form, images and addresses put through the functions; {} if empty."""
        frames: list[dict[str, Any]] = []
        for item in self.frame_images or []:
            place = {} if item.frame is None else {"frame": item.frame}
            frames.append({"input_image": image(item.input_image), **place})
        wire = {
            "frame_images": frames,
            "reference_images": [image(item) for item in self.reference_images or []],
            "frame_videos": [{"video": address(item.video)} for item in self.frame_videos or []],
            "reference_videos": [{"video": address(item.video)} for item in self.reference_videos or []],
            "source_video": address(self.source_video) if self.source_video else None,
            "audio_inputs": [address(item) for item in self.audio_inputs or []],
            "reference_audios": [address(item) for item in self.reference_audios or []],
        }
        return {name: value for name, value in wire.items() if value}

    def links(self) -> list[tuple[str, str]]:
        """Every web address with the name of its field, in the API's order."""
        sounds = [("audio_inputs", item) for item in self.audio_inputs or []]
        sounds += [("reference_audios", item) for item in self.reference_audios or []]
        given = [*self.images(), *self.videos(), *sounds]
        return [(field, item) for field, item in given if isinstance(item, str) and is_web_address(item)]

    def videos(self) -> list[tuple[str, str | ClipRef]]:
        """Every video with the name of its field, in the API's order."""
        videos = [("frame_videos", item.video) for item in self.frame_videos or []]
        videos += [("reference_videos", item.video) for item in self.reference_videos or []]
        return [*videos, ("source_video", self.source_video)] if self.source_video else videos

    def images(self) -> list[tuple[str, Image]]:
        """Every picture with the name of its field, in the API's order."""
        frames = [("frame_images", item.input_image) for item in self.frame_images or []]
        return [*frames, *(("reference_images", item) for item in self.reference_images or [])]
