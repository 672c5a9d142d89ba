"""Jobs of one run over arrays, with everything that does not change decided once.

The first job of its kind goes through all of `apyfal.pipeline.run`. If that decides on one run, it leaves a
`DirectCall` behind: later jobs with the same parameters, types and shapes only look at their arrays' memory. What the
device cannot use in place is copied once, through pinned memory that belongs to the job.
A `PlacedCall` also has the arrays: `apyfal.Accelerator.prepare` keeps it in a prepared job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from apyfal.definition.types.composite import view_of
from apyfal.device.control import Aborted
from apyfal.device.launcher import KernelLauncher
from apyfal.device.regions import BufferRegion, Chunk
from apyfal.device.waiting import POLL_SECONDS, wait
from apyfal.device.zero_copy import MAY_WRITE, flat_bytes, reason_to_copy
from apyfal.exceptions import KernelError, ParameterError
from apyfal.memory import charge, empty
from apyfal.pipeline.arrays import overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal._core.device import Kernel
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import BoundArgument, BoundCall
    from apyfal.device.chaining.resident import ResidentPlan
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.pipeline.reports.report import Report

__all__ = ["MOST_COPIED", "DirectCall", "PlacedCall", "find", "keep", "key_of"]

#: Kinds of jobs that are kept for one device.
_KEPT = 64
#: Bytes that are copied for a job at most: more are worth the pipeline's stages, which hide the copies.
MOST_COPIED: Final = 4 << 20


def key_of(call: BoundCall, sources: Sequence[NDArray[Any] | None], targets: Sequence[NDArray[Any] | None]) -> Hashable:
    """Return what all jobs that can share a `DirectCall` have in common: the bound call, shapes and types.

    The call alone does not tell the types: a row of four numbers may be the dimension of an array, or one struct.
    """
    return (
        call,
        tuple([None if array is None else (array.shape, array.dtype) for array in sources]),
        tuple([None if array is None else (array.shape, array.dtype) for array in targets]),
    )


def find(context: DeviceContext, key: Hashable) -> DirectCall | None:
    """Return what an earlier job has left behind."""
    found: DirectCall | None = context.direct.get(key)
    return found


def keep(context: DeviceContext, key: Hashable, direct: DirectCall | ResidentPlan) -> None:
    """Leave a `DirectCall` or `ResidentPlan` behind for later jobs."""
    if len(context.direct) >= _KEPT:
        context.direct.clear()
    context.direct[key] = direct


class DirectCall:
    """What is the same for all jobs of one run over arrays of the same shapes: the call, its kernel, banks and sizes.

    Usable from any thread.

    Parameters
    ----------
    context, call, kernel
        The device, and what is run there, with the outputs' sizes.
    shapes
        Shapes of the outputs' arrays.
    bytes_in
        Bytes of each input.

    Attributes
    ----------
    bytes_in, bytes_out
        Bytes of all inputs, and of all outputs.
    """

    def __init__(
        self,
        context: DeviceContext,
        call: BoundCall,
        kernel: Kernel,
        shapes: Sequence[tuple[int, ...]],
        bytes_in: Sequence[int],
    ) -> None:
        self.context = context
        self.call = call
        self._kernel = kernel
        self._loaded = context.loaded
        #: by number of the input: why its memory is copied, whatever it is like
        self._always_copied = {
            place: MAY_WRITE
            for place, port in enumerate(call.inputs)
            if kernel.may_write(port.index) and not port.changed
        }
        self._in_banks = [kernel.bank(port.index) for port in call.inputs]
        self._out_banks = [kernel.bank(port.index) for port in call.outputs]
        self._new = [(shape, port.dtype.base) for shape, port in zip(shapes, call.outputs, strict=True)]
        # outputs of a fixed size, and what results are made of, are converted on their way (`apyfal.pipeline.binding`)
        self._may_copy_out = [port.fixed_nbytes is None and call.make_result is None for port in call.outputs]
        self._new_nbytes = [int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in self._new]
        self.bytes_in = sum(bytes_in)
        self.bytes_out = sum(self._new_nbytes)
        self._spare: deque[tuple[KernelLauncher, Any]] = deque()

    def place(
        self, sources: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any] | None], *, copy: bool
    ) -> PlacedCall | None:
        """Return the call over these arrays.

        Parameters
        ----------
        sources, targets
            Of the shapes and types that this was made for. A target of ``None`` becomes a new array.
        copy
            Whether memory may be copied.

        Returns
        -------
        PlacedCall or None
            ``None``: the arrays are refused, may not be copied, are not contiguous, or are too large to be copied here.
        """
        info = self.context.info
        in_reasons = [reason_to_copy(array, info, written=False) for array in sources]
        if self._always_copied:
            in_reasons = [self._always_copied.get(place, reason) for place, reason in enumerate(in_reasons)]
        out_reasons = [None if array is None else reason_to_copy(array, info, written=True) for array in targets]
        is_copied = any(in_reasons) or any(out_reasons)
        if is_copied and not (copy and self._may_copy(sources, targets, in_reasons, out_reasons)):
            return None
        results: list[NDArray[Any]] = []
        for place, target in enumerate(targets):
            if target is None:
                charge(self._new_nbytes[place])
                results.append(empty(*self._new[place]))
                continue
            if (
                not target.flags.writeable
                or any(overlap(source, target) for source in sources if source is not target)
                or any(np.shares_memory(other, target) for other in results)
            ):
                return None
            results.append(target)
        if is_copied:
            inputs, copied_in = self._staged(sources, in_reasons, self._in_banks, written=False)
            outputs, copied_out = self._staged(results, out_reasons, self._out_banks, written=True)
            return PlacedCall(self, inputs, outputs, results, targets, copied_in, copied_out)
        device = self.context.device
        inputs = [BufferRegion.over(*each, written=False) for each in zip(sources, repeat(device), self._in_banks)]
        outputs = [BufferRegion.over(*each, written=True) for each in zip(results, repeat(device), self._out_banks)]
        return PlacedCall(self, inputs, outputs, results, targets)

    def _may_copy(
        self,
        sources: Sequence[NDArray[Any]],
        targets: Sequence[NDArray[Any] | None],
        in_reasons: Sequence[str | None],
        out_reasons: Sequence[str | None],
    ) -> bool:
        """Return whether the arrays with a reason can be copied here."""
        arrays = [array for array, reason in zip(sources, in_reasons, strict=True) if reason is not None]
        for target, reason, may_copy in zip(targets, out_reasons, self._may_copy_out, strict=True):
            if target is not None and reason is not None:
                if not may_copy:
                    return False
                arrays.append(target)
        total = sum([array.nbytes for array in arrays])
        return total <= MOST_COPIED and all(array.flags.c_contiguous for array in arrays)

    def _staged(
        self, arrays: Sequence[NDArray[Any]], reasons: Sequence[str | None], banks: Sequence[int], *, written: bool
    ) -> tuple[list[BufferRegion], list[_Copy]]:
        """Return the memory that the device uses: the job's own where an array has a reason. And the copies."""
        device, regions, copies = self.context.device, [], []
        for place, (array, reason, bank) in enumerate(zip(arrays, reasons, banks, strict=True)):
            if reason is None:
                regions.append(BufferRegion.over(array, device, bank, written=written))
                continue
            if self.call.granularity is None:  # as the pipeline does for data that is not cut
                charge(array.nbytes)
            region = BufferRegion.new(array.nbytes, device, bank)
            regions.append(region)
            own, name = flat_bytes(array), (self.call.outputs if written else self.call.inputs)[place].name
            copies.append(_Copy(*((region.bytes, own) if written else (own, region.bytes)), f"{name}: {reason}"))
        return regions, copies

    def lend(self, inputs: Sequence[BufferRegion], outputs: Sequence[BufferRegion]) -> tuple[KernelLauncher, Any]:
        """Return a launcher with all arguments of a job set, and the index space."""
        try:
            launcher, launch = self._spare.pop()
        except IndexError:
            launcher = KernelLauncher(self.call, self._kernel, self.context.device, self._loaded)
        else:
            if not launcher.initializes_on_host:
                launcher.set_regions(inputs, outputs)
                return launcher, launch
        return launcher, self.set(launcher, inputs, outputs)

    @staticmethod
    def set(launcher: KernelLauncher, inputs: Sequence[BufferRegion], outputs: Sequence[BufferRegion]) -> Any:
        """Set all arguments of a launcher, and return the index space."""
        chunks = [Chunk(0, region, len(region.bytes), 0, last=True) for region in inputs]
        first = chunks[0]._replace(companions=tuple(chunks[1:])) if chunks else Chunk(0, None, 0, 0, last=True)
        return launcher.set_chunk(first, outputs, sync_to=True, sync_from=True)

    def release(self, launcher: KernelLauncher, launch: Any) -> None:
        """Take back a launcher whose run has ended well."""
        launcher.clear_regions()
        self._spare.append((launcher, launch))


