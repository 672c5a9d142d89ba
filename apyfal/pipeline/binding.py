"""The two ends of a job, one object for each input and output: what was given, and how it travels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.device.regions import BufferRegion, BufferRing
from apyfal.device.zero_copy import reason_to_copy
from apyfal.exceptions import CopyRefused, ParameterError
from apyfal.memory import charge, empty
from apyfal.pipeline.arrays import array_of, check_target, overlap, shape_of
from apyfal.pipeline.chunking import DEFAULT_MEMORY_LIMIT, Plan, PortPlan
from apyfal.pipeline.inputs import ArrayInput, CopiedInput, Input, ParallelRangeInput, StreamInput
from apyfal.pipeline.outputs import (
    ArrayOutput,
    CopiedOutput,
    FixedOutput,
    GrowingOutput,
    Output,
    PartsOutput,
    SinkOutput,
)
from apyfal.storage.endpoints.factory import Sink, Source, open_sink, open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from apyfal._core.device import Kernel
    from apyfal.definition.bound_call import BoundCall, CallInput, CallOutput
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.pipeline.report import Report

__all__ = ["InputBinding", "JobContext", "OutputBinding"]

_UNKNOWN = "the size of the output is known only after each run"


@dataclass(slots=True)
class JobContext:
    """What the ends of one job share.

    Attributes
    ----------
    stack
        Closes sources, and commits sinks when all has worked.
    copy
        Whether memory may be copied where it cannot be used in place.
    room
        Bytes of the device's memory that are left for this job; ``None``: as many as it needs.
    """

    card: DeviceContext
    call: BoundCall
    kernel: Kernel
    control: JobControl
    report: Report
    stack: ExitStack
    copy: bool
    room: int | None = field(init=False)

    def __post_init__(self) -> None:
        info = self.card.info
        # What cannot be cut has to be there as a whole, or the driver says that it does not fit.
        bounded = info["memory"] and "separate-memory" in info["capabilities"] and self.call.granularity is not None
        self.room = info["memory"] if bounded else None

    def reason_to_copy(self, name: str, array: NDArray[Any], *, written: bool) -> str | None:
        """Say why an array must be copied; refuse where the caller does not want that."""
        reason = reason_to_copy(array, self.card.info, written=written) or self._reason_of_room(array.nbytes)
        return None if reason is None else self.allow(name, reason)

    def _reason_of_room(self, nbytes: int) -> str | None:
        """Take an array's part of the device's memory, unless nothing would be left for the rings of others."""
        if self.room is None:
            return None
        memory = self.card.info["memory"]
        if nbytes > self.room - min(DEFAULT_MEMORY_LIMIT, memory // 2):
            return f"too large to be in the device's memory as a whole, which has {memory} bytes"
        self.room -= nbytes
        return None

    def allow(self, name: str, reason: str) -> str:
        """Return the reason of a copy as it is reported, or raise `CopyRefused`."""
        if not self.copy:
            raise CopyRefused(f"{name}: {reason}, and copy=False was given")
        return f"{name}: {reason}"


class InputBinding:
    """One input.

    Parameters
    ----------
    port
        Which.
    src, array
        What was given, and that as an array, where it is one.

    Attributes
    ----------
    array
        Where the data is, or ``None``: it is received.
    nbytes
        Of data; ``None``: not known before the end.
    """

    def __init__(self, port: CallInput, src: object, array: NDArray[Any] | None, around: JobContext) -> None:
        self.port = port
        self.array = array
        self._around = around
        self._source: Source | None = None
        self.nbytes: int | None
        if array is None:
            self._source = around.stack.enter_context(open_source(src))
            self.nbytes = self._source.size
        else:
            self.nbytes = array.nbytes
        self._reason: str | None = None

    def decide(self) -> PortPlan:
        """Decide between the array in place and a ring."""
        if self.array is not None:
            self._reason = self._around.reason_to_copy(self.port.name, self.array, written=False)
        ring = self._source is not None or self._reason is not None
        return PortPlan(self.port, self.nbytes, ring, 0 if self._source is None else self._source.connections)

    def make(self, plan: Plan, end: PortPlan) -> Input:
        """Return the input as the job reads it."""
        around, source, array = self._around, self._source, self.array
        device, bank = around.card.device, around.kernel.bank(self.port.index)
        # Whole inputs may differ in size; those that are cut have as many elements each.
        chunk = self.nbytes if plan.single and self.nbytes is not None else self.port.beside(plan.chunk)
        if source is not None:
            ring = BufferRing(around.control, device, bank, chunk, plan.depth(end))
            if source.connections and source.size is not None:
                return ParallelRangeInput(source, ring, plan.cut(self.port, source.size), around.report, around.control)
            return StreamInput(source, ring, chunk, around.report, around.control)
        if array is None:
            raise RuntimeError("an input has neither a source nor an array")
        if self._reason is None and array.nbytes:
            return ArrayInput(BufferRegion.over(array, device, bank, written=False), chunk)
        reason = self._reason or f"{self.port.name}: empty"
        if not array.flags.c_contiguous:  # put together in pinned memory: one copy, not one before the ring's
            together = empty(array.shape, array.dtype)
            together[...] = array
            around.report.copied(together.nbytes, reason)
            return ArrayInput(BufferRegion.over(together, device, bank, written=False), chunk)
        return CopiedInput(
            array, BufferRing(around.control, device, bank, chunk, plan.depth()), chunk, around.report, reason
        )


class OutputBinding:
    """One output.

    Parameters
    ----------
    port
        Which.
    dst
        What was given; ``None``: a new array is made.
    origins
        The job's inputs, opened.
    """

    def __init__(self, port: CallOutput, dst: object, origins: Sequence[InputBinding], around: JobContext) -> None:
        self.port = port
        self._dst = dst
        self._around = around
        first = origins[0] if origins else None
        total = first.nbytes if first is not None else 0
        self._size = port.nbytes(0) if port.fixed is not None else None if total is None else port.nbytes(total)
        self._sink: Sink | None = None
        self._reason: str | None = None
        self._output: Output | None = None
        given = None if dst is None else array_of(dst)
        self.array: NDArray[Any] | None = None  # the caller's, or a new one where the output's size is known
        if given is not None:
            self.array = check_target(port, given, self._size)
        elif dst is not None:
            self._sink = around.stack.enter_context(open_sink(dst, self._size))
        elif self._size is not None:
            charge(self._size)
            self.array = empty(shape_of(port, self._size, None if first is None else first.array), port.dtype)
        if self.array is not None:
            self._reason = around.reason_to_copy(port.name, self.array, written=True)
            for origin in origins:
                if overlap(origin.array, self.array):
                    raise ParameterError(
                        f"{origin.port.name} and {port.name} overlap; expected the same memory or none in common"
                    )
            if self._size is None and total:
                self._reason = self._reason or around.allow(port.name, _UNKNOWN)

    def collides(self, other: OutputBinding) -> bool:
        """Whether two outputs would have memory, or their place in the storage, in common."""
        if self.array is not None and other.array is not None:
            return np.shares_memory(self.array, other.array)
        return self._sink is not None and other._sink is not None and self._dst == other._dst

    def end(self) -> PortPlan:
        """Say whether it goes through a ring."""
        ring = self.port.fixed is None and (self.array is None or self._reason is not None)
        return PortPlan(self.port, None, ring, 0 if self._sink is None else self._sink.connections)

    def make(self, plan: Plan, end: PortPlan) -> Output:
        """Return the output as the job writes it."""
        self._output = self._make(plan, end)
        return self._output

    def _make(self, plan: Plan, end: PortPlan) -> Output:
        around, port, array, sink = self._around, self.port, self.array, self._sink
        device, bank = around.card.device, around.kernel.bank(port.index)
        in_place = array is not None and self._reason is None and array.nbytes
        if port.fixed is not None:
            if array is not None and in_place:
                return FixedOutput(BufferRegion.over(array, device, bank, written=True), port.fixed)
            return FixedOutput(BufferRegion.new(port.fixed, device, bank), port.fixed)
        if array is not None and in_place:
            return ArrayOutput(BufferRegion.over(array, device, bank, written=True), port)
        room = port.room(plan.chunk)
        if sink is not None:
            ring = BufferRing(around.control, device, bank, room, plan.depth(end))
            if sink.connections and self._size and not plan.single:
                return PartsOutput(sink, ring, port, self._size, around.report, around.control)
            return SinkOutput(sink, ring, around.report)
        if array is not None:
            ring = BufferRing(around.control, device, bank, room, plan.depth())
            return CopiedOutput(port.name, array, ring, around.report, self._reason or f"{port.name}: empty")
        ring = BufferRing(around.control, device, bank, room, plan.depth() + 1)  # the first slot becomes the result
        return GrowingOutput(ring, around.report, f"{port.name}: {_UNKNOWN}")

    def result(self) -> Any:
        """Bring the last bytes to their place, and return what the caller gets: an array, result parameters or none."""
        if self._output is None:
            raise RuntimeError("the result of an output that was not made")
        around, array = self._around, self.array
        data = self._output.result()
        if self.port.fixed is not None and data is not None:
            if self._sink is not None:
                self._sink.write(data.data)
            elif array is not None and not np.shares_memory(array, data):
                array.reshape(-1).view(np.uint8)[...] = data
                around.report.copied(len(data), f"{self.port.name}: not usable in place")
        if around.call.definition.finish is not None and data is not None:
            return around.call.finish(data.view(self.port.dtype))
        if self._sink is not None:
            return None
        if array is not None:
            return self._dst if isinstance(self._dst, np.ndarray) else array
        return None if data is None else data.view(self.port.dtype)
