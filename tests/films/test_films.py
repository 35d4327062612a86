"""films/films.py: which films a plan has, what they are made of, and when they are made anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from clip_files import make_clip
from film_clips import greys, shot
from prefect_together.clips.inspection import inspect_clip
from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import LocalStore, OutputStore
from prefect_together.films.films import Film, make_films, planned_films
from prefect_together.ledger.plans import from_text, to_text
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.table.plan import Plan, PlannedVideo, make_plan
from prefect_together.table.prompt_table import read_table

MODEL = "minimax/video-01-director"


def plan_of(*lines: str) -> Plan:
    return make_plan(read_table("\n".join(["id,prompt,model,film,count", *lines])))


def simple_plan(*ids: str, film: str = "Trailer") -> Plan:
    return plan_of(*(f"{one},a picture of {one},{MODEL},{film}," for one in ids))


def continuing(plan: Plan) -> Plan:
    """The plan with each video made from the one before it."""
    videos: dict[str, PlannedVideo] = {}
    for key, video in plan.videos.items():
        videos[key] = replace(video, sources=tuple(videos)[-1:])
    return replace(plan, videos=videos)


async def downloaded(
    store: OutputStore, plan: Plan, clips: Mapping[str, bytes | None], *, media: Mapping[str, object] | None = None
) -> dict[str, VideoRecord]:
    """Records of a plan's videos by row id, with their clips in the output; None: its job has failed."""
    records: dict[str, VideoRecord] = {}
    for key, video in plan.videos.items():
        clip = clips[video.row_id if video.take == 1 else f"{video.row_id}#{video.take}"]
        file, facts = f"videos/{video.file_stems[0]}.mp4", None
        if clip is not None:
            await store.write_bytes(file, clip)
            (store.local_dir / "inspected.mp4").write_bytes(clip)
            facts = json.dumps(inspect_clip(store.local_dir / "inspected.mp4").as_dict())
        records[key] = VideoRecord(
            video_key=key, kind="video", row_id=video.row_id, take=video.take, fingerprint=video.fingerprint,
            model=MODEL, prompt=video.request.prompt, parameters=json.dumps({"media": media} if media else {}),
            output_dir=".", file=file, state=State.DOWNLOADED if clip else State.FAILED, attempts=1, jobs=1,
            estimate_micro_usd=1, cost_micro_usd=1, job_id="job", video_url=None, failure_class=None, error=None,
            planned_at=0.0, submitted_at=1.0, completed_at=2.0, downloaded_at=3.0, generation_seconds=1.0, polls=1,
            size_bytes=len(clip or b""), sha256=str(hash(clip)), clip=facts, owner=None,
        )  # fmt: skip
    return records


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    opened = LocalStore(tmp_path / "out")
    await opened.prepare()
    return opened


def film_path(store: OutputStore, film: Film) -> Path:
    assert film.file is not None
    return store.local_dir / film.file


async def test_the_clips_of_a_film_are_joined_in_the_order_of_the_table(store: LocalStore) -> None:
    plan = simple_plan("c", "a", "b")
    records = await downloaded(store, plan, {"c": shot([50] * 12), "a": shot([90] * 24), "b": shot([130] * 12)})

    (film,) = await make_films(plan, records, store)

    assert (film.name, film.file, film.is_new, film.missing) == ("Trailer", "films/Trailer.mp4", True, ())
    assert greys(film_path(store, film)) == pytest.approx([50] * 12 + [90] * 24 + [130] * 12, abs=4)
    assert [one.row_id for one in film.shots] == ["c", "a", "b"]
    assert [one.start_seconds for one in film.shots] == pytest.approx([0.0, 1.0, 3.0])
    assert [one.seconds for one in film.shots] == pytest.approx([1.0, 2.0, 1.0])
    assert film.seconds == pytest.approx(4.0, abs=0.01)


