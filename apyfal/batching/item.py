"""One small job of a group: its data into the group's memory, its output from there to where it goes."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import TransferCancelled
from apyfal.memory import empty
from apyfal.pipeline.arrays import array_of, check_target, shape_of
from apyfal.storage import transfer
from apyfal.storage.endpoints.factory import open_sink, source_at
from apyfal.storage.mounting import table
from apyfal.storage.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from apyfal.batching.packing import Packer, Place
    from apyfal.definition.bound_call import BoundCall
    from apyfal.device.regions import BufferRegion
    from apyfal.jobs.queue import Task
    from apyfal.pipeline.report import Report

__all__ = ["BatchItem"]


class _NoPlace(Exception):
    """An object does not fit into the group's memory."""


class BatchItem:
    """One job, with what became of it. What goes wrong with its data is the job's result, not an error of a method.

    Attributes
    ----------
    task
        The job.
    array
        Its source, where that is one.
    is_stored
        Whether its output goes into a file or an object.
    place
        Where its data is; ``None``: nowhere, it has to run alone.
    arrived
        Whether its source was read.
    produced
        Bytes of its output, which are at the front of its place.
    ended
        Whether its result or error is there.
    """

    __slots__ = ("_copied", "_error", "_result", "array", "arrived", "ended", "is_stored", "place", "produced", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.array = None if isinstance(task.src, (str, PathLike)) else array_of(task.src)
        self.is_stored = task.dst is not None and not isinstance(task.dst, np.ndarray)
        self.place: Place | None = None
        self.arrived = False
        self.produced = 0
        self.ended = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._copied: list[tuple[str, int]] = []

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        self._error = error
        self.ended = True

    def pack(self, array: NDArray[Any], layout: Packer, inputs: BufferRegion) -> None:
        """Copy the job's array to its place."""
        self.place = place = layout.place(array.nbytes)
        if place is None:
            return
        memory = inputs.bytes[place.start : place.start + place.nbytes]
        if array.flags.c_contiguous:
            memory[...] = flat_bytes(array)
        else:
            memory.view(array.dtype).reshape(array.shape)[...] = array
        self._copied.append(("src", place.nbytes))

    def receive(self, layout: Packer, inputs: BufferRegion) -> None:
        """Receive the job's file or object at its place."""

        def allocate(nbytes: int) -> memoryview:
            place = layout.place(nbytes)
            if place is None or self.place is not None:  # too large, or larger than its store said
                raise _NoPlace
            self.place = place
            return inputs.bytes[place.start : place.start + nbytes].data

        try:
            received = _receive(self.task.src, allocate)
            if self.place is not None and self.place.nbytes != received:
                self.place = None
            self.arrived = True
        except _NoPlace:
            self.place = None
            self.arrived = True
        except TransferCancelled:
            self.place = None  # the whole group ends, and says why
        except BaseException as error:
            self.fail(error)

    def deliver(self, call: BoundCall, output: BufferRegion) -> None:
        """Make the job's result of its output."""
        if self.place is None:
            return
        data = output.bytes[self.place.out_start : self.place.out_start + self.produced]
        try:
            if self.is_stored:
                with open_sink(self.task.dst, len(data)) as sink:
                    sink.write(data.data)
            else:
                self._result = self._made(call, data)
        except TransferCancelled:
            return  # the whole group ends, and says why
        except BaseException as error:
            self._error = error
        self.ended = True

    def _made(self, call: BoundCall, data: NDArray[np.uint8]) -> Any:
        """Return what `process` would."""
        if call.definition.finish is not None:
            return call.finish(data.view(call.outputs[0].dtype))
        target = self.task.dst
        if isinstance(target, np.ndarray):
            check_target(call.outputs[0], target, len(data))
            target[...] = data.view(target.dtype).reshape(target.shape)
        else:  # not a view: one result that is kept would keep the memory of all
            target = empty(shape_of(call.outputs[0], len(data), self.array), call.outputs[0].dtype)
            flat_bytes(target)[...] = data
        self._copied.append(("dst", len(data)))
        return target

    def settle(self, report: Report, *, device: str, driver: str) -> None:
        """Give the job's promise what it ended with, and its ``info_dict`` what was done for it and the others."""
        info = self.task.keywords.get("info_dict")
        if info is not None:
            nbytes = 0 if self.place is None else self.place.nbytes
            own = report.of_one(nbytes, 0 if self._error is not None else self.produced)
            for name, count in self._copied:
                own.copied(count, f"{name}: small, and packed with others into one transfer")
            own.fill(info, device=device, driver=driver)
        if self._error is not None:
            self.task.promise.set_exception(self._error)
        else:
            self.task.promise.set_result(self._result)


def _receive(src: object, allocate: Callable[[int], memoryview]) -> int:
    """Receive all of a file or an object, in one request where its store allows that; returns how many bytes."""
    location = parse(src)
    if not location.is_local:
        with table.resolve(location) as target:
            return transfer.download(target.handler, target.path, None, allocate=allocate).size or 0
    with source_at(location) as source:
        if source.size is None:
            raise _NoPlace
        memory = allocate(source.size)
        done = 0
        while done < len(memory) and (count := source.readinto(memory[done:])):
            done += count
        return done
