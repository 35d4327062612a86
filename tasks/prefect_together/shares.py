"""Which part of a plan, and of its limits, falls to each of several runs that work on it together. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """Number `index` of `of` runs over one plan; number 0 is the run that made it.

    A run begins with its own share and then takes up what is left of the others': the ledger's claims decide who has a
    video, the share only where each begins.
    """

    index: int = 0
    of: int = 1

    def has(self, position: int) -> bool:
        """Whether the video at this position of the plan is one to begin with: every `of`-th, so that the table's
        order holds over all runs together."""
        return position % self.of == self.index

    def part_of(self, limit: int) -> int:
        """This run's part of a limit that holds for all together; the parts add up to it."""
        return limit // self.of + (self.index < limit % self.of)


ALONE = Share()

NO_SERVER = (
    "shards are runs of a deployment, on the workers of a Prefect server: set PREFECT_API_URL to its address,"
    " or leave shards at 1"
)
