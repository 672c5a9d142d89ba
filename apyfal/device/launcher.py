"""Kernel arguments: set once from the bound call, then updated for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from apyfal._core.run import CLEAR, READS, SYNC_FROM, SYNC_TO, Arguments, Steps
from apyfal.definition.grammar import REPORT_WORDS
from apyfal.device.regions import BufferRegion, Chunk

if TYPE_CHECKING:
    from apyfal._core.device import BufferObject, Device, Kernel
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import BoundArgument, BoundCall
    from apyfal.device.waiting import Waitable

    #: Offset, size and work-group of an index space; see `Arguments.start`.
    _Launch = tuple[Sequence[int], Sequence[int], Sequence[int]]

__all__ = ["KernelLauncher", "Launcher"]


class Launcher(Protocol):
    """Starts runs over chunks: see `KernelLauncher`, which does so for one kernel."""

    def start(
        self,
        chunk: Chunk,
        outputs: Sequence[BufferRegion],
        *,
        skip: int = 0,
        sync_to: bool = False,
        sync_from: bool = False,
    ) -> Waitable:
        """Start over one chunk."""
        ...

    def take_bytes_moved(self) -> tuple[int, int]:
        """Return the bytes that runs have moved to the device and from it since the last call."""
        ...

    def clear_regions(self) -> None:
        """Drop the references to the last run's input and output memory."""

    def read_report(self) -> tuple[int, int, int]:
        """Return what the kernel reported of its last run."""
        ...

    #: The `owner` of the last call of `set_steps`, if nothing else was set since then.
    steps_of: object

    @property
    def is_plain(self) -> bool:
        """Whether runs over device arrays of one size differ only in the arrays."""
        ...

    def set_steps(self, owner: object, chunk: Chunk, outputs: Sequence[BufferRegion]) -> None:
        """Set the arguments of a job of one run over memory on the device, for `owner` alone."""
        ...

    def rebind(self, inputs: Sequence[BufferObject], outputs: Sequence[BufferObject]) -> Steps:
        """Replace the memory of `set_steps` by other memory of the same sizes; return what starts the runs."""
        ...

    def unbind(self) -> None:
        """Drop the references to the memory of `rebind`."""


