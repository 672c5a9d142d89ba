"""Small jobs of a remote accelerator, submitted as one job: their arrays follow each other in one body."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from apyfal.exceptions import AcceleratorException, HostError, ParameterError
from apyfal.host.client.local_files import Readable
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import BatchGroup, JobSpec, SourceSpec, error_from
from apyfal.host.protocol.values import value_of
from apyfal.jobs.queue import Task
from apyfal.memory import empty, plain_array

__all__ = ["BatchPayload", "split"]


def split(tasks: list[Task]) -> tuple[list[Task], list[Task]]:
    """Return the tasks that can be in one batch, and those that run alone: those with files, URLs or a report."""
    together: list[Task] = []
    alone: list[Task] = []
    for task in tasks:
        (together if _is_small(task) else alone).append(task)
    return together, alone


def _is_small(task: Task) -> bool:
    if not isinstance(task.src, np.ndarray) or any(task.keywords.get(name) for name in ("memory_limit", "report")):
        return False
    if "info_dict" in task.keywords:
        return False
    if task.dst is None:
        return True
    dst = task.dst
    return isinstance(dst, np.ndarray) and dst.flags.writeable and dst.flags.c_contiguous and dst.nbytes > 0


class BatchPayload:
    """Several small jobs, as the source and the destination of one submission.

    Parameters
    ----------
    tasks
        The jobs, of one batch key, with arrays.

    Attributes
    ----------
    length
        Bytes of all sources.
    largest_nbytes
        Bytes of the largest source or output.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = tasks
        self._sources = [np.ascontiguousarray(plain_array(task.src)) for task in tasks]  # type: ignore[arg-type]  # arrays
        self._groups: list[BatchGroup] = []
        self.length = 0
        self.largest_nbytes = 1
        self._results: list[Any] = []
        last: tuple[object, ...] = ()
        kind, dst = ArrayType.of(self._sources[0]), None
        for task, source in zip(tasks, self._sources, strict=True):
            target = task.dst if isinstance(task.dst, np.ndarray) else None
            shape = task.src.shape if isinstance(task.src, np.ndarray) else source.shape
            mark = (source.dtype, shape, None if target is None else (target.dtype, target.shape))
            if mark == last:
                self._groups[-1] = BatchGroup(self._groups[-1].count + 1, kind, dst)
            else:
                # numpy gives a scalar's array a shape of one element
                kind = ArrayType(ArrayType.of(source).dtype, shape)
                dst = None if target is None else ArrayType.of(target)
                self._groups.append(BatchGroup(1, kind, dst))
                last = mark
            self.length += source.nbytes
            self.largest_nbytes = max(self.largest_nbytes, source.nbytes)

    def spec(self, parameters: Mapping[str, Any], timeout: float | None) -> JobSpec:
        """Describe all jobs as one."""
        body = SourceSpec(body=True, array=ArrayType(np.dtype(np.uint8), (self.length,)))
        return JobSpec(src=body, parameters=parameters, timeout=timeout, batch=tuple(self._groups))

    def pieces(self) -> list[memoryview]:
        """Return the arrays' memory."""
        return [source.reshape(-1).view(np.uint8).data for source in self._sources]

    def receive(self, response: Readable | None, document: dict[str, Any]) -> None:
        """Receive all outputs, each at its final address."""
        self._results = []
        for task, described in zip(self._tasks, _each(document), strict=False):
            result = value_of(described, "result")
            output = described.get("output")
            if output is None and described.get("state") == "done" and task.dst is not None:
                raise HostError("the jobs ran, but the host, which is an older version, did not send their arrays")
            if output is not None:
                if response is None:
                    raise HostError("the jobs ran, but the host does not have their outputs any more")
                array = self._place(task, ArrayType.parse(output, "the response"))
                if array.nbytes:
                    response.readinto(array.reshape(-1).view(np.uint8).data)
                self.largest_nbytes = max(self.largest_nbytes, array.nbytes)
                result = array if result is None else result
            self._results.append(result)

    @staticmethod
    def _place(task: Task, kind: ArrayType) -> np.ndarray[Any, Any]:
        if not isinstance(task.dst, np.ndarray):
            return empty(kind.shape, kind.dtype)
        if task.dst.nbytes != kind.nbytes:
            raise HostError(f"the host sent {kind.nbytes} bytes for an array of {task.dst.nbytes}")
        return task.dst

    def settle(self, document: dict[str, Any], failure: Callable[[], AcceleratorException | None]) -> list[Task]:
        """Set the results and errors of all jobs; return those that have to run alone.

        Parameters
        ----------
        document
            The batch as the host describes it.
        failure
            Returns why the batch as a whole has no results; ``None``: it has.
        """
        again = []
        if failure() is not None:
            for task in self._tasks:
                task.future.set_exception(failure() or HostError("the batch failed"))
            return []
        each = list(itertools.islice(_each(document), len(self._tasks) + 1))
        if len(each) != len(self._tasks):
            raise HostError(f"the host has results of {len(each)} jobs: expected {len(self._tasks)}")
        # backwards: a reader of results in order is woken once, by the first
        for number in range(len(each) - 1, -1, -1):
            task, described = self._tasks[number], each[number]
            if described["state"] == "alone":
                again.append(task)
            elif described["state"] == "done":
                # what was received into the caller's array is what the caller gave
                task.future.set_result(self._results[number])
            else:
                task.future.set_exception(error_from(described.get("error")))
        return again[::-1]


def _each(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the host says of each job of a batch."""
    try:
        for group in document["batch"]:
            for _ in range(int(group["count"])):
                yield group
    except (KeyError, TypeError, ValueError, ParameterError):
        raise HostError("the host's answer to a batch is malformed") from None