class _Copy(NamedTuple):
    """Bytes that are copied before or after each run, where to, and why."""

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    reason: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """A launcher with all arguments of a job set; `quick` starts it and waits, if nothing has to be done before."""

    launcher: KernelLauncher
    launch: Any
    quick: Callable[[], Run | None] | None


class PlacedCall:
    """A `DirectCall` over the arrays of one job, which it keeps alive. Not for several threads at once.

    Parameters
    ----------
    direct
        What is run.
    inputs, outputs
        The arrays' memory.
    results
        The outputs' arrays.
    dsts
        The destinations as the caller gave them.
    copied_in, copied_out
        What `run_once` copies before and after the run.

    Attributes
    ----------
    value
        Of `result`, once it is known that it is the same for all runs.
    """

    __slots__ = (
        "_copied_in",
        "_copied_out",
        "_direct",
        "_dsts",
        "_inputs",
        "_outputs",
        "_owned",
        "_ready",
        "_results",
        "value",
    )

    def __init__(
        self,
        direct: DirectCall,
        inputs: list[BufferRegion],
        outputs: list[BufferRegion],
        results: list[NDArray[Any]],
        dsts: Sequence[object],
        copied_in: Sequence[_Copy] = (),
        copied_out: Sequence[_Copy] = (),
    ) -> None:
        self._direct = direct
        self._copied_in = copied_in
        self._copied_out = copied_out
        self._inputs = inputs
        self._outputs = outputs
        self._results = results
        self._dsts = dsts
        self._ready: _Ready | None = None
        self.value: Any = None
        self._owned: list[tuple[NDArray[Any], int, int]] = []

    def watch(self, arrays: Iterable[NDArray[Any]]) -> PlacedCall:
        """Have `run_again` refuse to run once one of these has moved, which numpy allows with ``refcheck=False``."""
        for array in arrays:
            owner = array
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            if owner.flags.owndata:
                self._owned.append((owner, owner.ctypes.data, owner.nbytes))
        return self

    def run_once(self, control: JobControl, report: Report | None) -> None:
        """Run the job with a launcher that other jobs use too, and copy what is not used in place."""
        direct = self._direct
        if self._copied_in:
            _copy("fetch", self._copied_in, report)
        launcher, launch = direct.lend(self._inputs, self._outputs)
        self._run(launcher, launch, control, report)
        direct.release(launcher, launch)
        if self._copied_out:
            _copy("store", self._copied_out, report)

    def make_ready(self) -> bool:
        """Set all arguments now; return whether `begin` can be called, because nothing has to be done before a run."""
        self._ready = self._new_ready()
        return self._ready.quick is not None

    def begin(self, control: JobControl, seconds: float) -> Callable[[], None] | None:
        """Start a job that is ready (`make_ready`), and wait up to `seconds` for its end.

        Returns
        -------
        callable or None
            ``None``: it has ended. Otherwise what waits for its end, in any thread. After an error it is not ready.
        """
        ready, self._ready = self._ready, None
        if ready is None or ready.quick is None:
            raise RuntimeError("the job is not ready")
        run = ready.launcher.run(ready.launch, seconds)
        if run is None:
            self._ready = ready
            return None
        return partial(self._finish, ready, run, control)

    def _finish(self, ready: _Ready, run: Run, control: JobControl) -> None:
        try:
            wait(run, control)
        except Aborted:
            control.check()  # raises what it was aborted for
            raise
        self._ready = ready

    def run_again(
        self, control: JobControl, report: Report | None, scalars: Sequence[tuple[int, BoundArgument]] = ()
    ) -> None:
        """Run the job with a launcher of its own, whose arguments stay set.

        Parameters
        ----------
        control, report
            Of this run.
        scalars
            Arguments that have other values in this run alone.
        """
        ready, self._ready = self._ready, None  # if this raises, a run may still use what the launcher holds
        try:
            if ready is None or ready.quick is None or report is not None or scalars or control.deadline is not None:
                self._ready = self._run_with(ready, control, report, scalars)
                return
            run = ready.quick()
            if run is not None:
                wait(run, control)
        except Aborted:
            control.check()  # raises what it was aborted for
            raise
        except KernelError as error:
            if (cause := self._direct.context.model_errors.take(str(error))) is not None:
                raise error from cause
            raise
        self._ready = ready

    def _new_ready(self) -> _Ready:
        launcher, launch = self._direct.lend(self._inputs, self._outputs)
        plain = not launcher.initializes_on_host and not self._owned
        return _Ready(launcher, launch, launcher.runner(launch, POLL_SECONDS) if plain else None)

    def _run_with(
        self,
        ready: _Ready | None,
        control: JobControl,
        report: Report | None,
        scalars: Sequence[tuple[int, BoundArgument]],
    ) -> _Ready:
        for owner, address, nbytes in self._owned:
            if owner.ctypes.data != address or owner.nbytes != nbytes:
                self._ready = ready
                raise ParameterError("an array was resized after this job was prepared; expected one of its own job")
        if ready is None:
            ready = self._new_ready()
        elif ready.launcher.initializes_on_host:
            self._direct.set(ready.launcher, self._inputs, self._outputs)
        launcher = ready.launcher
        launcher.set_scalars(scalars)
        self._run(launcher, ready.launch, control, report)
        launcher.set_scalars([(index, self._direct.call.arguments[index]) for index, _ in scalars])
        return ready

    def _run(self, launcher: KernelLauncher, launch: Any, control: JobControl, report: Report | None) -> None:
        start = 0.0
        if report is not None:
            start, report.bytes_in = report.now(), self._direct.bytes_in
        try:
            left = control.seconds_left()
            run = launcher.run(launch, POLL_SECONDS if left is None or left > POLL_SECONDS else left)
            if run is not None:
                wait(run, control)
        finally:
            if report is not None:
                report.add("compute", 0, start)
        if report is not None:
            report.bytes_out, report.chunks = self._direct.bytes_out, 1
            report.moved(*launcher.moved_of(self._inputs, self._outputs))

    def scalars_of(self, changes: Mapping[str, object]) -> list[tuple[int, BoundArgument]] | None:
        """Return the arguments that these parameters change; ``None``: they change more than that."""
        return self._direct.context.definition.scalars_of(self._direct.call.in_dtype, **changes)

    def fill(self, report: Report, info: dict[str, Any]) -> None:
        """Write a report into a caller's ``info_dict``."""
        context = self._direct.context
        report.fill(info, device=context.info["name"], driver=context.definition.driver)

    def result(self) -> Any:
        """Return what `apyfal.Accelerator.process` returns."""
        if self.value is not None:
            return self.value
        make, outputs = self._direct.call.make_result, self._direct.call.outputs
        results: list[Any]
        if make is not None:  # of the run before, so that it is not kept
            results = [
                make(view_of(region.bytes, port.dtype)) for port, region in zip(outputs, self._outputs, strict=True)
            ]
        else:
            pairs = zip(self._dsts, self._results, strict=True)
            results = [dst if isinstance(dst, np.ndarray) else array for dst, array in pairs]
        named = {port.name: one for port, one in zip(outputs, results, strict=True)}
        result: Any = results[0] if len(results) == 1 else named or None
        if make is None:
            self.value = result
        return result


def _copy(stage: str, copies: Sequence[_Copy], report: Report | None) -> None:
    start = 0.0 if report is None else report.now()
    for source, target, _ in copies:
        target[...] = source
    if report is not None:
        report.add(stage, 0, start)
        for source, _, reason in copies:
            report.copied(len(source), reason)
