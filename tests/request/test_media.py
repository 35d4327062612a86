"""Pictures, videos and sounds: which texts are which, and how they are named."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from prefect_together.request.media import (
    LocalImage,
    Media,
    image_identity,
    image_kind,
    image_name,
    inline_bytes,
    inline_characters,
    is_web_address,
    page_advice,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60_000)
PNG_TEXT = base64.b64encode(PNG).decode()
LOCAL = LocalImage(path="/tables/cat.png", sha256="AB12" * 16, size_bytes=61_000, media_type="image/png")


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("https://example.com/cat.png", "url"),
        ("HTTP://localhost:8000/cat", "url"),
        (f"data:image/png;base64,{PNG_TEXT}", "data_uri"),
        (f"DATA:image/svg+xml;charset=utf-8;base64,{PNG_TEXT}", "data_uri"),
        (PNG_TEXT, "base64"),
        (base64.encodebytes(PNG).decode(), "base64"),
        (base64.b64encode(b"\xff\xd8\xff\xe0").decode(), "base64"),
        (LOCAL, "local"),
    ],
)
def test_an_image_is_a_url_a_data_uri_base64_or_local(image: str | LocalImage, kind: str) -> None:
    assert image_kind(image) == kind


@pytest.mark.parametrize(
    "text",
    ["", "cat.png", "cats", "images/cat", "/abs/cat.png", "ftp://example.com/a.png", "https://", "https://a b/c.png"],
)
def test_other_text_is_no_image(text: str) -> None:
    with pytest.raises(ValueError, match="is not an image: an https URL"):
        image_kind(text)


@pytest.mark.parametrize("text", ["data:text/html;base64,QUJD", "data:image/png;base64,***", "data:image/png,abc"])
def test_a_broken_data_uri_is_no_image(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole data URI"):
        image_kind(text)


def test_base64_of_several_lines_is_held_as_one() -> None:
    media = Media.model_validate({"reference_images": [base64.encodebytes(PNG).decode()]})

    assert media.reference_images == [PNG_TEXT]


def test_the_size_of_an_inline_image_is_counted_in_bytes_and_as_sent() -> None:
    assert inline_bytes(PNG_TEXT) == len(PNG)
    assert inline_bytes(f"data:image/png;base64,{PNG_TEXT}") == len(PNG)
    assert inline_characters(PNG_TEXT) == len(PNG_TEXT)
    assert inline_characters(LOCAL) == 81_336
    assert inline_bytes("https://example.com/a.png") == inline_characters("https://example.com/a.png") == 0


def test_bytes_count_as_the_same_image_wherever_they_come_from() -> None:
    assert image_identity(LOCAL) == f"sha256:{'ab12' * 16}"
    assert image_identity(PNG_TEXT).startswith("sha256:")
    assert image_identity("https://example.com/a.png?x=1") == "https://example.com/a.png?x=1"


def test_a_name_of_an_image_holds_neither_bytes_nor_queries() -> None:
    assert image_name(LOCAL) == "cat.png (sha256 AB12AB12…)"
    assert image_name(PNG_TEXT) == "base64 image (60 KB)"
    assert image_name("https://example.com/a.png?sig=1") == "https://example.com/a.png?…"


@pytest.mark.parametrize("value", ["clip.mp4", {"url": "https://example.com/c.mp4"}, 7, "data:audio/mp3;base64,AAAA"])
def test_a_video_is_given_by_its_url(value: object) -> None:
    with pytest.raises(ValidationError):
        Media.model_validate({"source_video": value})


@pytest.mark.parametrize("text", ["http://[::1", "mailto:a@b", "https:///x", "https://a/\n"])
def test_text_that_only_looks_like_an_address_is_none(text: str) -> None:
    assert not is_web_address(text)


def test_an_image_that_is_neither_text_nor_a_local_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="is not an image"):
        Media.model_validate({"reference_images": [{"path": "/x.png"}, 7]})


DOWNLOAD = "https://drive.google.com/uc?export=download&id=1aB_c-9"


@pytest.mark.parametrize(
    ("link", "advice"),
    [
        ("https://drive.google.com/file/d/1aB_c-9/view?usp=sharing", DOWNLOAD),
        ("https://drive.google.com/open?id=1aB_c-9", DOWNLOAD),
        ("https://www.dropbox.com/scl/fi/x/cat.png?rlkey=y&dl=0", "the same link with dl=1 in place of dl=0"),
        ("https://github.com/o/r/blob/main/cat.png", "https://raw.githubusercontent.com/o/r/main/cat.png"),
        ("https://imgur.com/a/xyz", "the file's own address"),
        ("https://www.youtube.com/watch?v=x", "the file's own address"),
    ],
)
def test_a_link_to_a_page_about_a_file_is_known_with_what_to_give_instead(link: str, advice: str) -> None:
    assert page_advice(link) == advice


@pytest.mark.parametrize(
    "link",
    [
        *(DOWNLOAD, "https://www.dropbox.com/s/x/cat.png?dl=1"),
        *("https://dl.dropboxusercontent.com/s/x/cat.png", "https://i.imgur.com/x.png", "https://example.com/view"),
        *("https://raw.githubusercontent.com/o/r/main/cat.png", "https://github.com/o/r/releases/download/1/cat.png"),
    ],
)
def test_a_link_that_may_be_the_file_is_none_of_these(link: str) -> None:
    assert page_advice(link) is None
