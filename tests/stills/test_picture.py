"""A picture that came back: whole ones of three kinds are taken, everything else is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prefect_together.errors import ClipInvalid
from prefect_together.stills.picture import inspect_picture


def picture(path: Path, kind: str) -> Path:
    Image.effect_noise((320, 256), 60).convert("RGB").save(path, kind)
    return path


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_whole_picture_is_taken_with_its_size(tmp_path: Path, kind: str, suffix: str) -> None:
    facts = inspect_picture(picture(tmp_path / "still", kind))

    assert (facts.container, facts.width, facts.height) == (suffix, 320, 256)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_cut_picture_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    path = picture(tmp_path / "still", kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(ClipInvalid, match="not a whole JPEG, PNG or WebP"):
        inspect_picture(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>Just a moment</html>", 'text, not a picture: "<html>Just a moment</html>"'),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "not a whole JPEG, PNG or WebP"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "still"
    path.write_bytes(content)

    with pytest.raises(ClipInvalid, match=reason):
        inspect_picture(path)


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipInvalid, match="not a whole JPEG, PNG or WebP"):
        inspect_picture(picture(tmp_path / "still", "BMP"))


def test_a_picture_with_more_pixels_than_memory_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    Image.new("1", (12_000, 12_000)).save(path, "PNG")

    with pytest.raises(ClipInvalid, match="not a whole JPEG, PNG or WebP"):
        inspect_picture(path)
