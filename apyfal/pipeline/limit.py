"""What limits a job, in plain words, from its timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

__all__ = ["limit_of"]

#: Stages that occupy the card.
_CARD = ("to_device", "compute", "from_device")


class _Interval(Protocol):
    """One stage at work."""

    @property
    def stage(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


def limit_of(spans: Sequence[_Interval], total: float) -> str:
    """Say which stage was at work most of the time, and how long the card had nothing to do.

    Parameters
    ----------
    spans
        The timeline, or a part of it.
    total
        Seconds that it covers.

    Returns
    -------
    str
        Such as ``fetch 97 %, card idle 38 %``: in 97 % of the time at least one range was being received. Empty where
        there is nothing to say.
    """
    if not spans or total <= 0:
        return ""
    stages = dict.fromkeys(span.stage for span in spans)
    busy = {stage: _covered((span.start, span.end) for span in spans if span.stage == stage) for stage in stages}
    most = max(busy, key=lambda stage: busy[stage])
    card = _covered((span.start, span.end) for span in spans if span.stage in _CARD)
    return f"{most} {_percent(busy[most] / total)}, card idle {_percent(1 - card / total)}"


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0) * 100:.0f} %"


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
