"""films/join.py: clips become one film, copied where they agree, encoded anew where not."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any, cast

import av
import numpy as np
import pytest

from clip_files import make_clip
from film_clips import greys, shot
from prefect_together.clips.inspection import inspect_clip
from prefect_together.errors import ClipInvalid, OutputUnwritable
from prefect_together.films.join import JoinStopped, Part, join_clips


def written(directory: Path, *clips: bytes) -> list[Part]:
    paths = [directory / f"{number}.mp4" for number in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        path.write_bytes(clip)
    return [Part(path) for path in paths]


def packets(path: Path, kind: str = "video") -> list[bytes]:
    with cast(Any, av.open(str(path))) as opened:
        return [bytes(packet) for packet in opened.demux(**{kind: 0}) if packet.size]


def times(path: Path) -> list[float]:
    with cast(Any, av.open(str(path))) as opened:
        return [frame.time for frame in opened.decode(video=0)]


def loudness(path: Path) -> list[float]:
    """The root mean square of each twelfth of a second of the sound."""
    with cast(Any, av.open(str(path))) as opened:
        rate = opened.streams.audio[0].rate
        samples = np.concatenate([frame.to_ndarray()[0] for frame in opened.decode(audio=0)])
    step = rate // 12
    return [float(np.sqrt(np.mean(samples[i : i + step] ** 2))) for i in range(0, len(samples) - step // 2, step)]


def sound_seconds(path: Path) -> float:
    with cast(Any, av.open(str(path))) as opened:
        return sum(frame.samples / frame.sample_rate for frame in opened.decode(audio=0))


def test_clips_that_agree_are_copied_bit_by_bit(tmp_path: Path) -> None:
    parts = written(tmp_path, shot([50] * 24), shot([90] * 12), shot([130] * 30))

    joined = join_clips(parts, tmp_path / "film.mp4")

    assert joined.is_copied
    assert packets(tmp_path / "film.mp4") == [packet for part in parts for packet in packets(part.path)]
    assert joined.starts_seconds == pytest.approx([0.0, 2.0, 3.0])
    assert joined.parts_seconds == pytest.approx([2.0, 1.0, 2.5])
    assert joined.seconds == pytest.approx(5.5, abs=0.01)
    assert times(tmp_path / "film.mp4") == pytest.approx([number / 12 for number in range(66)], abs=0.001)


def test_sound_is_copied_with_its_pictures_and_stays_in_step(tmp_path: Path) -> None:
    parts = written(tmp_path, shot([50] * 24, tone=0.5), shot([90] * 24, tone=0.05), shot([130] * 24, tone=0.5))

    joined = join_clips(parts, tmp_path / "film.mp4")

    levels = loudness(tmp_path / "film.mp4")
    start, end = joined.starts_seconds[1:]
    assert joined.is_copied
    assert set(packets(tmp_path / "film.mp4", "audio")) <= {
        packet for part in parts for packet in packets(part.path, "audio")
    }
    assert min(levels[2 : int(start * 12) - 1]) > 0.2 > max(levels[int(start * 12) + 3 : int(end * 12) - 2])
    assert joined.starts_seconds == pytest.approx([0.0, 2.05, 4.1], abs=0.05)


def test_clips_of_different_sizes_and_rates_get_those_of_the_first(tmp_path: Path) -> None:
    parts = written(tmp_path, shot([50] * 24), shot([120] * 48, fps=24, size=(192, 128)), shot([200] * 30, fps=30))

    joined = join_clips(parts, tmp_path / "film.mp4")

    facts = inspect_clip(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.fps, facts.has_audio) == (96, 64, 12, False)
    assert not joined.is_copied
    assert joined.starts_seconds == pytest.approx([0.0, 2.0, 4.0])
    assert greys(tmp_path / "film.mp4") == pytest.approx([50] * 24 + [120] * 24 + [200] * 12, abs=4)


def test_a_clip_of_another_aspect_is_letterboxed(tmp_path: Path) -> None:
    parts = written(tmp_path, shot([200] * 6), shot([200] * 6, size=(64, 64)))

    join_clips(parts, tmp_path / "film.mp4")

    with cast(Any, av.open(str(tmp_path / "film.mp4"))) as opened:
        last = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)][-1]
    assert last.shape == (64, 96)
    assert last[:, :12].max() < 30 < 180 < last[:, 20:76].min()


def test_a_repeated_first_frame_is_dropped_with_its_sound(tmp_path: Path) -> None:
    first, later = written(tmp_path, shot([50] * 24, tone=0.01), shot([50] + [150] * 23, tone=0.5))

    joined = join_clips([first, Part(later.path, drop_first_frame=True)], tmp_path / "film.mp4")

    assert greys(tmp_path / "film.mp4") == pytest.approx([50] * 24 + [150] * 23, abs=4)
    assert joined.starts_seconds == pytest.approx([0.0, 2.0])
    assert joined.seconds == pytest.approx(47 / 12, abs=0.01)
    assert sound_seconds(tmp_path / "film.mp4") == pytest.approx(47 / 12, abs=0.07)
    levels = loudness(tmp_path / "film.mp4")
    assert max(levels[1:22]) < 0.1 < 0.25 < min(levels[25:45])


def test_seconds_that_repeat_a_whole_clip_are_dropped(tmp_path: Path) -> None:
    first, later = written(tmp_path, shot([50] * 24), shot([50] * 24 + [150] * 12))

    joined = join_clips([first, Part(later.path, drop_seconds=2.0)], tmp_path / "film.mp4")

    assert greys(tmp_path / "film.mp4") == pytest.approx([50] * 24 + [150] * 12, abs=4)
    assert joined.parts_seconds == pytest.approx([2.0, 1.0])


def test_a_clip_without_sound_is_silent_where_another_has_sound(tmp_path: Path) -> None:
    parts = written(tmp_path, shot([50] * 12), shot([90] * 12, tone=0.5), shot([130] * 12))

    join_clips(parts, tmp_path / "film.mp4")

    levels = loudness(tmp_path / "film.mp4")
    assert max(levels[:11]) < 0.02 < 0.25 < min(levels[13:23])
    assert max(levels[26:36]) < 0.02
    assert sound_seconds(tmp_path / "film.mp4") == pytest.approx(3.0, abs=0.07)


def test_webm_clips_become_an_mp4(tmp_path: Path) -> None:
    parts = written(tmp_path, *[make_clip(container="webm", codec="libvpx-vp9") for _ in range(2)])

    joined = join_clips(parts, tmp_path / "film.mp4")

    assert inspect_clip(tmp_path / "film.mp4").container == "mp4"
    assert joined.seconds == pytest.approx(2.0, abs=0.1)


def test_a_bad_clip_is_named_and_the_old_film_stays(tmp_path: Path) -> None:
    good, bad = written(tmp_path, shot([50] * 12), b"<html>not found</html>")
    (tmp_path / "film.mp4").write_bytes(b"the old film")

    with pytest.raises(ClipInvalid, match=r"1\.mp4: the clip is text"):
        join_clips([good, bad], tmp_path / "film.mp4")

    cut = Part(tmp_path / "cut.mp4", drop_first_frame=True)
    cut.path.write_bytes(shot([50]))
    with pytest.raises(ClipInvalid, match=r"cut\.mp4: nothing remains"):
        join_clips([good, cut], tmp_path / "film.mp4")
    with pytest.raises(FileNotFoundError):
        join_clips([Part(tmp_path / "gone.mp4")], tmp_path / "film.mp4")
    with pytest.raises(OutputUnwritable, match="has this name"):
        join_clips([good], good.path / "film.mp4")

    assert (tmp_path / "film.mp4").read_bytes() == b"the old film"
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_join_that_is_stopped_leaves_the_old_film_and_nothing_else(tmp_path: Path, is_whole: bool) -> None:
    one, two = written(tmp_path, shot([50] * 12), shot([90] * 12))
    (tmp_path / "film.mp4").write_bytes(b"the old film")
    stopped = Event()
    stopped.set()

    with pytest.raises(JoinStopped):
        join_clips([one, Part(two.path, drop_first_frame=not is_whole)], tmp_path / "film.mp4", stopped)

    assert (tmp_path / "film.mp4").read_bytes() == b"the old film"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4", "film.mp4"]


@pytest.mark.parametrize("layouts", [("stereo", "mono"), ("mono", "stereo")])
def test_sound_of_another_layout_gets_that_of_the_first(tmp_path: Path, layouts: tuple[str, str]) -> None:
    clips = [shot([50] * 12, tone=0.5, layout=layout) for layout in layouts]
    one, two = written(tmp_path, *clips)

    join_clips([one, two], tmp_path / "film.mp4")

    with cast(Any, av.open(str(tmp_path / "film.mp4"))) as opened:
        assert opened.streams.audio[0].layout.name == layouts[0]
    levels = loudness(tmp_path / "film.mp4")
    assert sound_seconds(tmp_path / "film.mp4") == pytest.approx(2.0, abs=0.07)
    assert min(levels[1:11] + levels[13:23]) > 0.2
