"""From what the caller gave to a job: which memory is used in place, what goes through rings, what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.exceptions import CopyRefused, ParameterError
from apyfal.handoff import reason_to_copy
from apyfal.memory import empty
from apyfal.pipeline.channel import Aborted
from apyfal.pipeline.inputs import ArrayInput, CopiedInput, Input, NoInput, RangesInput, StreamInput
from apyfal.pipeline.job import Job
from apyfal.pipeline.outputs import (
    ArrayOutput,
    CopiedOutput,
    FixedOutput,
    GrowingOutput,
    NoOutput,
    Output,
    PartsOutput,
    SinkOutput,
)
from apyfal.pipeline.plan import Plan, make_plan
from apyfal.pipeline.report import Report
from apyfal.pipeline.results import check_target, shape_of
from apyfal.pipeline.slots import Ring, Slot
from apyfal.storage.endpoints import Sink, Source, open_sink, open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal._core.device import Kernel
    from apyfal.call import Call
    from apyfal.card import Card
    from apyfal.pipeline.channel import Control

__all__ = ["Request", "array_of", "process"]


@dataclass
class Request:
    """What `Accelerator.process` was asked for."""

    src: object
    dst: object
    parameters: Mapping[str, object]
    copy: bool
    progress: Callable[[int, int | None], None] | None
    memory_limit: int | None
    info: dict[str, Any] | None


def array_of(data: object) -> NDArray[Any] | None:
    """Return an array over the memory of `data`, or ``None`` when it is a URL, a path or a file object."""
    if isinstance(data, np.ndarray):
        return data
    if isinstance(data, (bytes, bytearray, memoryview)) or (hasattr(data, "__array_interface__") and data is not None):
        array = np.asarray(data) if not isinstance(data, (bytes, bytearray)) else np.frombuffer(data, np.uint8)
        return array
    if hasattr(data, "__buffer__") or hasattr(data, "__dlpack__"):
        return np.asarray(memoryview(data)) if hasattr(data, "__buffer__") else np.from_dlpack(data)  # type: ignore[arg-type]
    return None


def process(card: Card, request: Request, control: Control, report: Report) -> Any:
    """Run one job; see `apyfal.Accelerator.process`."""
    try:
        with ExitStack() as stack:
            return _Setup(card, request, control, report, stack).run()
    except Aborted:
        control.check()  # what it was aborted for
        raise
    finally:
        if request.info is not None:
            report.fill(request.info, device=card.info["name"], driver=card.definition.driver)


class _Setup:
    """Builds one job out of a request, in the order in which its parts depend on each other."""

    def __init__(self, card: Card, request: Request, control: Control, report: Report, stack: ExitStack) -> None:
        self.card = card
        self.request = request
        self.control = control
        self.report = report
        self.stack = stack
        self.definition = card.definition
        self.array = self._input_array()
        dtype = None if self.array is None else self.array.dtype
        self.call: Call = card.call(dtype, request.parameters)
        self.kernel: Kernel = card.kernel(self.call)

    # -- what was given -----------------------------------------------------------------------------------------------
    def _input_array(self) -> NDArray[Any] | None:
        src = self.request.src
        if src is None:
            if self.definition.takes_input:
                raise ParameterError(
                    f"accelerator {self.definition.name!r} needs src: a URL, path, file object or array"
                )
            return None
        if not self.definition.takes_input:
            raise ParameterError(f"accelerator {self.definition.name!r} takes no input; expected src=None")
        return array_of(src)

    def _bank(self, name: str) -> int:
        for index, argument in enumerate(self.call.arguments):
            if argument.name == name:
                return self.kernel.bank(index)
        return 0

    def _copy(self, name: str, array: NDArray[Any], *, written: bool) -> str | None:
        """Say why an array must be copied; refuse where the caller does not want that."""
        reason = reason_to_copy(array, self.card.info, written=written)
        if reason is None:
            return None
        if not self.request.copy:
            raise CopyRefused(f"{name}: {reason}, and copy=False was given")
        return f"{name}: {reason}"

    # -- the job ------------------------------------------------------------------------------------------------------
    def run(self) -> Any:
        call = self.call
        source: Source | None = None
        total: int | None
        if self.array is not None:
            total = self.array.nbytes
        elif self.request.src is None:
            total = 0
        else:
            source = self.stack.enter_context(open_source(self.request.src))
            total = source.size
        if total is not None:
            call.check_size(total)
        in_reason = None if self.array is None else self._copy("src", self.array, written=False)
        target = self._target(total)
        sink = self._sink(target, total)
        out_reason = None
        if isinstance(target, np.ndarray):
            out_reason = self._copy("dst", target, written=True)
            if self.array is not None and np.shares_memory(self.array, target) and not _same(self.array, target):
                raise ParameterError("src and dst overlap; expected the same memory or none in common")
            if call.output_bytes(total or 0) is None and total:
                out_reason = out_reason or self._refuse_unknown("dst")
        in_ring = source is not None or in_reason is not None
        out_ring = call.fixed_output is None and (sink is not None or out_reason is not None or target is None)
        plan = make_plan(
            call,
            self.card.info,
            total,
            in_ring=in_ring,
            connections=0 if source is None else source.connections,
            parts=0 if sink is None else sink.connections,
            out_ring=out_ring and self._has("dst"),
            memory_limit=self.request.memory_limit,
        )
        input_ = self._input(plan, source, in_reason)
        output = self._output(plan, target, sink, out_reason, total)
        with self.card.invocation(call, self.kernel) as invocation:
            job = Job(call, invocation, input_, output, self.control, self.report, self._progress(total))
            if plan.single:
                job.run_single()
            else:
                job.run_stages()
            invocation.forget()
        if total is None:
            call.check_size(self.report.bytes_in)
        return self._result(output, target, sink)

    def _has(self, name: str) -> bool:
        return any(argument.name == name for argument in self.call.arguments)

    def _refuse_unknown(self, name: str) -> str:
        reason = "the size of the output is known only after each run"
        if not self.request.copy:
            raise CopyRefused(f"{name}: {reason}, and copy=False was given")
        return f"{name}: {reason}"

    def _progress(self, total: int | None) -> Callable[[int], None] | None:
        progress, info = self.request.progress, self.request.info
        if progress is None:
            return None

        def report(done: int) -> None:
            if info is not None:
                info["limit"] = self.report.limit_now()
            progress(done, total)

        return report

    # -- input --------------------------------------------------------------------------------------------------------
    def _input(self, plan: Plan, source: Source | None, reason: str | None) -> Input:
        bank = self._bank("src")
        if source is not None:
            ring = Ring(self.control, self.card.device, bank, plan.chunk, plan.in_depth)
            if source.connections and source.size is not None:
                return RangesInput(source, ring, plan, self.report, self.control)
            return StreamInput(source, ring, plan.chunk, self.report, self.control)
        if self.array is None:
            return NoInput()
        if reason is None and self.array.nbytes:
            return ArrayInput(Slot.over(self.array, self.card.device, bank, written=False), plan.chunk, self.report)
        if not self.array.flags.c_contiguous:  # put together in pinned memory: one copy, not one before the ring's
            together = empty(self.array.shape, self.array.dtype)
            together[...] = self.array
            self.report.copied(together.nbytes, reason or "src: empty")
            return ArrayInput(Slot.over(together, self.card.device, bank, written=False), plan.chunk, self.report)
        ring = Ring(self.control, self.card.device, bank, plan.chunk, plan.depth)
        return CopiedInput(self.array, ring, plan.chunk, self.report, reason or "src: empty")

    # -- output -------------------------------------------------------------------------------------------------------
    def _target(self, total: int | None) -> NDArray[Any] | None:
        """Return the caller's array, checked, or a new one where the output's size is known."""
        dst, call = self.request.dst, self.call
        if dst is not None:
            array = array_of(dst)
            if array is None:
                return None
            return check_target(call, array, None if total is None else call.output_bytes(total))
        nbytes = call.fixed_output
        if nbytes is None and total is not None:
            nbytes = call.output_bytes(total)
        if nbytes is None or not self._has("dst"):
            return None
        return empty(shape_of(call, nbytes, self.array), call.out_dtype)

    def _sink(self, target: NDArray[Any] | None, total: int | None) -> Sink | None:
        if self.request.dst is None or target is not None:
            return None
        if not self._has("dst"):
            raise ParameterError(f"accelerator {self.definition.name!r} has no output data; expected dst=None")
        size = self.call.fixed_output
        if size is None and total is not None:
            size = self.call.output_bytes(total)
        return self.stack.enter_context(open_sink(self.request.dst, size))  # commits last, when all has worked

    def _output(
        self, plan: Plan, target: NDArray[Any] | None, sink: Sink | None, reason: str | None, total: int | None
    ) -> Output:
        call, device, bank = self.call, self.card.device, self._bank("dst")
        if not self._has("dst"):
            return NoOutput()
        if call.fixed_output is not None:
            if target is not None and reason is None and target.nbytes:
                return FixedOutput(Slot.over(target, device, bank, written=True), call.fixed_output)
            return FixedOutput(Slot.new(call.fixed_output, device, bank), call.fixed_output)
        if target is not None and reason is None and target.nbytes:
            return ArrayOutput(Slot.over(target, device, bank, written=True), call)
        if sink is not None:
            ring = Ring(self.control, device, bank, plan.capacity, plan.out_depth)
            size = None if total is None else call.output_bytes(total)
            if sink.connections and size and not plan.single:
                return PartsOutput(sink, ring, call, size, self.report, self.control)
            return SinkOutput(sink, ring, self.report)
        if target is not None:
            ring = Ring(self.control, device, bank, plan.capacity, plan.depth)
            return CopiedOutput(target, ring, self.report, reason or "dst: empty")
        ring = Ring(self.control, device, bank, plan.capacity, plan.depth + 1)  # the first slot becomes the result
        return GrowingOutput(ring, self.report, "dst: the size of the output is known only after each run")

    def _result(self, output: Output, target: NDArray[Any] | None, sink: Sink | None) -> Any:
        call = self.call
        data = output.result()
        if call.fixed_output is not None and data is not None:
            if sink is not None:
                sink.write(data.data)
            elif target is not None and not np.shares_memory(target, data):
                target.reshape(-1).view(np.uint8)[...] = data
                self.report.copied(len(data), "dst: not usable in place")
        if self.definition.finish is not None and data is not None:
            return call.finish(data.view(call.out_dtype))
        if sink is not None or not self._has("dst"):
            return None
        if target is not None:
            return self.request.dst if isinstance(self.request.dst, np.ndarray) else target
        return None if data is None else data.view(call.out_dtype)


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0] and a.nbytes == b.nbytes
