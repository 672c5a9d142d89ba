"""What a job did: bytes, copies and their reasons, seconds in each stage, and which stage limited it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, Protocol

__all__ = ["STAGES", "Report", "Span", "bottleneck_of"]

#: In the order in which a job passes them. ``prepare``: opening sources and destinations, before and after ``build``:
#: reading and loading the program, or building it; almost nothing in a job that finds it loaded.
STAGES = ("prepare", "build", "fetch", "to_device", "compute", "from_device", "store")
#: Stages in which the device is busy.
_DEVICE_STAGES = ("to_device", "compute", "from_device")

#: Spans by which the current bottleneck is judged: those of about ten chunks.
_RECENT = 50


class Span(NamedTuple):
    """A stage at work on a chunk; `start` and `end` are seconds since the job began."""

    stage: str
    chunk: int
    start: float
    end: float


class _Interval(Protocol):
    """A stage at work, as `Span`; the spans of a remote job are of another class."""

    @property
    def stage(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class Report:
    """Collects what a job does, from all threads of its stages.

    Attributes
    ----------
    bytes_in, bytes_out
        Bytes read from the job's inputs, and written to its outputs.
    bytes_copied, reasons
        Bytes that were copied in host memory, and why.
    to_device, from_device
        Bytes that were transferred to the device and from it. Where a device works in the host's memory, bytes that are
        handed over count too.
    chunks
        Chunks that are done.
    spans
        The timeline.
    """

    def __init__(self) -> None:
        self._began = perf_counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.bytes_copied = 0
        self.to_device = 0
        self.from_device = 0
        self.chunks = 0
        self.reasons: dict[str, None] = {}
        self.spans: list[Span] = []
        self.run_details: list[str] = []
        self._stage_ends: dict[str, float] = {}
        self._lock = threading.Lock()

    def of_one(self, bytes_in: int, bytes_out: int) -> Report:
        """Return the report of one job of a batch: the timeline of the batch, and the job's own bytes."""
        one = Report()
        one._began, one.spans, one.chunks = self._began, self.spans, self.chunks
        one.bytes_in, one.bytes_out = bytes_in, bytes_out
        one.to_device, one.from_device = bytes_in, bytes_out
        one.run_details = self.run_details
        return one

    def now(self) -> float:
        """Return the seconds since the job began."""
        return perf_counter() - self._began

    def add(self, stage: str, chunk: int, start: float) -> None:
        """Record that a stage was at work on a chunk from `start` until now."""
        self.spans.append(Span(stage, chunk, start, self.now()))

    def follow(self, stage: str, chunk: int, start: float, end: float) -> None:
        """Record a chunk that waited in the driver's queue: submitted at `start`, done at `end`.

        The driver does the chunks of a stage one by one, so a chunk's span begins at the end of the one before it.
        """
        start = max(start, self._stage_ends.get(stage, 0.0))
        self._stage_ends[stage] = end = max(start, end)
        self.spans.append(Span(stage, chunk, start, end))

    @contextmanager
    def span(self, stage: str, chunk: int) -> Iterator[None]:
        """Record that a stage is at work on a chunk while the block runs."""
        start = self.now()
        try:
            yield
        finally:
            self.add(stage, chunk, start)

    def copied(self, nbytes: int, reason: str) -> None:
        """Count a copy in host memory, and its reason (see `apyfal.device.zero_copy`)."""
        with self._lock:
            self.bytes_copied += nbytes
            self.reasons[reason] = None

    def moved(self, to_device: int, from_device: int) -> None:
        """Count a transfer."""
        if to_device or from_device:
            with self._lock:
                self.to_device += to_device
                self.from_device += from_device

    def current_bottleneck(self) -> str:
        """Return what limits the job at the moment, as `bottleneck_of` says it."""
        recent = self.spans[-_RECENT:]
        return bottleneck_of(recent, self.now() - min((span.start for span in recent), default=0.0))

    def fill(self, info: dict[str, Any], *, device: str, driver: str) -> None:
        """Write everything into a caller's ``info_dict``; see `apyfal.Accelerator.process`."""
        seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        for span in self.spans:
            seconds[span.stage] += span.end - span.start
        seconds["total"] = self.now()
        info.update(
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            bytes_copied=self.bytes_copied,
            copy_reasons=list(self.reasons),
            bytes_moved={"to_device": self.to_device, "from_device": self.from_device},
            seconds=seconds,
            chunks=self.chunks,
            device=device,
            driver=driver,
            timeline=list(self.spans),
            limit=bottleneck_of(self.spans, seconds["total"]),
        )
        if self.run_details:
            from apyfal.rtl.summary import summarize  # of the rtl driver alone

            info[driver] = summarize(self.run_details)
            info["cycles"] = info[driver]["cycles"]


def bottleneck_of(spans: Sequence[_Interval], total: float) -> str:
    """Return which stage was at work for most of the time, and for how much of it the device was idle.

    Parameters
    ----------
    spans
        The timeline, or a part of it.
    total
        Seconds that it covers.

    Returns
    -------
    str
        For example ``fetch 97 %, card idle 38 %``: in 97 % of the time at least one range was being received. Empty if
        there are no spans.
    """
    if not spans or total <= 0:
        return ""
    stages = dict.fromkeys(span.stage for span in spans)
    busy = {stage: _covered((span.start, span.end) for span in spans if span.stage == stage) for stage in stages}
    most = max(busy, key=lambda stage: busy[stage])
    device = _covered((span.start, span.end) for span in spans if span.stage in _DEVICE_STAGES)
    return f"{most} {_percent(busy[most] / total)}, card idle {_percent(1 - device / total)}"


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0) * 100:.0f} %"


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
