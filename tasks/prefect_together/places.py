"""Where a run works, and what it opens there: client, pace, learned times, and the batch over them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from together import AsyncTogether

from prefect_together.batch import Batch
from prefect_together.client import open_client
from prefect_together.ledger import HERE, LEDGER_FILE, Ledger
from prefect_together.outputs import PAGE_FILE
from prefect_together.plan import Plan
from prefect_together.run_settings import RunSettings
from prefect_together.schedule import DurationBook
from prefect_together.session import REQUESTS_PER_SECOND, open_session
from prefect_together.shares import ALONE, Share
from prefect_together.storage import OutputStore, open_store, redacted
from prefect_together.tally import Tally
from prefect_together.tasks import client_of

SANDBOX_DIRECTORY = ".sandbox"

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads its key, writes its videos and keeps its ledger. None: the default of each."""

    output_dir: str
    ledger_url: str | None = None
    credentials_block: str | None = None
    sandbox: bool = False
    sandbox_speed: float = 1.0

    @property
    def output_name(self) -> str:
        """How the ledger calls the output directory: a ledger that lies in it may be moved together with it."""
        return HERE if self.ledger_url is None else redacted(open_store(self.output_dir).uri(PAGE_FILE))

    def ledger_in(self, store: OutputStore) -> str:
        """Path or URL of the ledger; `store` is that of the output directory."""
        return self.ledger_url or str(Path(store.scratch) / LEDGER_FILE)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A plan and what it is worked on with, once its ledger is open."""

    plan: Plan
    places: Places
    settings: RunSettings
    store: OutputStore
    ledger: Ledger
    tally: Tally
    logger: RunLogger


@asynccontextmanager
async def open_batch(
    work: Work, *, share: Share = ALONE, attempts: Mapping[str, int] | None = None
) -> AsyncGenerator[Batch]:
    """The batch over a plan, with its client; `share` divides the limits too. Everything is closed on leaving."""
    book = DurationBook()
    models = {video.request.model for video in work.plan.videos.values()}
    for model, durations in (await work.ledger.durations(models)).items():
        book.load(model, durations)
    settings = replace(work.settings, max_in_flight=share.part_of(work.settings.max_in_flight))
    async with (
        _client(work.places, work.store) as client,
        open_session(client, book=book, requests_per_second=REQUESTS_PER_SECOND / share.of) as session,
    ):
        yield Batch(
            work.plan,
            ledger=work.ledger,
            session=session,
            store=work.store,
            settings=settings,
            tally=work.tally,
            logger=work.logger,
            output_dir=work.places.output_name,
            share=share,
            attempts=attempts,
        )


@asynccontextmanager
async def _client(places: Places, store: OutputStore) -> AsyncGenerator[AbstractAsyncContextManager[AsyncTogether]]:
    """The client to open: of the sandbox only when asked for, else with the block's or the environment's key."""
    if not places.sandbox:
        yield await client_of(places.credentials_block)
        return
    from prefect_together.sandbox.process import SandboxProcess

    state = Path(store.scratch) / SANDBOX_DIRECTORY
    async with SandboxProcess(state_dir=state, speed=places.sandbox_speed) as sandbox:
        yield open_client(api_key="sandbox", base_url=sandbox.base_url)
