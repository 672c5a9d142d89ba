"""One small job of a batch: moves its data into the batch's input buffer, and its output out of the output buffer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from apyfal.definition.types.composite import view_of
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import ParameterError, TransferCancelled
from apyfal.pipeline.arrays import (
    CONVERTED,
    check_target,
    check_whole_elements,
    element_shape,
    new_array,
    shape_of,
    source_array,
)
from apyfal.pipeline.reports.job_report import JobReport
from apyfal.storage import transfer
from apyfal.storage.endpoints.factory import open_sink, source_at
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.mounting import table
from apyfal.storage.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from apyfal.batching.packing import BatchSlot, Packer
    from apyfal.definition.bound_call import BoundCall
    from apyfal.device.regions import BufferRegion
    from apyfal.pipeline.reports.report import Report
    from apyfal.storage.handler import Handler, RangeReader

__all__ = ["BatchItem", "Batchable", "ResultTarget"]


class ResultTarget(Protocol):
    """What receives the end of a job: a `concurrent.futures.Future`, or a stand-in."""

    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Batchable(Protocol):
    """A job that can be in a batch: the arguments of `apyfal.Accelerator.process`, and the future of its result."""

    @property
    def future(self) -> ResultTarget: ...
    @property
    def src(self) -> object: ...
    @property
    def dst(self) -> object: ...
    @property
    def keywords(self) -> dict[str, Any]: ...


class _NoPlace(Exception):
    """An object does not fit into the batch."""


class BatchItem:
    """One job, and its state. Errors of its data become the job's result; the methods do not raise them.

    Parameters
    ----------
    task
        The job.

    Attributes
    ----------
    array
        The source, if it is an array.
    is_stored
        Whether the output goes to a file or an object of a store.
    place
        Where its data is in the batch; ``None``: nowhere, so the job has to run alone.
    arrived
        Whether its source has been read.
    produced
        Bytes of output, at the beginning of the output's place.
    ended
        Whether it has a result or an error.
    """

    __slots__ = (
        "_converted",
        "_copied",
        "_error",
        "_result",
        "array",
        "arrived",
        "ended",
        "is_stored",
        "place",
        "produced",
        "task",
    )

    def __init__(self, task: Batchable) -> None:
        self.task = task
        self.array, is_converted = source_array(task.src)
        self.is_stored = task.dst is not None and not isinstance(task.dst, np.ndarray)
        self.place: BatchSlot | None = None
        self.arrived = False
        self.produced = 0
        self.ended = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._copied: list[tuple[str, int]] = []
        self._converted = self.array.nbytes if self.array is not None and is_converted else 0

    def fail(self, error: BaseException) -> None:
        """End the job with an error."""
        self._error = error
        self.ended = True

    def pack(self, array: NDArray[Any], packer: Packer, inputs: BufferRegion) -> None:
        """Copy the job's array to its place."""
        self.place = place = packer.place(array.nbytes)
        if place is None:
            return
        memory = inputs.bytes[place.start : place.start + place.nbytes]
        if array.flags.c_contiguous:
            memory[...] = flat_bytes(array)
        else:
            memory.view(array.dtype).reshape(array.shape)[...] = array
        self._copied.append(("src", place.nbytes))

    def take(
        self, data: memoryview | None, packer: Packer, inputs: BufferRegion, room: BatchSlot | None = None
    ) -> None:
        """Copy the job's object, which was received elsewhere, to its place in the batch; ``None``: it is empty.

        `room` is a place that was reserved for it.
        """
        self.place = place = packer.place(0 if data is None else len(data), room)
        if place is not None and data is not None:
            inputs.bytes[place.start : place.start + place.nbytes] = data
            self._copied.append(("src", place.nbytes))
        self.arrived = True

    def take_placed(self, place: BatchSlot) -> None:
        """Accept the job's object, which was received at a place in the batch."""
        self.place = place
        self.arrived = True

    def receive(
        self,
        packer: Packer,
        inputs: BufferRegion,
        first: Callable[[Handler, str], RangeReader] | None = None,
        options: TransferOptions | None = None,
        room: BatchSlot | None = None,
    ) -> None:
        """Receive the job's file or object at its place in the batch.

        `first`, if given, replaces the first attempt: it returns a response that has been received already. `room` is a
        place that was reserved for it.
        """

        def allocate(nbytes: int) -> memoryview:
            place = packer.place(nbytes, room)
            if place is None or self.place is not None:  # too large, or larger than the store stated before
                raise _NoPlace
            self.place = place
            return inputs.bytes[place.start : place.start + nbytes].data

        try:
            received = _receive(self.task.src, allocate, first, options or TransferOptions())
            if self.place is not None and self.place.nbytes != received:
                self.place = None
            self.arrived = True
        except _NoPlace:
            self.place = None
            self.arrived = True
        except TransferCancelled:
            self.place = None  # the whole batch ends, with an error of its own
        except BaseException as error:
            self.fail(error)

    def output(self, output: BufferRegion) -> NDArray[np.uint8]:
        """Return the bytes of the job's output within the batch's output; the job has a `place`."""
        if self.place is None:
            raise ValueError("the job has no place in the batch")
        return output.bytes[self.place.out_start : self.place.out_start + self.produced]

    def deliver(self, call: BoundCall, output: BufferRegion) -> None:
        """Turn the output into the job's result, or store it."""
        if self.place is None:
            return
        data = self.output(output)
        try:
            if self.is_stored:
                with open_sink(self.task.dst, len(data)) as sink:
                    sink.write(data.data)
            else:
                self._result = self._result_of(call, data)
        except TransferCancelled:
            return  # the whole batch ends, with an error of its own
        except BaseException as error:
            self._error = error
        self.ended = True

    def _result_of(self, call: BoundCall, data: NDArray[np.uint8]) -> Any:
        """Return what `apyfal.Accelerator.process` would return."""
        if call.make_result is not None:
            return call.result_of(view_of(data, call.outputs[0].dtype))
        check_whole_elements(call.outputs[0], len(data))
        target = self.task.dst
        if isinstance(target, np.ndarray):
            self._fill(call, target, data)
        else:  # a copy, because a view would keep the memory of the complete batch alive
            shape = None if self.array is None else element_shape(self.array, call.outputs[0].first)
            target = new_array(call.outputs[0], shape_of(call.outputs[0], len(data), shape))
            flat_bytes(target)[...] = data
        self._copied.append(("dst", len(data)))
        return target

    @staticmethod
    def _fill(call: BoundCall, target: NDArray[Any], data: NDArray[np.uint8]) -> None:
        """Copy the output into the caller's array, or to its beginning if the kernel reports how much it writes."""
        port = call.outputs[0]
        check_target(port, target, None if port.size_reported else len(data))
        if not port.size_reported:
            target[...] = data.view(target.dtype).reshape(target.shape)
            return
        if len(data) > target.nbytes:
            raise ParameterError(f"{port.name}: it has {target.nbytes} bytes, and the output has more")
        elements = data.view(target.dtype)
        target.flat[: len(elements)] = elements

    def settle(self, report: Report, *, device: str, driver: str) -> None:
        """Set the job's future, and fill its ``info_dict``."""
        info, wants_report = self.task.keywords.get("info_dict"), self.task.keywords.get("report") is True
        if info is None and wants_report:
            info = {}
        if info is not None:
            nbytes = 0 if self.place is None else self.place.nbytes
            own = report.of_one(nbytes, 0 if self._error is not None else self.produced)
            if self._converted:
                own.copied(self._converted, f"src: {CONVERTED}")
            for name, count in self._copied:
                own.copied(count, f"{name}: small, and packed with others into one transfer")
            own.fill(info, device=device, driver=driver)
        if self._error is not None:
            self.task.future.set_exception(self._error)
        else:
            result = JobReport.of(self._result, info) if wants_report and info is not None else self._result
            self.task.future.set_result(result)


def _receive(
    src: object,
    allocate: Callable[[int], memoryview],
    first: Callable[[Handler, str], RangeReader] | None,
    options: TransferOptions,
) -> int:
    """Receive all of a file or object, in one request if its store allows that; return how many bytes."""
    location = parse(src)
    if not location.is_local:
        with table.resolve(location) as target:
            target.require_object("read")
            handler, path = target.handler, target.path
            attempt = None if first is None else partial(first, handler, path)
            info = transfer.download(handler, path, None, allocate=allocate, options=options, first=attempt)
            return info.size or 0
    with source_at(location) as source:
        if source.size is None:
            raise _NoPlace
        memory = allocate(source.size)
        done = 0
        while done < len(memory) and (count := source.readinto(memory[done:])):
            done += count
        return done
