"""What a plan says of shots that continue each other: which are made again, and how long a chain takes."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_together.execution.settings import RunSettings
from prefect_together.ledger.records import Known
from prefect_together.ledger.states import State
from prefect_together.results.plan_report import PlanReport, plan_report
from prefect_together.table.plan import Plan, make_plan, price_sum
from prefect_together.table.prompt_table import read_table

CHAIN = "id,prompt,continues\na,begins,\nb,goes on,a\nc,ends,b\nd,apart,\n"
ALL = [("a", 1), ("b", 1), ("c", 1), ("d", 1)]


def plan_of(text: str) -> Plan:
    return make_plan(read_table(text, defaults={"model": "ByteDance/Seedance-1.0-lite"}))


def report_after(earlier: Plan, text: str) -> PlanReport:
    known = {key: Known(State.DOWNLOADED, "downloaded", f"videos/{key}.mp4", 0.14) for key in earlier.videos}
    return plan_report(plan_of(text), known=known, there=ALL)


def test_shots_whose_source_changed_are_named_with_their_price_and_the_changed_shot_itself_is_not() -> None:
    report = report_after(plan_of(CHAIN), CHAIN.replace("begins", "begins anew"))

    assert report.to_send == 3
    assert report.made_again == "b, c are made again, as what they begin with has changed: $0.28 to $0.29"


def test_a_second_take_is_named_as_the_table_refers_to_it() -> None:
    takes = "id,prompt,continues,count\na,begins,,1\nb,goes on,a,2\n"
    changed = plan_of(takes.replace("begins", "begins anew"))

    report = plan_report(changed, there=[("a", 1), ("b", 1), ("b", 2)])

    assert report.made_again == "b, b#2 are made again, as what they begin with has changed: $0.28 to $0.29"


def test_one_shot_is_spoken_of_as_one() -> None:
    report = report_after(plan_of(CHAIN), CHAIN.replace("goes on", "goes elsewhere"))

    assert report.made_again == "c is made again, as what it begins with has changed: $0.14"


def test_nothing_is_made_again_where_nothing_changed_or_no_shot_is_there_yet() -> None:
    plan = plan_of(CHAIN)

    assert report_after(plan, CHAIN).made_again is None
    assert report_after(plan, CHAIN.replace("apart", "far apart")).made_again is None
    assert plan_report(plan).made_again is None


def test_shots_behind_one_that_failed_are_counted_as_waiting_and_not_as_new() -> None:
    plan = plan_of(CHAIN)
    begins = next(iter(plan.videos))
    known = {begins: Known(State.FAILED, "failed", "videos/a.mp4", 0.14)}

    report = plan_report(plan, known=known)
    retried = plan_report(plan, known=known, sends=RunSettings(retry_failed=True).sends)

    assert report.to_send == 1
    assert report.high_usd == price_sum([plan.videos[begins]])[1]
    assert report.waiting == "2 videos are not sent, as what they continue does not come in this run: a (failed)"
    assert report.high_seconds == plan_report(plan_of("id,prompt\na,begins\n")).high_seconds
    assert (retried.to_send, retried.waiting) == (4, None)


def test_shots_behind_one_that_is_still_generating_are_new_in_this_run() -> None:
    plan = plan_of(CHAIN)
    report = plan_report(plan, known={next(iter(plan.videos)): Known(State.SUBMITTED, "submitted", "videos/a.mp4")})

    assert (report.to_send, report.waiting) == (3, None)


def test_the_shots_of_a_chain_take_as_long_as_one_after_the_other() -> None:
    alone = plan_report(plan_of("id,prompt\na,begins\n"))
    apart = plan_report(plan_of("id,prompt\na,begins\nb,goes on\nc,ends\n"))
    chain = plan_report(plan_of("id,prompt,continues\nc,ends,b\nb,goes on,a\na,begins,\n"))

    assert apart.high_seconds == alone.high_seconds
    assert abs(chain.high_seconds - 3 * alone.high_seconds) < 1


FILMS = """\
id,film,prompt,continues,price_usd
a,harbour,begins,,1
x,,apart,,1
b,harbour,goes on,a,1
c,harbour,goes elsewhere,a,1
d,lantern,begins too,,1
e,lantern,goes on too,d,1
"""


def test_each_chain_has_its_videos_its_new_dollars_and_the_time_of_its_longest_way() -> None:
    plan = plan_of(FILMS)
    known = {next(iter(plan.videos)): Known(State.DOWNLOADED, "downloaded", "videos/a.mp4", 1.0)}
    alone = plan_report(plan_of("id,prompt\na,begins\n")).high_seconds

    harbour, lantern = plan_report(plan).chains
    begun = plan_report(plan, known=known).chains[0]

    assert [(one.name, one.videos, one.to_send, one.high_usd) for one in (harbour, lantern)] == [
        ("harbour", 3, 3, 3.0),
        ("lantern", 2, 2, 2.0),
    ]
    assert harbour.high_seconds == lantern.high_seconds == pytest.approx(2 * alone, abs=0.2)
    assert (begun.to_send, begun.high_usd, begun.high_seconds) == (2, 2.0, alone)


def test_chains_that_do_not_fit_the_budget_as_a_whole_are_named() -> None:
    plan = plan_of(FILMS)

    def unfit(budget_usd: float, **given: Any) -> list[str]:
        return [one.name for one in plan_report(plan, budget_usd=budget_usd, **given).chains if not one.fits]

    assert unfit(6.0) == []
    assert unfit(6.0, committed_usd=0.5) == ["lantern"]
    assert unfit(3.0) == ["lantern"]  # harbour first, and nothing remains
    assert unfit(2.5) == ["harbour", "lantern"]  # x between them has its dollar
    assert plan_report(plan, budget_usd=3.0).notes == (
        "1 of 2 chains does not fit the budget of $3.00: lantern ($2.00); with whole_chains (--whole-chains) such a"
        " chain is not begun",
    )


def test_a_chain_that_was_begun_has_its_part_of_the_budget_first() -> None:
    plan = plan_of(FILMS)
    lamp = next(key for key, video in plan.videos.items() if video.row_id == "d")
    known = {lamp: Known(State.DOWNLOADED, "downloaded", "videos/d.mp4", 1.0)}

    report = plan_report(plan, known=known, budget_usd=4.0, committed_usd=1.0)

    assert [(one.name, one.fits) for one in report.chains] == [("harbour", False), ("lantern", True)]


def test_a_budget_counts_what_the_ledger_has_paid_already() -> None:
    plan = plan_of(FILMS)

    assert not plan_report(plan, budget_usd=6.0).budget_may_end
    assert plan_report(plan, budget_usd=6.0, committed_usd=1.0).budget_may_end


def test_many_chains_are_one_line() -> None:
    rows = "".join(f"a{n},begins {n},,1\nb{n},goes on {n},a{n},1\n" for n in range(30))

    report = plan_report(plan_of(f"id,prompt,continues,price_usd\n{rows}"))

    assert report.chains_in_short.startswith("30 chains of 2 videos, $2.00 each, about ")


def test_takes_of_one_still_are_no_chain_to_read_of() -> None:
    assert plan_report(plan_of("id,prompt,still_prompt,count\na,moves,a boat,3\n")).chains == ()
