"""The jobs in the queue of one open device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["MOST_QUEUED", "Queued", "RunQueue"]

#: Most jobs in flight on one device. Another job waits for the oldest, since each keeps its memory until it has ended.
MOST_QUEUED = 64

#: Seconds to wait for the oldest job before the others are checked again.
_LOOK = 0.05


class Queued(Protocol):
    """A job in flight; see `apyfal.device.chaining.queued_job.QueuedJob`."""

    @property
    def over(self) -> bool:
        """Whether it is known to have ended."""
        ...

    def ended(self, timeout: float | None = 0.0) -> bool:
        """Wait up to `timeout` seconds for its end; return whether it has ended."""
        ...

    def check(self) -> None:
        """Wait for its end, and raise its error."""

    def cancel(self) -> None:
        """Ask it to end."""


class RunQueue:
    """The jobs in flight on one device, in the order in which they were queued. All methods are for any thread."""

    def __init__(self) -> None:
        self._queueing = threading.RLock()
        self._lock = threading.Lock()
        self._jobs: list[tuple[object, Queued]] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one thread at a time queue a job, so that the order here is that of the driver's queue."""
        with self._queueing:
            self.collect()
            while (oldest := self._oldest_if_full()) is not None:
                oldest.ended(_LOOK)
                self.collect(every=True)
            yield

    def _oldest_if_full(self) -> Queued | None:
        """Return the oldest job if no other job may be added; otherwise ``None``."""
        with self._lock:  # a thread that waits for a job discards it
            jobs = self._jobs
            return jobs[0][1] if len(jobs) >= MOST_QUEUED else None

    def add(self, owner: object, job: Queued) -> None:
        """Add a job, within `turn`."""
        with self._lock:
            if not job.over:
                self._jobs.append((owner, job))

    def discard(self, job: Queued) -> None:
        """Remove a job that has ended."""
        with self._lock:
            self._jobs = [pair for pair in self._jobs if pair[1] is not job]

    def collect(self, *, every: bool = False) -> None:
        """Remove jobs that have ended; by default, only those before the first that has not."""
        with self._lock:
            jobs = list(self._jobs)
        for _, job in jobs:
            if not job.ended() and not every:
                break

    def of(self, owner: object) -> list[Queued]:
        """Return the jobs of one owner that are not known to have ended, the oldest first."""
        with self._lock:
            return [job for other, job in self._jobs if other is owner and not job.over]
