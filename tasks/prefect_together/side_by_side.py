"""Durations of jobs that go on side by side, told in the order in which the jobs began. No clock, no I/O.

Of jobs sent together the short ones end first. Told as they end, they would make every job look short: with 200 in
flight each was looked at 26 times and not 11 (simulated, spread 0.35). So a duration is held back until
those of all jobs that began before it are told too, but for a few that are far behind the others.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

NEXT_JOBS, BEHIND_OF_THEM = 20, 18
"""A job holds the others back until, of so many that began next after it, so many have ended."""


@dataclass(eq=False, slots=True)
class Lesson:
    """One job that is waited for; `tell` may be called once, when it is done."""

    began_at: float
    has_ended: bool = False
    is_passed: bool = False
    teach: Callable[[], None] | None = None

    def tell(self, observe: Callable[[], None]) -> None:
        """What is to be learned from this job, when its turn comes."""
        self.teach = observe


@dataclass(slots=True)
class SideBySide:
    """One model's jobs that are waited for, those that began first in front."""

    _lessons: list[Lesson] = field(default_factory=list[Lesson])

    def begin(self, began_at: float) -> Lesson:
        """A job that began at a time, in any unit that all use."""
        lesson = Lesson(began_at)
        insort(self._lessons, lesson, key=lambda one: one.began_at)
        return lesson

    def end(self, lesson: Lesson) -> None:
        """The wait for it is over; whatever its turn has now come for is told."""
        if lesson.is_passed:
            if lesson.teach is not None:
                lesson.teach()
            return
        lesson.has_ended = True
        turn = 0
        while turn < len(self._lessons) and (self._lessons[turn].has_ended or self._is_far_behind(turn)):
            front = self._lessons[turn]
            turn += 1
            if not front.has_ended:
                front.is_passed = True
                continue
            if front.teach is not None:
                front.teach()
        del self._lessons[:turn]

    def _is_far_behind(self, place: int) -> bool:
        following = self._lessons[place + 1 : place + 1 + NEXT_JOBS]
        return sum(lesson.has_ended for lesson in following) >= BEHIND_OF_THEM
