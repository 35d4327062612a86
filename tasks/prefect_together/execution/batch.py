"""Runs all videos of a plan concurrently; one row's failure never affects another. One video's steps are in `video`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from prefect_together.api.session import MAX_DOWNLOADS, VideoSession
from prefect_together.clips.store import OutputStore
from prefect_together.errors import CanaryFailed, ServiceUnreachable, WrongAddress
from prefect_together.execution.admission import ChainBudget, watching_pauses
from prefect_together.execution.settings import ALONE, Partition, RunSettings
from prefect_together.execution.sources import SourceClips
from prefect_together.execution.start_order import Dependencies, StartOrder
from prefect_together.execution.video import VideoRun
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.ledger import HERE, Ledger
from prefect_together.ledger.plans import video_of
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import STATES, State
from prefect_together.prefect_internals import EventBacklog, forget_results
from prefect_together.results.already_paid import UNSAVED_FILE
from prefect_together.results.progress import Progress
from prefect_together.results.text import counted
from prefect_together.steps.global_limit import GlobalLimit, LimitUnavailable
from prefect_together.table.plan import Plan, PlannedVideo

CLAIMED_POLL_SECONDS, LONGEST_CLAIMED_POLL_SECONDS = 1.0, 15.0
"""Between polls of videos that another run has claimed."""
LONGEST_SHARED_POLL_SECONDS = 4.0
"""The same between the shards of one plan: one that has nothing left to do takes up what others have not begun."""
LEAST_CLAIMED_AHEAD = 4
"""Videos that a shard claims before they can be sent: no other shard can take those up."""
MAX_COLLECTED = 2 * MAX_DOWNLOADS
"""Videos claimed at once of which only the clip is to be downloaded: those at work, and as many that follow."""
REASON_CHARACTERS = 300
"""How much of a canary's error is repeated in the other rows of its model."""