async def test_a_film_is_made_anew_only_when_a_clip_or_the_order_changes(store: LocalStore) -> None:
    plan = simple_plan("a", "b")
    records = await downloaded(store, plan, {"a": shot([50] * 12), "b": shot([90] * 12)})
    (first,) = await make_films(plan, records, store)
    written_at = film_path(store, first).stat().st_mtime_ns

    (again,) = await make_films(plan, records, store)

    assert not again.is_new
    assert replace(first, is_new=False) == again
    assert film_path(store, again).stat().st_mtime_ns == written_at

    changed = await downloaded(store, plan, {"a": shot([200] * 12), "b": shot([90] * 12)})
    (anew,) = await make_films(plan, changed, store)
    assert anew.is_new
    assert greys(film_path(store, anew)) == pytest.approx([200] * 12 + [90] * 12, abs=4)

    (turned,) = await make_films(simple_plan("b", "a"), changed, store)
    assert turned.is_new
    assert greys(film_path(store, turned)) == pytest.approx([90] * 12 + [200] * 12, abs=4)

    film_path(store, turned).unlink()
    (remade,) = await make_films(simple_plan("b", "a"), changed, store)
    assert remade.is_new


async def test_a_missing_clip_is_named_and_the_old_film_stays(store: LocalStore) -> None:
    plan = simple_plan("a", "b")
    clips = {"a": shot([50] * 12), "b": shot([90] * 12)}
    (first,) = await make_films(plan, await downloaded(store, plan, clips), store)
    content = film_path(store, first).read_bytes()

    (film,) = await make_films(plan, await downloaded(store, plan, {**clips, "b": None}), store)

    assert (film.is_new, film.file, film.shots) == (False, first.file, first.shots)
    assert film.why_old == "waits for row 3 (b): failed"
    assert film_path(store, film).read_bytes() == content

    records = await downloaded(store, plan, clips)
    (store.local_dir / "videos/a.mp4").unlink()
    (film,) = await make_films(plan, records, store)
    assert film.why_old is None  # it is the film of these clips anyway

    film_path(store, film).unlink()
    (film,) = await make_films(plan, records, store)
    assert film.why_old == "waits for row 2 (a): gone"


async def test_a_film_that_was_never_made_has_no_file(store: LocalStore) -> None:
    plan = simple_plan("a", "b")

    (film,) = await make_films(plan, {}, store)

    assert (film.file, film.seconds) == (None, None)
    assert film.why_old == "waits for row 2 (a): planned, row 3 (b): planned"
    assert not (store.local_dir / "films").exists()


async def test_a_clip_that_cannot_be_joined_is_a_problem_of_its_film_alone(store: LocalStore) -> None:
    plan = plan_of(f"a,a picture x,{MODEL},One,", f"b,a picture y,{MODEL},Two,")
    records = await downloaded(store, plan, {"a": shot([50] * 12), "b": shot([90] * 12)})
    (store.local_dir / "videos/a.mp4").write_bytes(b"<html>gone</html>")

    one, two = await make_films(plan, records, store)

    assert one.why_old == 'could not be joined: a.mp4: the clip is text, not a video: "<html>gone</html>"'
    assert (two.is_new, two.why_old) == (True, None)


async def test_the_repeated_first_frame_of_a_continued_shot_is_dropped(store: LocalStore) -> None:
    plan = continuing(simple_plan("a", "b", "c"))
    clips = {"a": shot([50] * 11 + [90]), "b": shot([90] + [130] * 11), "c": shot([200] * 12)}
    records = await downloaded(store, plan, clips)

    (film,) = await make_films(plan, records, store)

    assert greys(film_path(store, film)) == pytest.approx([50] * 11 + [90] + [130] * 11 + [200] * 12, abs=4)


