"""Images that tables name: what is read, what is refused, and that nothing else is ever sent."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from prefect_together.errors import ImageChanged
from prefect_together.request.images import MAX_IMAGE_BYTES, encode_image, load_image
from prefect_together.request.media import LocalImage


def picture(kind: str = "PNG", *, width: int = 40, height: int = 30) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def table_dir(tmp_path: Path) -> Path:
    """A table's directory with images/cat.png in it, and a picture beside it that is no business of the table."""
    directory = tmp_path / "table"
    (directory / "images").mkdir(parents=True)
    (directory / "images" / "cat.png").write_bytes(picture())
    (tmp_path / "outside.png").write_bytes(picture())
    return directory


@pytest.mark.parametrize(
    "value",
    [
        "https://example.com/a.png?signature=x",
        "http://example.com/a b.png".replace(" ", "%20"),
        "data:image/png;base64," + base64.b64encode(picture()).decode(),
        base64.b64encode(picture()).decode(),
    ],
)
def test_addresses_and_images_as_text_pass_as_they_are(value: str, table_dir: Path) -> None:
    assert load_image(f" {value} ", base=str(table_dir)) == value


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif"), ("MPO", "image/jpeg")],
)
def test_a_local_image_is_known_by_its_content_whatever_its_name(kind: str, media_type: str, table_dir: Path) -> None:
    content = picture(kind)
    (table_dir / "image.dat").write_bytes(content)

    image = load_image("image.dat", base=str(table_dir))

    assert image == LocalImage(
        path=str(table_dir / "image.dat"),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        media_type=media_type,
    )


@pytest.mark.parametrize("value", ["images/cat.png", "./images/../images/cat.png", " images/cat.png "])
def test_relative_paths_start_from_the_tables_directory(value: str, table_dir: Path) -> None:
    image = load_image(value, base=str(table_dir))

    assert isinstance(image, LocalImage)
    assert image.path == str(table_dir / "images" / "cat.png")


def test_an_absolute_path_below_the_tables_directory_is_read(table_dir: Path) -> None:
    assert isinstance(load_image(str(table_dir / "images" / "cat.png"), base=str(table_dir)), LocalImage)


def test_a_path_that_could_be_base64_is_a_path_if_there_is_such_a_file(table_dir: Path) -> None:
    name = "a" * 64
    (table_dir / name).write_bytes(picture())

    assert isinstance(load_image(name, base=str(table_dir)), LocalImage)
    assert load_image("b" * 64, base=str(table_dir)) == "b" * 64


@pytest.mark.parametrize("value", ["../outside.png", "images/../../outside.png", "/etc/passwd", "../nothing-there.png"])
def test_nothing_outside_the_tables_directory_is_looked_at(value: str, table_dir: Path) -> None:
    with pytest.raises(ValueError, match="lies outside the table's directory"):
        load_image(value, base=str(table_dir))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_does_not_lead_out_of_the_tables_directory(table_dir: Path) -> None:
    (table_dir / "link.png").symlink_to(table_dir.parent / "outside.png")
    (table_dir / "up").symlink_to(table_dir.parent)

    for value in ("link.png", "up/outside.png"):
        with pytest.raises(ValueError, match="lies outside"):
            load_image(value, base=str(table_dir))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_itself_is_a_mistake_like_others(table_dir: Path) -> None:
    (table_dir / "loop.png").symlink_to(table_dir / "loop.png")

    with pytest.raises(ValueError, match=r"loop\.png"):
        load_image("loop.png", base=str(table_dir))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("missing.png", "does not exist"),
        ("images", "is not a file"),
        (".", "is not a file"),
        ("x" * 5000 + ".png", "cannot be read"),
        ("a\x00b.png", "NUL"),
        ("file:///etc/passwd", "is not taken"),
        ("s3://bucket/a.png", "is not taken"),
        ("data:text/html,<b>", "is not a whole data URI"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(value: str, reason: str, table_dir: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        load_image(value, base=str(table_dir))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n", picture()[:-200], picture("JPEG")[:500], b"<svg xmlns='x'/>", picture("BMP")],
)
def test_a_file_that_is_not_a_whole_picture_of_a_known_kind_is_refused(content: bytes, table_dir: Path) -> None:
    (table_dir / "broken.png").write_bytes(content)

    with pytest.raises(ValueError, match="is not an image: a whole PNG, JPEG, WebP or GIF"):
        load_image("broken.png", base=str(table_dir))


def test_a_picture_made_to_fill_the_memory_is_refused(table_dir: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(table_dir / "bomb.png")

    with pytest.raises(ValueError, match="more pixels than a video frame"):
        load_image("bomb.png", base=str(table_dir))


def test_a_file_that_is_too_large_is_refused_unread(table_dir: Path) -> None:
    with (table_dir / "large.png").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)

    with pytest.raises(ValueError, match="larger than 20 MB: give its URL"):
        load_image("large.png", base=str(table_dir))


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("cat.png", "https://example.com/t/cat.png"),
        ("a b/ü.png", "https://example.com/t/a%20b/%C3%BC.png"),
        ("../cat.png", "https://example.com/cat.png"),
        ("https://other.example/x.png", "https://other.example/x.png"),
    ],
)
def test_for_a_table_from_the_web_relative_paths_are_addresses(value: str, address: str) -> None:
    assert load_image(value, base="https://example.com/t/") == address


def test_for_a_table_in_a_store_relative_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be found from a table at s3://"):
        load_image("cat.png", base="s3://bucket/t/")


def test_an_image_is_sent_as_bare_base64(table_dir: Path) -> None:
    image = load_image("images/cat.png", base=str(table_dir))
    assert isinstance(image, LocalImage)

    text = encode_image(image)

    assert base64.b64decode(text, validate=True) == (table_dir / "images" / "cat.png").read_bytes()


def test_an_image_that_changed_since_it_was_checked_is_not_sent(table_dir: Path) -> None:
    image = load_image("images/cat.png", base=str(table_dir))
    assert isinstance(image, LocalImage)
    (table_dir / "images" / "cat.png").write_bytes(picture(width=41))

    with pytest.raises(ImageChanged, match=r"cat\.png changed after the table was read"):
        encode_image(image)


def test_an_image_that_is_gone_is_not_sent(table_dir: Path) -> None:
    image = load_image("images/cat.png", base=str(table_dir))
    assert isinstance(image, LocalImage)
    (table_dir / "images" / "cat.png").unlink()

    with pytest.raises(ImageChanged, match=r"cat\.png cannot be read: No such file"):
        encode_image(image)
