"""Run the small jobs of a batch: each has its own source, output and error; all share one place in the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from apyfal.exceptions import ParameterError, RunCancelled
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import BatchRun
from apyfal.host.protocol.values import describe_value, require_short
from apyfal.host.server.jobs.job import BatchResult, Job
from apyfal.host.server.jobs.sessions import LocalAccelerator
from apyfal.host.server.transport.bodies import Data

__all__ = ["BatchTask", "RunTasks", "run_batch", "run_one_by_one"]


class BatchTask:
    """One job of a batch, and what receives its end, as a `concurrent.futures.Future` does.

    Attributes
    ----------
    src, dst, keywords
        The arguments of `process`.
    result, error
        What the job returned or raised.
    """

    __slots__ = ("_done", "dst", "error", "keywords", "result", "src")

    def __init__(self, src: object, dst: object, keywords: dict[str, Any]) -> None:
        self.src = src
        self.dst = dst
        self.keywords = keywords
        self.result: Any = None
        self.error: BaseException | None = None
        self._done = False

    def set_result(self, result: Any) -> None:
        """End the job with a result."""
        self.result = result
        self._done = True

    def set_exception(self, error: BaseException) -> None:
        """End the job with an error."""
        self.error = error
        self._done = True

    def set_running_or_notify_cancel(self) -> bool:
        """Return that the job was not cancelled: the batch as a whole may be."""
        return True

    def cancel(self) -> bool:
        """Return that the job is not cancelled."""
        return False

    def done(self) -> bool:
        """Return whether the job has ended."""
        return self._done


#: (accelerator, tasks): runs all tasks and sets their futures
RunTasks = Callable[[LocalAccelerator, list[BatchTask]], None]


def run_one_by_one(accelerator: LocalAccelerator, tasks: list[BatchTask]) -> None:
    """Run the jobs of a batch one after the other."""
    for task in tasks:
        try:
            task.set_result(accelerator.process(task.src, task.dst, **task.keywords))
        except Exception as error:
            task.set_exception(error)


def run_batch(
    job: Job,
    accelerator: LocalAccelerator,
    allocate: Callable[[ArrayType], np.ndarray[Any, Any]],
    run_tasks: RunTasks,
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
    run_tasks
        Runs the tasks.
    keywords
        Of `process`, for all of them.
    info
        Receives how many jobs there were.
    """
    runs = job.spec.batch or ()
    count = info["jobs"] = sum(run.count for run in runs)
    # Results of several outputs do not fit into one body, nor do arrays that are written in part.
    if len(accelerator.outputs) != 1 or (accelerator.reports_size and any(run.dst is not None for run in runs)):
        job.batch = [BatchResult("alone")] * count
        return
    if job.data is None or job.data.array is None:
        raise ParameterError("src: the request had no body")
    if job.cancelled:
        raise RunCancelled("the job was cancelled")
    tasks = list(_tasks(job.data.array, runs, dict(keywords), allocate))
    run_tasks(accelerator, tasks)
    results = [_result(task) for task in tasks]
    arrays = [array for task in tasks if (array := _output(task)) is not None]
    if arrays:
        require_short([[one.result, one.exact] for one in results if one.result is not None], "the results")
        job.output = Data(array=arrays[0], more=arrays[1:])
    job.batch = results


def _tasks(
    body: np.ndarray[Any, Any],
    runs: tuple[BatchRun, ...],
    keywords: dict[str, Any],
    allocate: Callable[[ArrayType], np.ndarray[Any, Any]],
) -> Iterator[BatchTask]:
    start = 0
    for run in runs:
        for _ in range(run.count):
            end = start + run.src.nbytes
            # a copy: a view may begin at an address that is not aligned for its type
            piece = body[start:end]
            aligned = piece if piece.ctypes.data % run.src.dtype.alignment == 0 else piece.copy()
            src = aligned.view(run.src.dtype).reshape(run.src.shape)
            yield BatchTask(src, None if run.dst is None else allocate(run.dst), keywords)
            start = end


def _output(task: BatchTask) -> np.ndarray[Any, Any] | None:
    """Return the array that the client receives. With result parameters, it is the client's array if there is one."""
    if task.error is not None:
        return None
    if isinstance(task.result, np.ndarray):
        return task.result
    return task.dst if isinstance(task.dst, np.ndarray) else None


def _result(task: BatchTask) -> BatchResult:
    if task.error is not None:
        return BatchResult("failed", error=task.error)
    if isinstance(task.result, np.ndarray):
        return BatchResult("done", ArrayType.of(task.result))
    try:
        result, exact = describe_value(task.result, "the result")
    except ParameterError as error:
        task.error = error
        return BatchResult("failed", error=error)
    array = _output(task)
    kind = None if array is None else ArrayType.of(array)
    return BatchResult("done", kind, result, None if exact is None else {"result": exact})
