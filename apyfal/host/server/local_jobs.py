"""How the daemon's jobs run on an accelerator of this machine: in batches, prepared, with pinned memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from apyfal.host.server.jobs.sessions import LocalAccelerator
from apyfal.host.server.jobs.short_runs import PreparedRun
from apyfal.jobs.ordered_map import LightFuture, ResultOrder
from apyfal.jobs.queue import Task
from apyfal.jobs.submitter import run_each
from apyfal.memory import empty

__all__ = ["allocate", "devices", "prepare_run", "run_calls"]


def run_calls(
    accelerator: LocalAccelerator, sources: list[Any], dsts: list[Any], keywords: dict[str, Any]
) -> list[LightFuture]:
    """Run the jobs of a batch together, if the accelerator can do that."""
    order = ResultOrder()
    futures = [LightFuture(order) for _ in sources]
    tasks = [Task(*each, keywords) for each in zip(futures, sources, dsts, strict=True)]
    submitter = getattr(accelerator, "_submitter", None)
    if submitter is None:
        run_each(accelerator.process, tasks)
    else:
        submitter.run(tasks)
    return futures


def prepare_run(
    accelerator: LocalAccelerator, src: object, dst: object, keywords: dict[str, Any]
) -> PreparedRun | None:
    """Prepare a job for the event loop, if the accelerator's card never makes it wait."""
    prepare = getattr(accelerator, "_runs_at_once", None)
    prepared: PreparedRun | None = None if prepare is None else prepare(src, dst, **keywords)
    return prepared


def allocate(nbytes: int) -> np.ndarray[Any, Any]:
    """Allocate pinned memory."""
    return empty((nbytes,), np.uint8)


def devices() -> list[Any]:
    """List this machine's devices."""
    import apyfal

    return list(apyfal.devices())
