"""A job's timeline as a file that trace viewers read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

__all__ = ["write_trace"]


def write_trace(path: str | os.PathLike[str], timeline: Iterable[Sequence[object]]) -> None:
    """Write `timeline` in the Trace Event format (``chrome://tracing``, ui.perfetto.dev).

    Parameters
    ----------
    path
        The file, replaced.
    timeline
        ``info_dict["timeline"]`` of a job: stage, chunk, start and end in seconds since the job began.

    Raises
    ------
    OSError
        It cannot be written.
    """
    lanes: dict[object, int] = {}
    events: list[dict[str, object]] = []
    for stage, chunk, start, end in timeline:
        lane = lanes.setdefault(stage, len(lanes) + 1)
        begin = float(str(start)) * 1e6  # the format counts in microseconds
        duration = float(str(end)) * 1e6 - begin
        events.append(
            {"name": f"{stage} {chunk}", "ph": "X", "ts": begin, "dur": duration, "pid": 1, "tid": lane, "cat": stage}
        )
    names = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": {"name": stage}}
        for stage, lane in lanes.items()
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"traceEvents": [*names, *events], "displayTimeUnit": "ms"}, file)
