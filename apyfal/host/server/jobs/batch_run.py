"""Run the small jobs of a batch: each has its own source, output and error; all share one place in the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from apyfal.exceptions import ParameterError, RunCancelled
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import BatchGroup
from apyfal.host.protocol.values import describe_value, require_short
from apyfal.host.server.jobs.job import BatchResult, Job
from apyfal.host.server.jobs.sessions import LocalAccelerator
from apyfal.host.server.transport.bodies import Data

__all__ = ["BatchOutcome", "RunCalls", "run_batch"]


class BatchOutcome(Protocol):
    """The outcome of a call, as a `concurrent.futures.Future` has it."""

    def result(self) -> Any:
        """Return the result, or raise the error; called once."""


#: (accelerator, sources, destinations, keywords of `process`): makes all calls, and returns their outcomes in order
RunCalls = Callable[[LocalAccelerator, list[Any], list[Any], dict[str, Any]], Sequence[BatchOutcome]]


def run_batch(
    job: Job,
    accelerator: LocalAccelerator,
    allocate: Callable[[ArrayType], np.ndarray[Any, Any]],
    run_calls: RunCalls,
    keywords: Mapping[str, Any],
    info: dict[str, Any],
) -> None:
    """Run all jobs of a batch, and set the job's results and output.

    Parameters
    ----------
    job, accelerator
        The batch, and what runs it.
    allocate
        Allocates the destinations.
    run_calls
        Makes the calls.
    keywords
        Of `process`, for all of them.
    info
        Receives how many jobs there were.
    """
    groups = job.spec.batch or ()
    count = info["jobs"] = sum(group.count for group in groups)
    # Results of several outputs do not fit into one body, nor do arrays that are written in part.
    if len(accelerator.outputs) != 1 or (accelerator.reports_size and any(group.dst is not None for group in groups)):
        job.batch = [BatchResult("alone")] * count
        return
    if job.data is None or job.data.array is None:
        raise ParameterError("src: the request had no body")
    if job.cancelled:
        raise RunCancelled("the job was cancelled")
    dsts = [None if group.dst is None else allocate(group.dst) for group in groups for _ in range(group.count)]
    outcomes = run_calls(accelerator, list(_sources(job.data.array, groups)), dsts, dict(keywords))
    results, arrays = [], []
    for outcome, dst in zip(outcomes, dsts, strict=True):
        result, array = _end_of(outcome, dst)
        results.append(result)
        if array is not None:
            arrays.append(array)
    if arrays:
        require_short([[one.result, one.exact] for one in results if one.result is not None], "the results")
        job.output = Data(array=arrays[0], more=arrays[1:])
    job.batch = results


def _sources(body: np.ndarray[Any, Any], groups: tuple[BatchGroup, ...]) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    for group in groups:
        for _ in range(group.count):
            end = start + group.src.nbytes
            # a copy: a view may begin at an address that is not aligned for its type
            piece = body[start:end]
            aligned = piece if piece.ctypes.data % group.src.dtype.alignment == 0 else piece.copy()
            yield aligned.view(group.src.dtype).reshape(group.src.shape)
            start = end


def _end_of(outcome: BatchOutcome, dst: np.ndarray[Any, Any] | None) -> tuple[BatchResult, np.ndarray[Any, Any] | None]:
    """Return what a job of the batch came to, and the array that its client receives.

    With result parameters, that is the client's own array if there is one.
    """
    try:
        result = outcome.result()
        if isinstance(result, np.ndarray):
            return BatchResult("done", ArrayType.of(result)), result
        plain, exact = describe_value(result, "the result")
    except BaseException as error:
        _forget_frames(error)
        return BatchResult("failed", error=error), None
    kind = None if dst is None else ArrayType.of(dst)
    return BatchResult("done", kind, plain, None if exact is None else {"result": exact}), dst


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of its causes: their frames keep all arrays of the batch alive."""
    found, seen = [error], {id(error)}
    for one in found:
        one.__traceback__ = None
        for cause in (one.__cause__, one.__context__):
            if cause is not None and id(cause) not in seen:
                seen.add(id(cause))
                found.append(cause)
