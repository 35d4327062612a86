"""The create limit that the service does not announce: it follows the successful rate. No I/O, no clock of its own.

Together (November 2026): "dynamic, about twice the past hour's successful rate", 429 above it. Here: the limit is the
larger of a floor and twice the mean rate of accepted creates over the past window, spent from a bucket that holds
one second's worth (at least one create).
"""

from __future__ import annotations

from collections import deque


class DynamicLimit:
    """`take(now)` spends one create, or says in how many seconds the next one would be taken."""

    def __init__(self, floor_per_second: float, window_seconds: float) -> None:
        if not (floor_per_second > 0 and window_seconds > 0):
            raise ValueError("the limit's creates a second and its window must be above 0")
        self._floor, self._window = floor_per_second, window_seconds
        self._accepted: deque[float] = deque()
        self._tokens, self._filled_at = 1.0, None

    def per_second(self, now: float) -> float:
        """The limit that holds at `now`."""
        while self._accepted and self._accepted[0] <= now - self._window:
            self._accepted.popleft()
        return max(self._floor, 2 * len(self._accepted) / self._window)

    def take(self, now: float) -> float | None:
        rate = self.per_second(now)
        if self._filled_at is not None:
            gained = (now - self._filled_at) * rate
            self._tokens = min(max(1.0, rate), self._tokens + gained)
        self._filled_at: float | None = now
        if self._tokens < 1 - 1e-9:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        self._accepted.append(now)
        return None
