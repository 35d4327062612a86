"""Images that tables name: what is read, what is refused, and that nothing else is ever sent."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image, ImageColor

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


@pytest.mark.parametrize(
    "value",
    [
        *("images/cat.png", "./images/../images/cat.png", " images/cat.png ", "images\\cat.png", ".\\images\\cat.png"),
        *('"images/cat.png"', "'images/cat.png'", "“images/cat.png”", ' "images\\cat.png" '),
    ],
)
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


@pytest.mark.parametrize(
    "value",
    [
        *("../outside.png", "images/../../outside.png", "/etc/passwd", "../nothing-there.png"),
        *("..\\outside.png", '"../outside.png"'),
    ],
)
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
    [b"", b"hello", b"\x89PNG\r\n\x1a\n", picture()[:-200], picture("JPEG")[:500], picture("BMP")[:500]],
)
def test_a_file_that_is_not_a_whole_picture_of_a_known_kind_is_refused(content: bytes, table_dir: Path) -> None:
    (table_dir / "broken.png").write_bytes(content)

    with pytest.raises(ValueError, match="is not a whole image: a PNG, JPEG, WebP, GIF, BMP or TIFF"):
        load_image("broken.png", base=str(table_dir))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIC picture"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "a HEIC picture"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1", "an AVIF picture"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isom", "a video"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (b"8BPS\x00\x01", "a Photoshop file"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_a_kind_of_file_that_is_not_taken_is_called_by_its_name(content: bytes, kind: str, table_dir: Path) -> None:
    (table_dir / "photo.png").write_bytes(content)

    with pytest.raises(ValueError, match=f"is {kind}, which is not taken: save it as PNG or JPEG"):
        load_image("photo.png", base=str(table_dir))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_refused_because_one_picture_is_needed(kind: str, table_dir: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    frames[0].save(table_dir / "moving", kind, save_all=True, append_images=frames[1:])

    with pytest.raises(ValueError, match="holds 3 pictures, and one is needed"):
        load_image("moving", base=str(table_dir))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("BMP", "1"), ("BMP", "L"), ("BMP", "P"), ("BMP", "RGB"), ("TIFF", "L"), ("TIFF", "P"), ("TIFF", "RGBA")],
)
def test_bmp_and_tiff_are_sent_as_png_of_the_same_pixels(kind: str, mode: str, table_dir: Path) -> None:
    Image.effect_noise((40, 30), 50).convert("RGB").convert(mode).save(table_dir / "scan", kind)

    image = load_image("scan", base=str(table_dir))

    assert isinstance(image, LocalImage)
    assert image.media_type == "image/png"
    assert image.sha256 == hashlib.sha256((table_dir / "scan").read_bytes()).hexdigest()
    sent = base64.b64decode(encode_image(image))
    assert image.size_bytes == len(sent)
    with Image.open(io.BytesIO(sent)) as found, Image.open(table_dir / "scan") as given:
        assert found.format == "PNG"
        assert found.convert("RGBA").tobytes() == given.convert("RGBA").tobytes()


def test_a_tiff_in_print_colours_is_refused_and_not_changed(table_dir: Path) -> None:
    Image.new("CMYK", (16, 16)).save(table_dir / "print.tif")

    with pytest.raises(ValueError, match=r"is a TIFF with colours that are not taken \(CMYK"):
        load_image("print.tif", base=str(table_dir))


SIDES = {"top left": "red", "top right": "green", "bottom left": "blue", "bottom right": "white"}
AS_HELD = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(kind: str, orientation: int | None) -> bytes:
    """A photo of four colours, 64 wide and 32 high when upright, as a camera saves it that was held so."""
    upright = Image.new("RGB", (64, 32))
    for side, colour in SIDES.items():
        upright.paste(colour, (32 * ("right" in side), 16 * ("bottom" in side), 64, 32))
    saved = upright.transpose(AS_HELD[orientation]) if orientation in AS_HELD else upright
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    stream = io.BytesIO()
    saved.save(stream, kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", AS_HELD)
def test_a_photo_that_exif_says_to_turn_is_sent_upright(kind: str, orientation: int, table_dir: Path) -> None:
    content = photo(kind, orientation)
    (table_dir / "photo").write_bytes(content)

    image = load_image("photo", base=str(table_dir))

    assert isinstance(image, LocalImage)
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    sent = encode_image(image)
    assert sent == encode_image(image)
    with Image.open(io.BytesIO(base64.b64decode(sent))) as found:
        assert Image.MIME[found.format or ""] == image.media_type
        assert found.size == (64, 32)
        assert found.getexif().get(0x0112, 1) == 1
        upright = found.convert("RGB")
    for side, colour in SIDES.items():
        pixel = upright.getpixel((16 + 32 * ("right" in side), 8 + 16 * ("bottom" in side)))
        assert isinstance(pixel, tuple)
        assert all(abs(a - b) < 60 for a, b in zip(pixel, ImageColor.getrgb(colour), strict=True)), (side, pixel)


@pytest.mark.parametrize("orientation", [None, 1, 99])
def test_a_photo_that_is_upright_is_sent_as_it_is(orientation: int | None, table_dir: Path) -> None:
    content = photo("JPEG", orientation)
    (table_dir / "photo.jpg").write_bytes(content)

    image = load_image("photo.jpg", base=str(table_dir))

    assert isinstance(image, LocalImage)
    assert base64.b64decode(encode_image(image)) == content


def test_a_photo_to_be_turned_that_changed_since_it_was_checked_is_not_sent(table_dir: Path) -> None:
    (table_dir / "photo.jpg").write_bytes(photo("JPEG", 6))
    image = load_image("photo.jpg", base=str(table_dir))
    assert isinstance(image, LocalImage)
    (table_dir / "photo.jpg").write_bytes(photo("JPEG", 8))

    with pytest.raises(ImageChanged, match="changed after the table was read"):
        encode_image(image)


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
        ("a\\cat.png", "https://example.com/t/a/cat.png"),
        ('"https://other.example/x.png"', "https://other.example/x.png"),
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