class KernelLauncher:
    """Starts runs of a kernel with the arguments of one bound call.

    Not for several threads at once: runs share the arguments, which are copied when a run starts.

    Parameters
    ----------
    call
        Parameters and element types.
    kernel, device
        The kernel, and the device on which memory for ``state`` and ``report`` is allocated.
    loaded
        Device memory that ``start(src=...)`` filled, for the argument ``coefficients``; ``None``: there is none.
    """

    def __init__(self, call: BoundCall, kernel: Kernel, device: Device, loaded: BufferRegion | None = None) -> None:
        self._kernel = kernel
        self._arguments = Arguments(len(call.arguments))
        self._item = call.in_dtype.itemsize
        self._call = call
        self._inputs = [port.index for port in call.inputs]
        self._changed = {port.index for port in call.inputs if port.changed}
        self._initial = {port.index: port for port in call.outputs if port.initial is not None}
        self._space = call.sizes.space
        self._sizes: tuple[int, ...] | None = None  # sizes of the previous run, for which `_space_of_run` is valid
        self._space_of_run: _Launch | None = None
        self._computed = [
            (index, argument.dtype, argument.name)
            for index, argument in enumerate(call.arguments)
            if argument.dtype is not None and argument.name in call.sizes.arguments
        ]
        self._outputs = [port.index for port in call.outputs]
        # a model's outputs are cleared where it runs, see `apyfal.device.model_adapter`
        self._cleared = {port.index for port in call.outputs if call.starts_at_zero(port) and not call.is_model}
        self._has_port_sizes = any("." in argument.name for argument in call.arguments)
        self._chunk_scalars: dict[str, tuple[int, str]] = {}  # arguments that change from run to run
        self._report: BufferRegion | None = None
        self.steps_of: object = None
        self._steps: Steps | None = None
        self._ends: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # of `set_steps`: index and bytes
        self._moved = [0, 0]  # bytes to the device and from it, as parts of runs
        for index, argument in enumerate(call.arguments):
            name = argument.name
            if argument.value is not None:
                self._set_value(index, argument)
            elif argument.dtype is not None:
                self._chunk_scalars[name] = (index, argument.dtype.name)
            elif name == "state":
                state = device.alloc(call.state_bytes, kernel.bank(index))
                self._arguments.set_buffer(index, state, 0, call.state_bytes)
            elif name == "coefficients":
                if loaded is not None:
                    self._set_buffer(index, loaded, loaded.nbytes, READS)
            elif name == "report":
                self._report = BufferRegion.new(8 * REPORT_WORDS, device, kernel.bank(index))
                self._set_buffer(index, self._report, 8 * REPORT_WORDS, SYNC_FROM)

    def _set_buffer(self, index: int, region: BufferRegion, nbytes: int, flags: int) -> None:
        self._arguments.set_buffer(index, region.bo, region.offset, nbytes, flags)

    def _set(self, name: str, value: int) -> None:
        position = self._chunk_scalars.get(name)
        if position is not None:
            self._arguments.set_scalar(position[0], position[1], value)

    def start(
        self,
        chunk: Chunk,
        outputs: Sequence[BufferRegion],
        *,
        skip: int = 0,
        sync_to: bool = False,
        sync_from: bool = False,
    ) -> Run:
        """Start a run over one chunk, whose memory must stay unchanged until the run has ended; see `set_chunk`."""
        launch = self.set_chunk(chunk, outputs, skip=skip, sync_to=sync_to, sync_from=sync_from)
        return self._arguments.start(self._kernel, launch)

    def run(self, launch: _Launch | None, seconds: float) -> Run | None:
        """Start a run with the arguments of the last `set_chunk`, and wait up to `seconds`; see `Arguments.run`."""
        return self._arguments.run(self._kernel, launch, seconds)

    def runner(self, launch: _Launch | None, seconds: float) -> Callable[[], Run | None]:
        """Return `run` with these values, as one call into the core."""
        return partial(self._arguments.run, self._kernel, launch, seconds)

    def set_chunk(
        self,
        chunk: Chunk,
        outputs: Sequence[BufferRegion],
        *,
        skip: int = 0,
        sync_to: bool = False,
        sync_from: bool = False,
    ) -> _Launch | None:
        """Set all arguments of a run over one chunk, and return its index space.

        Parameters
        ----------
        chunk
            The input.
        outputs
            Where the kernel writes, one region for each output.
        skip
            Bytes of the chunk that earlier runs consumed.
        sync_to, sync_from
            Copy the input to the device before the run, and all of the output from it afterwards, as part of the run.
        """
        self.steps_of = None
        chunks = (chunk, *chunk.companions) if chunk.companions else (chunk,)
        for index, one in zip(self._inputs, chunks, strict=False):  # a kernel without input has one chunk, too
            if one.region is not None and index not in self._changed:
                moves = sync_to and not one.region.resident
                self._set_buffer(index, one.region, one.nbytes, READS | SYNC_TO if moves else READS)
                self._moved[0] += one.nbytes * moves
        for index, output in zip(self._outputs, outputs, strict=True):
            flags = SYNC_FROM if sync_from and not output.resident else 0
            if index in self._cleared and self._is_first_run(chunk, skip, chunks, output):
                flags |= self._clear(output)
            if (index in self._changed and sync_to and not output.resident) or (
                index in self._initial and self._fill(index, chunk, output)
            ):
                flags |= SYNC_TO
            self._set_buffer(index, output, output.nbytes, flags)
            self._moved[0] += output.nbytes * bool(flags & (SYNC_TO | CLEAR))
            self._moved[1] += output.nbytes * bool(flags & SYNC_FROM)
        if self._report is not None:
            self._moved[1] += self._report.nbytes
        if outputs:
            self._set("capacity", outputs[0].nbytes)
        self._set("bytes", chunk.nbytes)
        self._set("count", chunk.nbytes // self._item)
        self._set("offset", chunk.offset)
        self._set("skip", skip)
        self._set("first", chunk.number == 0)
        self._set("last", chunk.last)
        if self._has_port_sizes:
            self._set_port_sizes(chunks, outputs)
        if self._space is None and not self._computed:
            return None
        sizes = (chunk.offset, *[one.nbytes for one in chunks])
        if sizes != self._sizes:  # most jobs of an accelerator have data of the same size
            self._space_of_run = self._apply_sizes(chunks)
            self._sizes = sizes
        return self._space_of_run

    @property
    def is_plain(self) -> bool:
        """Whether nothing is written before a run, changed in place, or reported."""
        return not self.initializes_on_device and not self._changed and self._report is None

    def set_steps(self, owner: object, chunk: Chunk, outputs: Sequence[BufferRegion]) -> None:
        """Set the arguments of a job of one run over memory on the device; see `Launcher`."""
        self._steps = Steps([self.step(chunk, outputs)])
        self.steps_of = owner

    def step(
        self, chunk: Chunk, outputs: Sequence[BufferRegion]
    ) -> tuple[Arguments, Kernel, tuple[Sequence[int], Sequence[int], Sequence[int]] | None]:
        """Set all arguments of a run over memory on the device, and return what `Steps` takes."""
        launch = self.set_chunk(chunk, outputs)
        inputs = [(index, one.nbytes) for index, one in zip(self._inputs, (chunk, *chunk.companions), strict=False)]
        self._ends = inputs, [(index, output.nbytes) for index, output in zip(self._outputs, outputs, strict=True)]
        return self._arguments, self._kernel, launch

    def rebind(self, inputs: Sequence[BufferObject], outputs: Sequence[BufferObject]) -> Steps:
        """Replace the memory of `set_steps`, and return what starts the run."""
        self.rebind_inputs(inputs)
        self.rebind_outputs(outputs)
        if self._steps is None:
            raise RuntimeError("no steps were set")
        return self._steps

    def rebind_inputs(self, inputs: Sequence[BufferObject]) -> None:
        """Replace the input memory of `step`."""
        set_buffer = self._arguments.set_buffer
        for (index, nbytes), bo in zip(self._ends[0], inputs, strict=True):
            set_buffer(index, bo, 0, nbytes, READS)

    def rebind_outputs(self, outputs: Sequence[BufferObject]) -> None:
        """Replace the output memory of `step`."""
        set_buffer = self._arguments.set_buffer
        for (index, nbytes), bo in zip(self._ends[1], outputs, strict=True):
            set_buffer(index, bo, 0, nbytes, 0)

    def unbind(self) -> None:
        """Drop the references to the memory of `rebind`."""
        self.clear_regions()

    def clear_inputs(self) -> None:
        """Drop the references to the input memory."""
        for index in self._inputs:
            self._arguments.clear(index)

    def clear_outputs(self) -> None:
        """Drop the references to the output memory."""
        for index in self._outputs:
            self._arguments.clear(index)

    @property
    def initializes_on_host(self) -> bool:
        """Whether `set_chunk` writes initial values into the host side of outputs, anew for each run."""
        return bool(self._initial)

    @property
    def initializes_on_device(self) -> bool:
        """Whether `set_chunk` writes zeros or initial values into outputs on the device."""
        return bool(self._initial or self._cleared)

    def set_regions(self, inputs: Sequence[BufferRegion], outputs: Sequence[BufferRegion]) -> None:
        """Replace the memory of `set_chunk` in a job of one run; all sizes are the same."""
        for index, region in zip(self._inputs, inputs, strict=True):
            self._arguments.set_buffer(index, region.bo, region.offset, len(region.bytes), READS | SYNC_TO)
        for index, region in zip(self._outputs, outputs, strict=True):
            flags = SYNC_FROM
            if index in self._cleared and not any(one.shares(region) for one in inputs):
                flags |= CLEAR
            self._arguments.set_buffer(index, region.bo, region.offset, len(region.bytes), flags)

    def moved_of(self, inputs: Sequence[BufferRegion], outputs: Sequence[BufferRegion]) -> tuple[int, int]:
        """Return the bytes that a job of one run over this memory of the host moves to the device and from it."""
        begun = [
            region.nbytes
            for index, region in zip(self._outputs, outputs, strict=True)
            if index in self._initial or (index in self._cleared and not any(one.shares(region) for one in inputs))
        ]
        back = sum([region.nbytes for region in outputs])
        return sum([region.nbytes for region in inputs]) + sum(begun), back

    def set_scalars(self, scalars: Iterable[tuple[int, BoundArgument]]) -> None:
        """Replace the values of scalar arguments, by their positions."""
        for index, argument in scalars:
            self._set_value(index, argument)

    def _set_value(self, index: int, argument: BoundArgument) -> None:
        if isinstance(argument.value, bytes):
            self._arguments.set_bytes(index, argument.value)
        elif argument.dtype is not None and argument.value is not None:
            self._arguments.set_scalar(index, argument.dtype.name, argument.value)

    def _apply_sizes(self, chunks: Sequence[Chunk]) -> _Launch | None:
        """Set the computed arguments of a run over these chunks, and return its index space."""
        values = self._values(chunks)
        for place, dtype, name in self._computed:
            self._arguments.set_scalar(place, dtype.name, self._call.sizes.scalar_of(name, dtype, values))
        return None if self._space is None else self._space.of(values, f"accelerator {self._call.name!r}")

    def _values(self, chunks: Sequence[Chunk]) -> dict[str, int]:
        """Return the values of names in expressions, for a run over these chunks."""
        values: dict[str, int] = {}
        for place, (port, chunk) in enumerate(zip(self._call.inputs, chunks, strict=False)):
            numbers = {"bytes": chunk.nbytes, "count": chunk.nbytes // port.dtype.itemsize}
            values.update({f"{key}.{port.name}": number for key, number in numbers.items()})
            if not place:
                values.update({**numbers, "offset": chunk.offset})
        # the sizes of the run replace those of the job, and a parameter's own value replaces both
        return {**self._call.shape_values, **values, **self._call.values}

    def _fill(self, index: int, chunk: Chunk, output: BufferRegion) -> bool:
        """Give an output its initial value before the first run into it; return whether the run has to transfer it."""
        port = self._initial[index]
        if port.fixed_nbytes is not None and chunk.number:
            return False
        if output.resident:
            values = np.full(output.nbytes // port.dtype.base.itemsize, port.initial, port.dtype.base)
            self._moved[0] += output.write(values.view(np.uint8))
            return False
        output.bytes.view(port.dtype.base)[...] = port.initial
        return True

    def _clear(self, output: BufferRegion) -> int:
        """Clear an output: at once if it is on the device, otherwise by the flag for the run that is returned."""
        if not output.resident:
            return CLEAR
        self._moved[0] += output.write(None)
        return 0

    @staticmethod
    def _is_first_run(chunk: Chunk, skip: int, chunks: Sequence[Chunk], output: BufferRegion) -> bool:
        """Return whether this is the first run into an output that is not an input at the same time."""
        regions = [one.region for one in chunks if one.region is not None]
        return chunk.number == 0 and skip == 0 and not any(region.shares(output) for region in regions)

    def _set_port_sizes(self, chunks: Sequence[Chunk], outputs: Sequence[BufferRegion]) -> None:
        for port, chunk in zip(self._call.inputs, chunks, strict=True):
            self._set(f"bytes.{port.name}", chunk.nbytes)
            self._set(f"count.{port.name}", chunk.nbytes // port.dtype.itemsize)
        for target, output in zip(self._call.outputs, outputs, strict=True):
            self._set(f"capacity.{target.name}", output.nbytes)

    def take_bytes_moved(self) -> tuple[int, int]:
        """Return the bytes that runs have moved to the device and from it since the last call."""
        to_device, from_device = self._moved
        self._moved = [0, 0]
        return to_device, from_device

    def clear_regions(self) -> None:
        """Drop the references to the last run's input and output memory."""
        for index in (*self._inputs, *self._outputs):
            self._arguments.clear(index)

    def read_report(self) -> tuple[int, int, int]:
        """Return what the kernel wrote into ``report`` in the run that ended last.

        Returns
        -------
        consumed, produced, status
            Bytes of input, bytes of output, and `STATUS_DONE` or `STATUS_FULL` of `apyfal.definition.grammar`.
        """
        if self._report is None:
            raise RuntimeError("this kernel has no argument 'report'")
        words = self._report.bytes.view(np.uint64)
        return int(words[0]), int(words[1]), int(words[2])
