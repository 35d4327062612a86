"""The ledger as a state machine: any order of runs, intents, answers that come late or never, ends and files."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prefect_together.api.jobs import VideoJob
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import BudgetReached, FailureClass, JobFailed, RateLimited, SourceMissing
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger.engine import open_engine
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.plans import from_text, to_text
from prefect_together.ledger.states import STATES, State
from prefect_together.ledger.transitions import ClaimLost
from prefect_together.table.plan import make_plan
from tables import read

T = TypeVar("T")

PLAN = make_plan(
    read("id,prompt,continues,still_prompt\na,It sails,,A boat\nb,It sinks,a,\n", model="minimax/video-01-director")
)
"""A still, the shot that begins with it, and the one that continues that."""
VIDEOS = list(PLAN.videos.values())
KEYS = list(PLAN.videos)
SOURCES = {key: video.sources for key, video in PLAN.videos.items()}
CENTS = st.integers(0, 60).map(lambda cents: cents / 100)


@dataclass
class Opening:
    """One run of the ledger: ends as it should, or breaks off without a word."""

    ledger: Ledger
    stack: AsyncExitStack


@dataclass(frozen=True)
class Sent:
    """A create call whose answer may come now, later, or never; `by` is the run that sent it."""

    key: str
    attempt: int
    by: Opening


class LedgerMachine(RuleBasedStateMachine):
    """Up to three runs over a still and two shots in a chain. The database is read from outside after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = str(Path(self.directory.name) / "ledger.db")
        self.loop = asyncio.new_event_loop()
        self.runs: list[Opening] = []
        self.unanswered: list[Sent] = []
        self.jobs: list[tuple[str, str]] = []  # key, id: all that were ever accepted
        self.number = 0
        self.inputs: dict[tuple[str, int], str | None] = {}  # of every intent that was ever written
        self.waits: set[str] = set()  # planned, with the reason that a source is not there
        self.may_leave_downloaded = False
        self.before = dict.fromkeys(KEYS, State.PLANNED)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def look(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(statement).fetchall()

    def video(self, key: str) -> tuple[str, str | None]:
        """Its state and its owner."""
        return self.look(f"SELECT state, owner FROM videos WHERE video_key = '{key}'")[0]  # noqa: S608

    @initialize()
    def begin(self) -> None:
        self.open_run()
        self.do(self.runs[0].ledger.plan(VIDEOS))
        self.do(self.runs[0].ledger.save_table(".", to_text(PLAN), is_sandbox=False))

    @precondition(lambda self: len(self.runs) < 3)
    @rule()
    def open_run(self) -> None:
        stack = AsyncExitStack()
        self.runs.append(Opening(self.do(stack.enter_async_context(open_ledger(self.path))), stack))

    @precondition(lambda self: 0 < len(self.runs) < 3)
    @rule()
    def open_run_that_will_break_off(self) -> None:
        """It is not closed by `open_ledger`, which would give its claims back."""
        stack = AsyncExitStack()
        run = ledger_runs.this_process(str(uuid.uuid4()))
        engine = self.do(stack.enter_async_context(open_engine(self.path)))
        ledger_runs.OWN_RUNS.add(run.run_id)
        stack.callback(ledger_runs.OWN_RUNS.discard, run.run_id)
        self.runs.append(Opening(Ledger(engine, run, SYSTEM_CLOCK), stack))

    @precondition(lambda self: len(self.runs) > 1)
    @rule(data=st.data())
    def end_run(self, data: st.DataObject) -> None:
        opening = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        self.do(opening.stack.aclose())

    @rule(data=st.data())
    def plan_again(self, data: st.DataObject) -> None:
        before = self.look("SELECT * FROM videos ORDER BY video_key")

        self.do(self.any_run(data).ledger.plan(VIDEOS))

        assert self.look("SELECT * FROM videos ORDER BY video_key") == before

    @rule(data=st.data(), key=st.sampled_from(KEYS), resend=st.booleans(), is_stale=st.booleans())
    def claim(self, data: st.DataObject, key: str, resend: bool, is_stale: bool) -> None:
        opening = self.any_run(data)
        state, owner = self.video(key)
        attempts = self.look(f"SELECT attempts FROM videos WHERE video_key = '{key}'")[0][0]  # noqa: S608
        seen = attempts - 1 if is_stale else attempts
        states = [State.IN_DOUBT, State.FAILED] if resend else []

        claim = self.do(opening.ledger.claim(key, resend_attempt=seen, states=states))

        mine = opening.ledger.run.run_id
        living = {other.ledger.run.run_id for other in self.runs} - {mine}
        assert claim.is_ours == (owner not in living)
        after = self.video(key)
        assert claim.record.state == after[0]
        if not claim.is_ours:
            assert after == (state, owner)
        else:
            assert after[1] == mine
        if after[0] == State.PLANNED and state != State.PLANNED:
            assert state == State.REFUSED or (resend and not is_stale)
            assert state in (State.REFUSED, State.IN_DOUBT, State.FAILED, State.SUBMITTING)

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def release(self, data: st.DataObject, key: str) -> None:
        opening = self.any_run(data)
        _, owner = self.video(key)

        self.do(opening.ledger.release(key))

        is_mine = owner == opening.ledger.run.run_id
        assert self.video(key)[1] == (None if is_mine else owner)

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def wait_for_a_source(self, data: st.DataObject, key: str) -> None:
        state = self.video(key)[0]

        self.do(self.any_run(data).ledger.set_error(key, SourceMissing("a", "failed"), state=State.PLANNED))

        if state == State.PLANNED:
            self.waits.add(key)

    @rule(
        data=st.data(),
        key=st.sampled_from(KEYS),
        estimate=st.none() | CENTS,
        budget=st.none() | CENTS,
        inputs=st.none() | st.just('{"@a:last": "0a1b"}'),
    )
    def intend(
        self, data: st.DataObject, key: str, estimate: float | None, budget: float | None, inputs: str | None
    ) -> None:
        opening = self.any_run(data)
        state, owner = self.video(key)
        may_send = state == State.PLANNED and owner == opening.ledger.run.run_id
        committed = self.committed()

        try:
            attempt = self.do(opening.ledger.intend(key, estimate_usd=estimate, budget_usd=budget, inputs=inputs))
        except ClaimLost:
            assert not may_send
        except BudgetReached:
            assert may_send
            assert budget is not None
            assert estimate is None or committed + round(estimate * 1e6) > round(budget * 1e6)
            assert self.committed() == committed
        else:
            assert may_send
            assert budget is None or self.committed() <= round(budget * 1e6)
            self.inputs[key, attempt] = inputs
            self.waits.discard(key)
            self.unanswered.append(Sent(key, attempt, opening))

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), is_late=st.booleans())
    def answer(self, data: st.DataObject, is_late: bool) -> None:
        """Accepted, refused or in doubt. What is in doubt may still be answered late, by its run or by nobody."""
        sent = data.draw(st.sampled_from(self.unanswered))
        ledger = (sent.by if sent.by in self.runs else self.any_run(data)).ledger
        word = data.draw(st.sampled_from(["accepted", "refused", "lost"]))
        if word == "lost":
            self.do(ledger.in_doubt(sent.key, sent.attempt, "no answer"))
            if is_late:
                return
        elif word == "accepted":
            self.number += 1
            job = VideoJob(f"job-{self.number}")
            self.do(ledger.accepted(sent.key, sent.attempt, job))
            self.jobs.append((sent.key, job.id))
        else:
            state = data.draw(st.sampled_from([State.PLANNED, State.REFUSED, State.FAILED]))
            self.do(ledger.not_accepted(sent.key, sent.attempt, RateLimited(429, None, "later"), state=state))
        self.unanswered.remove(sent)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), cost=st.none() | CENTS)
    def complete(self, data: st.DataObject, cost: float | None) -> None:
        key, job_id = data.draw(st.sampled_from(self.jobs))
        is_due = (State.SUBMITTED, job_id) == self.state_and_job(key)
        before = self.row(key)
        job = VideoJob(job_id, "completed", video_url="https://x/1", cost_usd=cost)

        self.do(self.any_run(data).ledger.completed(key, job, generation_seconds=1.0, polls=1))

        if is_due:
            assert self.video(key)[0] == State.COMPLETED
        else:
            assert self.row(key) == before

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), cost=st.none() | CENTS, again=st.booleans())
    def fail(self, data: st.DataObject, cost: float | None, again: bool) -> None:
        key, job_id = data.draw(st.sampled_from(self.jobs))
        is_due = (State.SUBMITTED, job_id) == self.state_and_job(key)
        self._fail(data, key, JobFailed(job_id, None, "gave up", FailureClass.UPSTREAM, cost), again, is_due=is_due)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), cost=st.none() | CENTS)
    def lose_the_only_link(self, data: st.DataObject, cost: float | None) -> None:
        key, job_id = data.draw(st.sampled_from(self.jobs))
        is_due = self.state_and_job(key) in ((State.SUBMITTED, job_id), (State.COMPLETED, job_id))
        self._fail(data, key, JobFailed(job_id, None, "gone", FailureClass.NO_LINK, cost), False, is_due=is_due)

    def _fail(self, data: st.DataObject, key: str, error: JobFailed, again: bool, *, is_due: bool) -> None:
        before = self.row(key)

        self.do(self.any_run(data).ledger.failed(key, error, again=again))

        if is_due:
            assert self.video(key)[0] == (State.PLANNED if again else State.FAILED)
        else:
            assert self.row(key) == before

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def download(self, data: st.DataObject, key: str) -> None:
        state = self.video(key)[0]

        self.do(self.any_run(data).ledger.downloaded(key, file=key, size_bytes=1, sha256="", clip={}))

        assert (self.video(key)[0] == State.DOWNLOADED) == (state in (State.COMPLETED, State.DOWNLOADED))

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def refuse(self, data: st.DataObject, key: str) -> None:
        self.waits.discard(key)
        self.do(self.any_run(data).ledger.refused(key, BudgetReached(1.0, 0.9, 0.28)))

    @rule(data=st.data(), keys=st.lists(st.sampled_from(KEYS), min_size=1))
    def lose_files(self, data: st.DataObject, keys: list[str]) -> None:
        ledger = self.any_run(data).ledger
        for key in keys:
            self.do(ledger.file_missing(key, output_dir="."))
        self.may_leave_downloaded = True

    @invariant()
    def committed_is_what_is_paid_or_reserved(self) -> None:
        if self.runs:
            of_attempts = "SELECT coalesce(sum(coalesce(cost_micro_usd, reserved_micro_usd)), 0) FROM attempts"
            assert self.look(of_attempts)[0][0] == self.committed()

    @invariant()
    def the_frames_of_every_intent_stand_beside_it_for_good(self) -> None:
        if self.runs:
            written = self.look("SELECT video_key, attempt, inputs FROM attempts")
            assert {(key, attempt): inputs for key, attempt, inputs in written} == self.inputs

    @invariant()
    def what_waits_for_a_source_is_planned_says_so_until_it_is_sent_and_has_reserved_nothing_for_it(self) -> None:
        if self.runs:
            rows = self.look("SELECT video_key, state FROM videos WHERE failure_class = 'dependency'")
            assert {key for key, _ in rows} == self.waits
            assert {state for _, state in rows} <= {State.PLANNED}

    @invariant()
    def the_kept_table_names_the_sources_of_each_video(self) -> None:
        if self.runs:
            text = self.do(self.runs[0].ledger.last_table("."))
            assert text is not None
            plan = from_text(text, self.do(self.runs[0].ledger.records()))
            assert {key: video.sources for key, video in plan.videos.items()} == SOURCES

    @invariant()
    def no_id_is_ever_lost(self) -> None:
        if self.runs:
            known = set(self.look("SELECT video_key, job_id FROM attempts WHERE job_id IS NOT NULL"))
            assert known == set(self.jobs)

    @invariant()
    def states_follow_each_other_as_in_their_table_and_only_lost_files_lead_back_from_downloaded(self) -> None:
        if self.runs:
            now = {key: State(state) for key, state in self.look("SELECT video_key, state FROM videos")}
            left = [key for key in KEYS if self.before[key] == State.DOWNLOADED != now.get(key)]
            assert not left or self.may_leave_downloaded
            changed = {(self.before[key], state) for key, state in now.items() if state != self.before[key]}
            assert all(after in STATES[before].becomes for before, after in changed)
            self.before, self.may_leave_downloaded = self.before | now, False

    @invariant()
    def every_job_that_may_exist_is_counted(self) -> None:
        if self.runs:
            possible = "SELECT count(*) FROM attempts AS a WHERE a.video_key = v.video_key AND a.job_id IS NOT NULL"
            assert not self.look(f"SELECT 1 FROM videos AS v WHERE v.jobs < ({possible}) AND v.state <> 'submitting'")  # noqa: S608

    def any_run(self, data: st.DataObject) -> Opening:
        return data.draw(st.sampled_from(self.runs))

    def committed(self) -> int:
        return self.look("SELECT committed_micro_usd FROM money")[0][0]

    def row(self, key: str) -> tuple[Any, ...]:
        return self.look(f"SELECT * FROM videos WHERE video_key = '{key}'")[0]  # noqa: S608

    def state_and_job(self, key: str) -> tuple[str, str | None]:
        return self.look(f"SELECT state, job_id FROM videos WHERE video_key = '{key}'")[0]  # noqa: S608

    def teardown(self) -> None:
        for opening in self.runs:
            self.do(opening.stack.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


class TestLedger(LedgerMachine.TestCase):
    settings = settings(UNHURRIED, max_examples=15, stateful_step_count=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestLedgerLong(LedgerMachine.TestCase):
    settings = settings(UNHURRIED, max_examples=200, stateful_step_count=50)
