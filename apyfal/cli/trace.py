"""A job's timeline as a file that trace viewers read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

__all__ = ["trace_events", "write_trace"]


def trace_events(timeline: Iterable[Sequence[object]]) -> list[dict[str, object]]:
    """Return a timeline as events of the Trace Event format.

    Parameters
    ----------
    timeline
        ``info_dict["timeline"]`` of a job: stage, chunk, start and end in seconds since the job began.

    Returns
    -------
    list of dict
        Lanes in the order of the stages' beginnings, and the chunks in them. A stage has one lane; where it works on
        several chunks at once, as many as that takes, since slices of one lane must not overlap.
    """
    spans = sorted((float(str(start)), float(str(end)), str(stage), chunk) for stage, chunk, start, end in timeline)
    lanes: dict[str, list[tuple[int, float]]] = {}  # of each stage: number, and when it is free again
    count = 0
    events: list[dict[str, object]] = []
    names: list[dict[str, object]] = []
    for start, end, stage, chunk in spans:
        free = lanes.setdefault(stage, [])
        place = next((index for index, (_, until) in enumerate(free) if until <= start), len(free))
        if place == len(free):
            count += 1
            free.append((count, end))
            name = stage if not place else f"{stage} ({place + 1})"
            names.append({"name": "thread_name", "ph": "M", "pid": 1, "tid": count, "args": {"name": name}})
        lane = free[place][0]
        free[place] = (lane, end)
        # The format counts in microseconds.
        begin, duration = start * 1e6, (end - start) * 1e6
        events.append(
            {"name": f"{stage} {chunk}", "cat": stage, "ph": "X", "ts": begin, "dur": duration, "pid": 1, "tid": lane}
        )
    return [*names, *events]


def write_trace(path: str | os.PathLike[str], timeline: Iterable[Sequence[object]]) -> None:
    """Write a timeline for ``chrome://tracing`` and ui.perfetto.dev; see `trace_events`. `path` is replaced.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"traceEvents": trace_events(timeline), "displayTimeUnit": "ms"}, file)