class Batch:
    """One run over a plan. `await batch.run()`; the ledger then says how far each video came.

    `partition` says with which part of the plan it begins if other shards work on it too; it then takes up what they
    leave.
    `attempts` is how often each video had been sent when the plan was made, if that was before this run.
    `is_open` is set as soon as other shards may begin on what is `wanted`: it is in the ledger, and no canary is out.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        ledger: Ledger,
        session: VideoSession,
        store: OutputStore,
        settings: RunSettings,
        progress: Progress,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
        output_dir: str = HERE,
        partition: Partition = ALONE,
        attempts: Mapping[str, int] | None = None,
        limit: GlobalLimit | None = None,
    ) -> None:
        self._plan, self._ledger, self._store = plan, ledger, store
        self._settings, self._progress, self._logger, self._output_dir = settings, progress, logger, output_dir
        self._clock = session.clock
        self._video_run = VideoRun(
            ledger=ledger,
            session=session,
            store=store,
            settings=settings,
            progress=progress,
            sources=SourceClips(
                plan,
                ledger=ledger,
                session=session,
                store=store,
                max_inline_characters=settings.max_inline_kilobytes * 1000,
            ),
            limit=limit,
        )
        self._dependencies = Dependencies(plan, settings, progress)
        self._records: dict[str, VideoRecord] = {}
        self._claimed_elsewhere: list[PlannedVideo] = []
        self._given_up: list[tuple[PlannedVideo, str]] = []
        self._tried_models: set[str] = set()
        self._unexpected: list[BaseException] = []
        self._partition, self._attempts = partition, attempts or {}
        self._claim_slots = asyncio.Semaphore(settings.max_in_flight + self._ahead)
        self._download_slots, self._backlog = asyncio.Semaphore(MAX_COLLECTED), EventBacklog()
        self.is_open = asyncio.Event()
        self.wanted: list[PlannedVideo] = []

    @property
    def attempts(self) -> Mapping[str, int]:
        """How often each video of the plan had been sent when this run began."""
        return {key: self._records[key].attempts for key in self._plan.videos}

    @property
    def stopped_models(self) -> Collection[str]:
        """Models whose canary was not downloaded."""
        return self._video_run.breaker.stopped_models

    def raise_limit(self, by: int) -> None:
        """Let so many more videos be at the provider at once: another shard's part of the limit has become free."""
        self._video_run.raise_limit(by)
        for _ in range(by):
            self._claim_slots.release()

    @property
    def _ahead(self) -> int:
        """Videos beyond `max_in_flight` that are claimed: those that are downloaded, and the next ones."""
        return 2 * MAX_DOWNLOADS if self._is_alone else max(LEAST_CLAIMED_AHEAD, self._settings.max_in_flight // 4)

    @property
    def _is_alone(self) -> bool:
        return self._partition.of == 1

    async def run(self) -> None:
        """Work until every video is finished, in doubt, refused, or past its deadline.

        Raises LedgerUnavailable at once. Any other unexpected error is raised when all other rows have ended; after
        three of them in a row, of rows that are paid for, nothing more is sent. So are WrongAddress and
        ServiceUnreachable: what is not sent stays planned.
        """
        videos = self._plan.videos
        self._records = await self._ledger.plan(list(videos.values()), output_dir=self._output_dir)
        for key, record in self._records.items():
            one = videos[key]
            self._progress.add_video(key, record.state, one.estimate_usd, record.cost_usd, kind=one.kind)
            self._progress.update(record)
        self._records |= {
            key: replace(self._records[key], attempts=attempts) for key, attempts in self._attempts.items()
        }
        totals = await self._ledger.totals()
        self._progress.reserved_in_doubt_usd, self._progress.reserved_failed_usd = (
            totals.in_doubt_usd,
            totals.unsettled_failed_usd,
        )
        if others := {key for video in videos.values() for key in video.sources} - videos.keys():
            records = await self._ledger.records(sorted(others))  # sources that other shards need not send
            self._dependencies.elsewhere = {key: record.state for key, record in records.items()}
        if self._partition.index == 0:
            await self._find_missing_files()
        self._progress.start()
        todo = self._own_part()
        if self._partition.index == 0:
            todo += await self._paid_but_absent()
        if self._video_run.chain_budget is not None:
            todo.sort(key=lambda video: not self._is_begun(video))
        todo.sort(key=_paid_first(self._records))
        async with watching_pauses(self._video_run.not_paused, self._logger):
            await self._run_all(todo)
            await self._take_over()
        if self._unexpected:
            raise BaseExceptionGroup("rows ended by an error that was not foreseen", self._unexpected)
        reason = self._video_run.breaker.reason
        # The runs of the other shards, on machines of their own, may reach it.
        if isinstance(reason, WrongAddress | LimitUnavailable) or (
            isinstance(reason, ServiceUnreachable) and self._is_alone
        ):
            raise reason

    def _own_part(self) -> list[PlannedVideo]:
        """The videos to begin with: all, or this shard's and one of each model that is to have a canary."""
        wanted = list(self._plan.videos.values())
        if self._partition.index == 0:  # the others get this list, and count their parts in it too
            wanted = self.wanted = [video for video in wanted if self._wants(self._records[video.key])]
        own: list[PlannedVideo] = []
        canaries = self._dependencies.canaries(filter(self._is_sent, wanted)) if self._settings.canary else ()
        for position, video in enumerate(wanted):
            if not self._wants(self._records[video.key]):
                continue
            is_own = video.key in canaries or self._partition.has(position)
            (own if is_own else self._claimed_elsewhere).append(video)
        return own

    async def _paid_but_absent(self) -> list[PlannedVideo]:
        """What is paid is collected, even if its row has been changed or taken out of the table since."""
        absent = await self._ledger.paid_but_absent(self._plan.videos.keys(), output_dir=self._output_dir)
        if absent:
            self._logger.warning(
                "%s of rows that have changed or are no longer in the table: collected into videos/ too",
                counted(len(absent), "paid video"),
            )
        self._records.update({record.video_key: record for record in absent})
        return [video_of(record) for record in absent]

    def _wants(self, record: VideoRecord) -> bool:
        state = self._progress.states[record.video_key]
        if STATES[state].is_under_way:
            return True
        is_needed = (
            record.kind == "video" or self._partition.index > 0 or self._dependencies.is_needed(record.video_key)
        )
        return is_needed and self._settings.sends(state, record.kind)

    async def _find_missing_files(self) -> None:
        """A downloaded clip that is missing or has another size is fetched again."""
        downloaded = [record for record in self._records.values() if record.state == State.DOWNLOADED]
        sizes = await self._store.sizes([record.file for record in downloaded])
        lost = [record for record in downloaded if sizes.get(record.file) != record.size_bytes]
        for record in lost:
            self._logger.warning("%s: %s is missing or changed, fetching it again", record.row_id, record.file)
            self._progress.set(record.video_key, State.COMPLETED)
        if lost:
            missing = (self._ledger.file_missing(record.video_key, output_dir=self._output_dir) for record in lost)
            await asyncio.gather(*missing)

    async def _run_all(self, todo: list[PlannedVideo]) -> None:
        """Run these videos: those with a job at once, the others as slots for sending become free."""
        running: set[asyncio.Task[None]] = set()
        order = self._start_order(await self._startable(todo))
        chains = self._video_run.chain_budget

        def at_work() -> int:
            return order.ready + len(running)

        self._open_if_free(order)

        ledger_is_gone = asyncio.Event()

        def is_over(task: asyncio.Task[None], video: PlannedVideo, needs_slot: bool) -> None:
            running.discard(task)
            if needs_slot:
                self._claim_slots.release()
            error = None if task.cancelled() else task.exception()
            self._report_end(video, error)
            self._source_ended(video, order)  # here, as a task that is cancelled before it begins runs no `finally`
            if error is not None:
                self._unexpected.append(error)
                if isinstance(error, LedgerUnavailable):
                    ledger_is_gone.set()
                    for other in running:
                        other.cancel()

        try:
            while (video := await order.next()) is not None:
                needs_slot = not STATES[self._state(video)].has_job
                run_one = self._run_one
                if needs_slot and chains is not None and self._is_sent(video):
                    # It takes its slot later: what it waits for, videos of other chains, needs slots too.
                    needs_slot, run_one = False, partial(self._run_admitted, chains, at_work)
                if needs_slot:
                    await self._claim_slots.acquire()
                    await self._backlog.until_short()
                if ledger_is_gone.is_set():
                    break
                running.add(task := asyncio.create_task(run_one(video, order)))
                task.add_done_callback(partial(is_over, video=video, needs_slot=needs_slot))
                await asyncio.sleep(0)  # let the first rows run while the others start: a thousand take seconds
            while running:
                await asyncio.wait(running)
            given_up, self._given_up = self._given_up, []
            for one, source in given_up:
                await self._source_missing(one, source)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        errors = (*self._video_run.breaker.unsaved, *self._unexpected)
        gone = [error for error in errors if isinstance(error, LedgerUnavailable)]
        if gone:  # one error with what each row has to say: the id of a paid job may be in it
            reasons = list(dict.fromkeys(error.reason for error in gone))
            if self._video_run.breaker.unsaved:
                reasons.append(f"the ids are in {self._store.local_dir / UNSAVED_FILE}, and the next run takes them up")
            raise LedgerUnavailable(gone[0].url, "; ".join(reasons)) from gone[0]

    def _report_end(self, video: PlannedVideo, error: BaseException | None) -> None:
        """Tell the breaker how a row that this run has sent ended; what was paid before does not count."""
        if not self._is_sent(video):
            return
        state = self._progress.states[video.key]
        if error is None and state == State.DOWNLOADED:
            self._video_run.breaker.row_downloaded()
        if error is not None and STATES[state].is_paid_without_clip:
            self._video_run.breaker.paid_row_broke_off()

    async def _startable(self, todo: list[PlannedVideo]) -> list[PlannedVideo]:
        """Those whose sources are there or are among them. The others wait for a run that has claimed a source, or for
        a source that does not come, which is written down as their reason."""
        todo, first_missing = [*todo], dict[str, str]()
        while blocked := self._dependencies.without_source(todo):
            elsewhere = {video.key for video in self._claimed_elsewhere}
            for video, source in blocked:
                todo.remove(video)
                if source in elsewhere:
                    self._claimed_elsewhere.append(video)
                else:
                    first_missing[video.key] = first_missing.get(source, source)
                    await self._source_missing(video, first_missing[video.key])
        return todo

    async def _source_missing(self, video: PlannedVideo, source: str) -> None:
        """Write down that a video is not sent, as the clip that it continues does not come in this run."""
        error = self._dependencies.missing(source)
        if self._state(video) == State.PLANNED:
            await self._ledger.set_error(video.key, error, state=State.PLANNED)
            self._progress.set(video.key, State.PLANNED, error=str(error), failure_class=error.failure_class)

    def _start_order(self, todo: list[PlannedVideo]) -> StartOrder:
        sources = {video.key: open_keys for video in todo if (open_keys := self._dependencies.open_sources(video))}
        if not self._settings.canary:
            return StartOrder(todo, sources=sources)
        guarded = [video for video in todo if self._is_sent(video)]
        keys = {video.key for video in guarded}
        free = [video for video in todo if video.key not in keys]
        return StartOrder(free, guarded, known=self._tried_models, sources=sources)

    def _source_ended(self, video: PlannedVideo, order: StartOrder) -> None:
        """Start those that have waited for this one; without its clip, give them up, or wait for who has claimed it."""
        is_there = self._progress.states.get(video.key) == State.DOWNLOADED
        given_up = order.source_ended(video.key, is_there=is_there)
        is_elsewhere = any(one is video for one in self._claimed_elsewhere)
        if (chains := self._video_run.chain_budget) is not None:
            chains.give_back([video.key, *(one.key for one in given_up)], is_elsewhere=is_elsewhere)
        if given_up and is_elsewhere:
            self._claimed_elsewhere += given_up
        else:
            self._given_up += [(one, video.key) for one in given_up]

    def _is_sent(self, video: PlannedVideo) -> bool:
        return video.key in self._plan.videos and self._settings.sends(self._records[video.key].state, video.kind)

    def _state(self, video: PlannedVideo) -> State:
        """How far it is now; of a video that is not of the table, how far it was when the run began."""
        return self._progress.states.get(video.key, self._records[video.key].state)

    def _is_begun(self, video: PlannedVideo) -> bool:
        """Whether something of the video's chain was sent by an earlier run."""
        chain = self._dependencies.chain_of(video)
        return len(chain.videos) > 1 and any(self._records[one.key].attempts for one in chain.videos)

    async def _run_admitted(
        self, chains: ChainBudget, at_work: Callable[[], int], video: PlannedVideo, order: StartOrder
    ) -> None:
        """Run a video when what remains of its chain has its part of the budget, or has been refused it."""
        await chains.admit(
            video.key,
            partial(self._dependencies.remaining, video),
            at_work=at_work,
            stopped=partial(self._video_run.breaker.refusal, video.request.model),
        )
        async with self._claim_slots:
            await self._backlog.until_short()
            await self._run_one(video, order)

    async def _run_one(self, video: PlannedVideo, order: StartOrder) -> None:
        may_send = video.key in self._plan.videos
        try:
            async with self._download_slots if self._state(video) == State.COMPLETED else nullcontext():
                is_ours = await self._video_run.run(video, self._records[video.key], may_send=may_send)
            if not is_ours and may_send:
                self._claimed_elsewhere.append(video)
            if order.is_canary(video):
                await self._check_canary(video, order, is_ours=is_ours)
        finally:
            forget_results()
            if order.is_canary(video):  # an error that was not foreseen: whatever it is, no more of this
                self._stop_model(video, order, "ended by an error that was not foreseen")
            self._open_if_free(order)

    def _open_if_free(self, order: StartOrder) -> None:
        if order.is_free:
            self.is_open.set()

    async def _check_canary(self, canary: PlannedVideo, order: StartOrder, *, is_ours: bool) -> None:
        """Let the other videos of the model go if this one was downloaded; if it was not even tried, try another."""
        state, model = self._progress.states[canary.key], canary.request.model
        if state == State.DOWNLOADED:
            self._tried_models.add(model)
            order.release_model(model)
        elif not is_ours or state == State.REFUSED:
            order.try_another(model)
        else:
            record = (await self._ledger.records([canary.key]))[canary.key]
            self._stop_model(canary, order, record.error or f"still {record.state.value}")

    def _stop_model(self, canary: PlannedVideo, order: StartOrder, reason: str) -> None:
        model = canary.request.model
        error = CanaryFailed(model, canary.row_id, reason[:REASON_CHARACTERS])
        self._logger.warning("%s: canary of %s: %s; nothing more of this model is sent", canary.row_id, model, reason)
        self._video_run.breaker.canary_failed(error)
        self._tried_models.add(model)
        order.release_model(model)

    async def _take_over(self) -> None:
        """Wait for the videos that another run has claimed, and take over what it leaves."""
        wait_seconds = self._settings.max_wait_minutes * 60
        deadline = self._clock.time() + wait_seconds
        pause = CLAIMED_POLL_SECONDS
        before: dict[str, VideoRecord] = {}
        while self._claimed_elsewhere and self._clock.time() < deadline:
            waiting, self._claimed_elsewhere = self._claimed_elsewhere, []
            await self._clock.sleep(pause)
            pause = min(pause * 1.5, LONGEST_CLAIMED_POLL_SECONDS if self._is_alone else LONGEST_SHARED_POLL_SECONDS)
            records = await self._ledger.records([video.key for video in waiting])
            if not self._is_alone and records != before:  # other shards have time limits of their own
                deadline, before = self._clock.time() + wait_seconds, records
            alive = await self._ledger.other_runs_alive({record.owner for record in records.values() if record.owner})
            free = self._claimable(waiting, records, alive)
            self._claimed_elsewhere = [video for video in waiting if video.key not in free and not self._is_over(video)]
            # From the end: the shard whose part they are comes from the other side.
            todo = [video for video in reversed(waiting) if video.key in free]
            todo.sort(key=_paid_first(records))
            await self._run_all(todo)

    def _claimable(
        self, waiting: list[PlannedVideo], records: Mapping[str, VideoRecord], alive: Collection[str]
    ) -> set[str]:
        """Videos that are not finished and that no living run has claimed."""
        free: set[str] = set()
        for video in waiting:
            record = records[video.key]
            self._progress.update(record)
            is_over = self._is_over(video) and not self._is_untouched(video, record)
            if not is_over and record.owner not in alive:
                free.add(video.key)
        return free

    def _is_untouched(self, video: PlannedVideo, record: VideoRecord) -> bool:
        """Whether a video of another shard is still as it was: failed, in doubt or refused, and to be sent again."""
        seen = self._records[video.key]
        is_same = (record.state, record.attempts) == (seen.state, seen.attempts)
        return not self._is_alone and is_same and self._wants(seen)

    def _is_over(self, video: PlannedVideo) -> bool:
        return STATES[self._progress.states[video.key]].is_finished


def _paid_first(records: Mapping[str, VideoRecord]) -> Callable[[PlannedVideo], bool]:
    """A key to sort by: what is paid for, or perhaps so, comes first."""
    return lambda video: not STATES[records[video.key].state].is_under_way
