"""Spares the engine the looking up of places for results that are never stored."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from prefect.context import FlowRunContext
from prefect.filesystems import WritableFileSystem


class Nowhere(WritableFileSystem):
    """A result storage for tasks that store nothing: a key stays what it is, no path is looked up for it."""

    _block_type_slug = "together-video-nowhere"

    async def read_path(self, path: str) -> NoReturn:
        """Nothing is ever here."""
        raise FileNotFoundError(path)

    async def write_path(self, path: str, content: bytes) -> NoReturn:
        """Nothing is to come here."""
        raise PermissionError(f"{path}: results of these tasks are not stored")


@contextmanager
def results_not_stored() -> Generator[None]:
    """Around tasks with `persist_result=False`, in a flow run; outside of one nothing changes.

    The engine makes a key for each result all the same, and with the usual storage two absolute paths for it, with all
    links followed: 0.3 ms a task run (measured on 3.8.8).
    """
    context = FlowRunContext.get()
    if context is None:
        yield
        return
    store = context.result_store.model_copy(update={"result_storage": Nowhere()})
    with context.model_copy(update={"result_store": store}):
        yield
