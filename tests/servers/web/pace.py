"""How fast a test server moves bytes: one rate for all of its connections together."""

from __future__ import annotations

import threading
import time

__all__ = ["Pace"]

#: Seconds that may be caught up: sleeps end late, and a rate that never made up for it would be below the one set.
_SLACK = 0.02


class Pace:
    """Says how long to wait before more bytes.

    Parameters
    ----------
    rate
        Bytes a second; ``None``: as fast as they go.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._due = 0.0

    def take(self, nbytes: int) -> float:
        """Count bytes that are about to move; returns how many seconds that is too early."""
        if self.rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            due = max(self._due, now - _SLACK)
            self._due = due + nbytes / self.rate
            return max(0.0, due - now)
