"""What a plan says of shots that continue each other: which are made again, and how long a chain takes."""

from __future__ import annotations

from prefect_together.execution.settings import RunSettings
from prefect_together.ledger.states import State
from prefect_together.results.plan_report import Known, PlanReport, plan_report
from prefect_together.table.plan import Plan, make_plan
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
    assert report.made_again == "b, c are made again, as what they continue has changed: $0.28 to $0.29"


def test_one_shot_is_spoken_of_as_one() -> None:
    report = report_after(plan_of(CHAIN), CHAIN.replace("goes on", "goes elsewhere"))

    assert report.made_again == "c is made again, as what it continues has changed: $0.14"


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
    assert report.high_usd == plan.high_usd / 4
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
