"""The summary of a run as Prefect's UI shows it: pictures, money by model, and what to do about what is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clip_files import make_clip
from prefect_together.clips.store import LocalStore
from prefect_together.errors import FailureClass
from prefect_together.films.films import Film, FilmShot, MissingShot
from prefect_together.flows.prefect_ui import posters_of, progress_text, summary_markdown
from prefect_together.ledger.states import State, Status
from prefect_together.results.outcome import RunOutcome, advice
from prefect_together.results.outputs import NO_SUMMARY, PageSummary
from prefect_together.results.progress import Progress
from prefect_together.results.results import RowResult, TakeResult, totals


def row(number: int, status: Status = "downloaded", **fields: object) -> RowResult:
    is_there = status == "downloaded"
    values: dict[str, object] = {
        "row_id": f"film-{number}",
        "status": status,
        "model": "model/one",
        "parameters": {},
        "file": f"videos/film-{number}.mp4" if is_there else None,
        "cost_usd": 0.30 if is_there else None,
        "estimate_usd": 0.25,
    }
    take = TakeResult(**(values | fields))  # pyright: ignore[reportArgumentType]
    return RowResult(number=number, cells={}, takes=(take,))


def outcome(*rows: RowResult, place: str = "/films") -> RunOutcome:
    return RunOutcome(rows, totals(rows), place, f"{place}/index.html")


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("failed", "moderation", "Change the prompt"),
        ("failed", "bad_parameter", "the model's limits"),
        ("failed", "upstream", "`retry_failed`"),
        ("failed", "cancelled", "`retry_failed`"),
        ("failed", "not_found", "right key"),
        ("failed", "download", "Nothing is paid for again"),
        ("failed", None, "`retry_failed`"),
        ("in_doubt", None, "`resubmit_in_doubt`"),
        ("in_doubt", "upstream", "`resubmit_in_doubt`"),
        ("refused", "budget", "Raise `budget_usd`"),
        ("refused", "price_unknown", "`price_usd`"),
        ("refused", "canary", "without `canary`"),
        ("refused", "stuck", "Later, run again"),
        ("refused", "account", "the credits on together.ai"),
        ("refused", None, "See the error"),
        ("submitted", None, "nothing is paid for again"),
        ("submitted", "timed_out", "nothing is paid for again"),
        ("submitted", "account", "the credits on together.ai"),
        ("planned", None, "To continue"),
        ("planned", "upstream", "To continue"),
        ("planned", "unreachable", "Check the network"),
        ("planned", "wrong_address", "the base URL"),
        ("planned", "rate_limited", "Later, run again"),
        ("planned", "unforeseen", "reported"),
    ],
)
def test_each_reason_has_what_to_do_whatever_the_error_says(status: Status, reason: str | None, said: str) -> None:
    failure_class = None if reason is None else FailureClass(reason)

    (found,) = advice([row(2), row(3, status, failure_class=failure_class, error="budget account canary")])

    assert said in found.to_do
    assert [one.number for one in found.rows] == [3]
    assert found.estimate_usd == 0.25


@pytest.mark.parametrize("reason", list(FailureClass))
def test_every_reason_explains_some_status(reason: FailureClass) -> None:
    statuses: list[Status] = ["failed", "refused", "planned", "submitted"]

    found = [advice([row(2, status, failure_class=reason)])[0].kind for status in statuses]

    assert reason in found


def test_nothing_is_advised_when_all_is_there() -> None:
    assert advice([row(2), row(3)]) == []


def test_the_summary_has_charges_against_estimates_and_the_cap() -> None:
    text = summary_markdown(outcome(row(2), row(3)), PageSummary(budget_usd=5.0, run_seconds=75.0), {})

    assert "**$0.60** charged in 1 min 15 s; estimated $0.50 for all 2 videos, cap $5.00" in text
    assert "| model/one | 2 of 2 | 0 | $0.30 |  | $0.60 | $0.50 | +20% |" in text
    assert "What to do" not in text


def test_models_are_compared_by_downloads_failures_dollars_a_clip_and_usual_time() -> None:
    rows = [
        row(2, generation_seconds=60.0),
        row(3, "failed", error="moderated"),
        row(4, model="model/two", cost_usd=0.5, generation_seconds=90.0),
        row(5, model="model/two", cost_usd=0.7, generation_seconds=100.0),
    ]

    text = summary_markdown(outcome(*rows), NO_SUMMARY, {})

    assert "| model/one | 1 of 2 | 1 | $0.30 | 1 min 00 s | $0.30 | $0.25 | +20% |" in text
    assert "| model/two | 2 of 2 | 0 | $0.60 | 1 min 35 s | $1.20 | $0.50 | +140% |" in text


def test_the_prompt_is_under_its_still_cut_short_and_as_text() -> None:
    prompts = ("a | <b>fox</b>\nruns", "x" * 1000)
    rows = [row(number, prompt=prompt) for number, prompt in enumerate(prompts, start=2)]

    text = summary_markdown(outcome(*rows), NO_SUMMARY, {f"videos/film-{number}.mp4": b"jpeg" for number in (2, 3)})

    assert f"| a \\| &lt;b&gt;fox&lt;/b&gt; runs | {'x' * 159}… |" in text


def test_what_holds_a_part_of_the_cap_is_said_beside_it() -> None:
    progress = Progress(started_at=0.0, states={"a": State.FAILED}, reserved_failed_usd=3.2)
    lost = row(2, "failed", failure_class=FailureClass.UPSTREAM, job_id="j", attempts=1, failed_usd=3.2)

    text = summary_markdown(outcome(lost), PageSummary(budget_usd=5.0), {})

    assert "cap $5.00 over all runs into this ledger, $3.20 held for failed jobs" in text
    assert "cap $5.00 ($3.20 held for failed jobs" in progress_text(progress, None, budget_usd=5.0)
    assert "held" not in progress_text(progress, None)


def test_the_rows_of_a_failure_are_named_with_their_errors_as_text() -> None:
    rows = [
        row(number, "failed", failure_class=FailureClass.UPSTREAM, error="a | <b>bad</b> end")
        for number in range(2, 32)
    ]

    text = summary_markdown(outcome(*rows), NO_SUMMARY, {})

    assert "### 30 rows, $7.50: the provider failed" in text
    assert "- row 2, **film-2**: a \\| &lt;b&gt;bad&lt;/b&gt; end" in text
    assert "- 10 more, in results.csv" in text


def test_a_clip_has_its_picture_and_a_path_is_no_link_while_a_url_is() -> None:
    here = summary_markdown(outcome(row(2)), NO_SUMMARY, {"videos/film-2.mp4": b"jpeg"})
    there = summary_markdown(
        outcome(row(2, file_url="https://films.example/film-2.mp4"), place="https://films.example"),
        NO_SUMMARY,
        {"videos/film-2.mp4": b"jpeg"},
    )

    picture = "![film-2](data:image/jpeg;base64,anBlZw==)"
    assert f"| {picture} |\n| film-2, $0.30 |" in here
    assert "`/films/index.html`" in here
    assert f"[{picture}](https://films.example/film-2.mp4)" in there
    assert "[https://films.example/index.html](https://films.example/index.html)" in there


async def test_posters_are_of_the_first_clips_small_and_none_of_a_clip_that_is_broken_or_gone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(2, 20):
        (tmp_path / "videos" / f"film-{number}.mp4").write_bytes(make_clip())
    (tmp_path / "videos" / "film-3.mp4").write_bytes(b"not a clip")
    (tmp_path / "videos" / "film-4.mp4").unlink()

    found = await posters_of([row(number) for number in range(2, 20)], LocalStore(tmp_path))

    assert list(found) == [f"videos/film-{number}.mp4" for number in (2, *range(5, 14))]
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in found.values())
    assert sum(map(len, found.values())) < 150_000


def test_the_films_are_in_a_table_linked_where_a_browser_can_follow() -> None:
    shots = (FilmShot("k1", "dawn", 0.0, 5.0), FilmShot("k2", "boats", 5.0, 4.9))
    films = (
        Film("Har|bour", "films/Har bour.mp4", 9.9, shots),
        Film("Night", None, None, (), (MissingShot(4, "night", 1, "failed"),)),
    )
    ended = replace(outcome(row(2)), films=films)

    local = summary_markdown(ended, NO_SUMMARY, {})
    served = summary_markdown(replace(ended, output_dir="https://films.example/out"), NO_SUMMARY, {})

    assert "| Har\\|bour | 10 s, 2 shots |  |" in local
    assert "| Night |  | waits for row 4 (night): failed |" in local
    assert "| [Har\\|bour](https://films.example/out/films/Har%20bour.mp4) | 10 s, 2 shots |  |" in served