async def test_a_shot_that_begins_with_its_whole_source_is_shown_from_where_that_ends(store: LocalStore) -> None:
    plan = continuing(simple_plan("a", "b"))
    clips = {"a": shot([50] * 12 + [90] * 12), "b": shot([50] * 12 + [90] * 12 + [130] * 12)}
    records = await downloaded(store, plan, clips, media={"frame_videos": [{"video": "@a"}]})

    (film,) = await make_films(plan, records, store)

    assert greys(film_path(store, film)) == pytest.approx([50] * 12 + [90] * 12 + [130] * 12, abs=4)
    assert [one.seconds for one in film.shots] == pytest.approx([2.0, 1.0])


async def test_clips_that_do_not_continue_each_other_keep_all_their_frames(store: LocalStore) -> None:
    plan = simple_plan("a", "b")
    records = await downloaded(store, plan, {"a": shot([50] * 12), "b": shot([50] * 12)})

    (film,) = await make_films(plan, records, store)

    assert len(greys(film_path(store, film))) == 24


def test_rows_with_takes_and_variants_have_a_film_for_each() -> None:
    plan = plan_of(
        f"intro,a picture x,{MODEL},Cut,",
        f"main,a picture y,{MODEL},Cut,2",
        f"duel,a picture z,{MODEL}|vidu/vidu-q1,Duel,",
        f"end,a picture w,{MODEL},Duel,",
    )

    films = {film.file: [f"{one.row_id}#{one.take}" for _, one in film.shots] for film in planned_films(plan)}

    assert films == {
        "films/Cut.mp4": ["intro#1", "main#1"],
        "films/Cut-take2.mp4": ["intro#1", "main#2"],
        "films/Duel--video-01-director.mp4": ["duel--video-01-director#1", "end#1"],
        "films/Duel--vidu-q1.mp4": ["duel--vidu-q1#1", "end#1"],
    }


def test_names_that_a_file_system_takes_for_one_are_kept_apart() -> None:
    plan = plan_of(
        *(f"{at},a picture,{MODEL},{name}," for at, name in enumerate(["Trailer", "trailer", "../up", "CON", ""]))
    )

    files = [film.file for film in planned_films(plan)]

    assert files[0] == "films/Trailer.mp4"
    assert len({file.casefold() for file in files}) == len(files) == 4
    assert all(file.count("/") == 1 and not file.startswith(("films/.", "films/CON.")) for file in files)


def test_the_ledger_keeps_films_and_sources_of_a_plan() -> None:
    plan = continuing(simple_plan("a", "b"))
    records = {key: _record(video) for key, video in plan.videos.items()}

    again = from_text(to_text(plan), records)

    assert [row.film for row in again.rows] == ["Trailer", "Trailer"]
    assert {key: video.sources for key, video in again.videos.items()} == {
        key: video.sources for key, video in plan.videos.items()
    }


def _record(video: PlannedVideo) -> VideoRecord:
    values = dict.fromkeys(VideoRecord.__slots__)
    known = {
        "video_key": video.key,
        "kind": video.kind,
        "row_id": video.row_id,
        "take": 1,
        "fingerprint": video.fingerprint,
    }
    return VideoRecord(**{**values, **known, "parameters": "{}", "model": MODEL, "prompt": "x"})  # type: ignore[arg-type]


async def test_a_film_of_a_remote_output_lies_there_and_replaces_the_old_one(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}", local_root=tmp_path)
    await store.prepare()
    plan = simple_plan("a", "b")
    clips = {"a": shot([50] * 12), "b": shot([90] * 12)}
    await make_films(plan, await downloaded(store, plan, clips), store)
    first = await store.read_bytes("films/Trailer.mp4")

    (film,) = await make_films(plan, await downloaded(store, plan, {**clips, "a": make_clip(seconds=2.0)}), store)

    second = await store.read_bytes("films/Trailer.mp4")
    assert (film.file, film.is_new, film.problem) == ("films/Trailer.mp4", True, None)
    assert None not in (first, second)
    assert first != second
    assert [path.name for path in store.local_dir.rglob("*.mp4")] == ["inspected.mp4"]
    (again,) = await make_films(plan, await downloaded(store, plan, {**clips, "a": make_clip(seconds=2.0)}), store)
    assert again.problem is None
