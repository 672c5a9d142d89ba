"""Bind a job's sources and destinations to its inputs and outputs, and decide how each of them moves."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.definition.types.composite import view_of
from apyfal.device.regions import BufferRegion, BufferRing
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.zero_copy import MAY_WRITE, reason_to_copy
from apyfal.exceptions import CopyRefused, ParameterError
from apyfal.memory import charge, empty
from apyfal.pipeline.arrays import (
    array_of,
    check_target,
    check_type_and_size,
    check_whole_elements,
    element_shape,
    new_array,
    overlap,
    shape_of,
)
from apyfal.pipeline.chunking import DEFAULT_MEMORY_LIMIT, ChunkPlan, PortPlan
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
    from apyfal.pipeline.reports.report import Report

__all__ = ["InputBinding", "JobContext", "OutputBinding"]

_SIZE_UNKNOWN = "the size of the output is known only after each run"


@dataclass(slots=True)
class JobContext:
    """What the inputs and outputs of one job share.

    Attributes
    ----------
    context
        The device.
    call, kernels
        What is run there: the first kernel reads the inputs, the last one writes the outputs.
    control, report
        Of the job.
    stack
        Closes sources, and puts destinations in place if all has worked.
    copy
        Whether memory may be copied if it cannot be used in place.
    device_memory
        Bytes of the device's own memory that are left for this job; ``None``: there is no limit to watch.
    """

    context: DeviceContext
    call: BoundCall
    kernels: tuple[Kernel, ...]
    control: JobControl
    report: Report
    stack: ExitStack
    copy: bool
    device_memory: int | None = field(init=False)

    def __post_init__(self) -> None:
        info = self.context.info
        # An input that cannot be cut must fit as a whole; if it does not, the driver's own error says so.
        limited = info["memory"] and "separate-memory" in info["capabilities"] and self.call.granularity is not None
        self.device_memory = info["memory"] if limited else None

    def reason_to_copy(self, name: str, array: NDArray[Any], *, written: bool) -> str | None:
        """Return why an array must be copied, with its `name`; ``None``: it is used in place.

        Raises
        ------
        CopyRefused
            It must be copied, and the job has ``copy=False``.
        """
        reason = reason_to_copy(array, self.context.info, written=written) or self._reserve(array.nbytes)
        return None if reason is None else self.allow(name, reason)

    def _reserve(self, nbytes: int) -> str | None:
        """Reserve device memory for an array in place; return why not, if too little would be left for the rings."""
        if self.device_memory is None:
            return None
        memory = self.context.info["memory"]
        if nbytes > self.device_memory - min(DEFAULT_MEMORY_LIMIT, memory // 2):
            return f"too large to be in the device's memory as a whole, which has {memory} bytes"
        self.device_memory -= nbytes
        return None

    def allow(self, name: str, reason: str) -> str:
        """Return the reason of a copy as it is reported; raise `CopyRefused` if the job has ``copy=False``."""
        if not self.copy:
            raise CopyRefused(f"{name}: {reason}, and copy=False was given")
        return f"{name}: {reason}"


class InputBinding:
    """One input, and where its data comes from.

    Parameters
    ----------
    port
        The input.
    src
        The caller's source.
    array
        `src` as an array; ``None``: it is a device array, or a URL, path or file object, which is opened here.
    job
        What the job's inputs and outputs share.

    Attributes
    ----------
    nbytes
        Bytes of data; ``None``: known only at the end.
    resident
        The source, if it is a device array.
    """

    def __init__(self, port: CallInput, src: object, array: NDArray[Any] | None, job: JobContext) -> None:
        self.port = port
        self.array = array
        self.resident = src if isinstance(src, DeviceArray) else None
        self._job = job
        self._source: Source | None = None
        self._region: BufferRegion | None = None
        self.nbytes: int | None
        if self.resident is not None:
            self._region = job.context.region_of(self.resident, port.name, job.kernels[0].bank(port.index))
            self.nbytes = self.resident.nbytes
        elif array is None:
            self._source = job.stack.enter_context(open_source(src))
            self.nbytes = self._source.size
        else:
            self.nbytes = array.nbytes
        self._reason: str | None = None

    def plan(self) -> PortPlan:
        """Decide whether the array is used in place, or the data goes through a ring."""
        if self._region is not None:
            return PortPlan(self.port, self.nbytes, ring=False, connections=0, resident=True)
        if self.array is not None:
            job, name = self._job, self.port.name
            if job.kernels[0].may_write(self.port.index) and not self.port.changed:
                self._reason = job.allow(name, MAY_WRITE)
            else:
                self._reason = job.reason_to_copy(name, self.array, written=False)
        ring = self._source is not None or self._reason is not None
        return PortPlan(self.port, self.nbytes, ring, 0 if self._source is None else self._source.connections)

    @property
    def in_place(self) -> bool:
        """Whether the device reads the caller's array, once `plan` has decided."""
        return self.is_direct and self._reason is None

    @property
    def is_direct(self) -> bool:
        """Whether a `DirectCall` can take arrays of this kind: in place, or copied as a whole."""
        array = self.array
        return array is not None and array.nbytes > 0 and (self._reason is None or array.flags.c_contiguous)

    @property
    def copied_nbytes(self) -> int:
        """Bytes of the caller's array that are not used in place."""
        return 0 if self.array is None or self.in_place else self.array.nbytes

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the data; ``None``: it has none, as files."""
        source = self.array if self.resident is None else self.resident
        return None if source is None else element_shape(source, self.port.dtype)

    def make(self, plan: ChunkPlan, port_plan: PortPlan) -> Input:
        """Return the input that the stages read."""
        job, source, array = self._job, self._source, self.array
        device, bank = job.context.device, job.kernels[0].bank(self.port.index)
        # Inputs that are not cut may differ in size; chunks of inputs that are cut have as many elements each.
        uncut = plan.single and self.nbytes is not None
        chunk_nbytes = self.nbytes if uncut and self.nbytes is not None else self.port.companion_nbytes(plan.chunk)
        if self._region is not None:
            return ArrayInput(self._region, chunk_nbytes)
        if source is not None:
            ring = BufferRing(job.control, device, bank, chunk_nbytes, plan.depth(port_plan))
            if source.connections and source.size is not None:
                return ParallelRangeInput(source, ring, plan.cut(self.port, source.size), job.report, job.control)
            return StreamInput(source, ring, chunk_nbytes, job.report, job.control)
        if array is None:
            raise RuntimeError("an input has neither a source nor an array")
        if self.in_place:
            return ArrayInput(BufferRegion.over(array, device, bank, written=False), chunk_nbytes)
        reason = self._reason or f"{self.port.name}: empty"
        if not array.flags.c_contiguous:  # made contiguous in pinned memory: through a ring it would be copied twice
            contiguous = empty(array.shape, array.dtype)
            contiguous[...] = array
            job.report.copied(contiguous.nbytes, reason)
            return ArrayInput(BufferRegion.over(contiguous, device, bank, written=False), chunk_nbytes)
        ring = BufferRing(job.control, device, bank, chunk_nbytes, plan.depth())
        return CopiedInput(array, ring, chunk_nbytes, job.report, reason)


class OutputBinding:
    """One output, and where its data goes.

    Parameters
    ----------
    port
        The output.
    dst
        The caller's destination; ``None``: a new array is made.
    inputs
        All inputs of the job.
    job
        What the job's inputs and outputs share.

    Attributes
    ----------
    array
        The caller's array, or a new one if the size of the output is known; otherwise ``None``.

    Raises
    ------
    ParameterError
        The caller's array has a wrong size or type, is read-only, or overlaps with an input; or it is a device array,
        and the size of the output is not known.
    """

    def __init__(self, port: CallOutput, dst: object, inputs: Sequence[InputBinding], job: JobContext) -> None:
        self.port = port
        self._dst = dst
        self._job = job
        first = inputs[0] if inputs else None
        total = first.nbytes if first is not None else 0
        self._size = port.nbytes(0) if port.fixed_nbytes is not None else None if total is None else port.nbytes(total)
        self._sink: Sink | None = None
        self._reason: str | None = None
        self._output: Output | None = None
        self.resident = dst if isinstance(dst, DeviceArray) else None
        self._region: BufferRegion | None = None
        target = None if dst is None or self.resident is not None else array_of(dst, written=True)
        self.array: NDArray[Any] | None = None
        if self.resident is not None:
            if self._size is None:
                raise ParameterError(
                    f"{port.name}: a device array, and the size of the output is not known before the job has ended; "
                    "expected an array of the host, a URL, a path or a file object"
                )
            check_type_and_size(port, self.resident, self._size)
            self._region = job.context.region_of(self.resident, port.name, job.kernels[-1].bank(port.index))
        elif target is not None:
            self.array = check_target(port, target, self._size)
        elif dst is not None:
            self._sink = job.stack.enter_context(open_sink(dst, self._size))
        elif self._size is not None:
            charge(self._size)
            self.array = new_array(port, shape_of(port, self._size, None if first is None else first.shape))
        if self.array is not None:
            self._reason = job.reason_to_copy(port.name, self.array, written=True)
            for binding in inputs:
                if overlap(binding.array, self.array):
                    raise ParameterError(
                        f"{binding.port.name} and {port.name} overlap; expected the same memory or none in common"
                    )
            if port.size_reported:
                self._reason = self._reason or job.allow(port.name, _SIZE_UNKNOWN)

    def collides(self, other: OutputBinding) -> bool:
        """Return whether two outputs share memory, or have the same destination in a store."""
        if self.resident is not None:
            return self.resident is other.resident
        if self.array is not None and other.array is not None:
            return np.shares_memory(self.array, other.array)
        return self._sink is not None and other._sink is not None and self._dst == other._dst

    def plan(self) -> PortPlan:
        """Decide whether the array is used in place, or the data goes through a ring."""
        if self._region is not None:
            return PortPlan(self.port, None, ring=False, connections=0, resident=True)
        ring = self.port.fixed_nbytes is None and (self.array is None or self._reason is not None)
        return PortPlan(self.port, None, ring, 0 if self._sink is None else self._sink.connections)

    @property
    def in_place(self) -> bool:
        """Whether the device writes to `array`."""
        return self.array is not None and self._reason is None and self.array.nbytes > 0

    @property
    def is_direct(self) -> bool:
        """Whether a `DirectCall` can take arrays of this kind: in place, or copied as a whole."""
        if self.in_place:
            return True
        array = self.array
        converted = self.port.fixed_nbytes is not None or self._job.call.make_result is not None
        return array is not None and array.nbytes > 0 and array.flags.c_contiguous and not converted

    @property
    def copied_nbytes(self) -> int:
        """Bytes of the caller's array that are not used in place."""
        return 0 if self.array is None or self.in_place else self.array.nbytes

    def check_whole(self, consumed: int) -> None:
        """Check the caller's array for the output of `consumed` bytes of input, whose number was not known before.

        Raises
        ------
        ParameterError
            The output is not as large as the array. If the kernel reports its size, it may be smaller.
        """
        if self.array is not None:
            check_type_and_size(self.port, self.array, self.port.nbytes(consumed))

    def make(self, plan: ChunkPlan, port_plan: PortPlan) -> Output:
        """Return the output that the stages write."""
        self._output = self._make(plan, port_plan)
        return self._output

    def _make(self, plan: ChunkPlan, port_plan: PortPlan) -> Output:
        job, port, array, sink = self._job, self.port, self.array, self._sink
        device, bank = job.context.device, job.kernels[-1].bank(port.index)
        if self._region is not None:
            if port.fixed_nbytes is not None:
                return FixedOutput(self._region, port.fixed_nbytes)
            return ArrayOutput(self._region, port)
        if port.fixed_nbytes is not None:
            if array is not None and self.in_place:
                return FixedOutput(BufferRegion.over(array, device, bank, written=True), port.fixed_nbytes)
            return FixedOutput(BufferRegion.new(port.fixed_nbytes, device, bank), port.fixed_nbytes)
        if array is not None and self.in_place:
            return ArrayOutput(BufferRegion.over(array, device, bank, written=True), port)
        nbytes = port.buffer_nbytes(plan.chunk)
        if sink is not None:
            ring = BufferRing(job.control, device, bank, nbytes, plan.depth(port_plan))
            if sink.connections and self._size and not plan.single:
                return PartsOutput(sink, ring, port, self._size, job.report, job.control)
            return SinkOutput(sink, ring, job.report)
        if array is not None:
            ring = BufferRing(job.control, device, bank, nbytes, plan.depth())
            return CopiedOutput(port.name, array, ring, job.report, self._reason or f"{port.name}: empty")
        ring = BufferRing(job.control, device, bank, nbytes, plan.depth() + 1)  # the first buffer becomes the result
        return GrowingOutput(ring, job.report, f"{port.name}: {_SIZE_UNKNOWN}")

    def result(self) -> Any:
        """Move the last bytes to their destination.

        Returns
        -------
        ndarray, DeviceArray, dict or None
            The caller's array or a new one; the result parameters of accelerators that have such; ``None`` for data
            that went to a store, file or file object.
        """
        if self._output is None:
            raise RuntimeError("the result of an output that was not made")
        job, array = self._job, self.array
        data = self._output.result()
        if self.resident is not None:
            return self.resident
        if data is not None:
            check_whole_elements(self.port, len(data))
        if self.port.fixed_nbytes is not None and data is not None:
            if self._sink is not None:
                self._sink.write(data.data)
            elif array is not None and not np.shares_memory(array, data):
                array[...] = data.view(array.dtype).reshape(array.shape)
                job.report.copied(len(data), f"{self.port.name}: not usable in place")
        if job.call.make_result is not None and data is not None:
            return job.call.result_of(view_of(data, self.port.dtype))
        if self._sink is not None:
            return None
        if array is not None:
            return self._dst if isinstance(self._dst, np.ndarray) else array
        return None if data is None else view_of(data, self.port.dtype)
