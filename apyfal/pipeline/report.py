"""What a job did: bytes, copies and why, seconds a stage, and the timeline they are summed from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

from apyfal.pipeline.limit import limit_of

__all__ = ["STAGES", "Report", "Span"]

#: In the order that data passes them.
STAGES = ("fetch", "to_device", "compute", "from_device", "store")


#: Spans that say what happens at the moment: those of about ten chunks.
_RECENT = 50


class Span(NamedTuple):
    """One stage at work on one chunk; seconds since the job began."""

    stage: str
    chunk: int
    start: float
    end: float


class Report:
    """Collected while a job runs, by all of its stages."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.bytes_copied = 0
        self.chunks = 0
        self.reasons: dict[str, None] = {}
        self.spans: list[Span] = []
        self._reached: dict[str, float] = {}
        self._lock = threading.Lock()

    def of_one(self, bytes_in: int, bytes_out: int) -> Report:
        """Return the report of one of several jobs that were done together: their times, its own bytes."""
        one = Report()
        one.began, one.spans, one.chunks = self.began, self.spans, self.chunks
        one.bytes_in, one.bytes_out = bytes_in, bytes_out
        return one

    def now(self) -> float:
        """Seconds since the job began."""
        return perf_counter() - self.began

    def add(self, stage: str, chunk: int, start: float) -> None:
        """Record that a stage was at work on a chunk from `start` until now."""
        self.spans.append(Span(stage, chunk, start, self.now()))

    def follow(self, stage: str, chunk: int, start: float, end: float) -> None:
        """Record that a stage was asked for a chunk at `start` and was done at `end`.

        Of stages whose chunks queue up in the driver, in their order: each begins when the one before it has ended.
        """
        start = max(start, self._reached.get(stage, 0.0))
        self._reached[stage] = end = max(start, end)
        self.spans.append(Span(stage, chunk, start, end))

    @contextmanager
    def span(self, stage: str, chunk: int) -> Iterator[None]:
        """Measure one stage at work on one chunk."""
        start = self.now()
        try:
            yield
        finally:
            self.add(stage, chunk, start)

    def copied(self, nbytes: int, reason: str) -> None:
        """Count a copy that the rule of `apyfal.device.zero_copy` asked for."""
        with self._lock:
            self.bytes_copied += nbytes
            self.reasons[reason] = None

    def limit_now(self) -> str:
        """Say what limits the job at the moment; see `apyfal.pipeline.limit.limit_of`."""
        recent = self.spans[-_RECENT:]
        return limit_of(recent, self.now() - min((span.start for span in recent), default=0.0))

    def fill(self, info: dict[str, Any], *, device: str, driver: str) -> None:
        """Write everything into a caller's ``info_dict``."""
        seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        for span in self.spans:
            seconds[span.stage] += span.end - span.start
        seconds["total"] = perf_counter() - self.began
        info.update(
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            bytes_copied=self.bytes_copied,
            copy_reasons=list(self.reasons),
            seconds=seconds,
            chunks=self.chunks,
            device=device,
            driver=driver,
            timeline=list(self.spans),
            limit=limit_of(self.spans, seconds["total"]),
        )
