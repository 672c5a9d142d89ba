"""Start the runs of a chain at once: each reads what the previous stage leaves on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from apyfal._core.run import Steps
from apyfal.definition.chain import is_reduction
from apyfal.device.regions import BufferRegion, Chunk
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.waiting import RunGroup, cancel
from apyfal.exceptions import ConfigurationError

if TYPE_CHECKING:
    from apyfal._core.device import BufferObject, Device, Kernel
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.chain import ChainCall
    from apyfal.device.launcher import KernelLauncher

__all__ = ["ChainLauncher"]


class ChainLauncher:
    """Starts the runs of a chain over one chunk after another. Not for several threads at once.

    Two stages share one piece of device memory for all chunks, because the driver keeps the order of runs that use the
    same memory. An output with an initial value (also zero) gets new memory for each chunk. A stage that works in place
    does so in the memory of its output, and the stage before it writes there.

    Parameters
    ----------
    call
        The chain.
    launchers, kernels
        Those of its stages, in order.
    device
        The device on which they run.

    Raises
    ------
    ConfigurationError
        A stage writes to another memory bank than the next one reads.
    """

    def __init__(
        self, call: ChainCall, launchers: Sequence[KernelLauncher], kernels: Sequence[Kernel], device: Device
    ) -> None:
        self._calls = call.stages
        self._launchers = tuple(launchers)
        self._device = device
        self._banks = [
            _bank_between(call.stages[place : place + 2], kernels[place : place + 2])
            for place in range(len(call.stages) - 1)
        ]
        self._memory: list[DeviceArray | None] = [None] * len(self._banks)
        self.steps_of: object = None
        self._steps: Steps | None = None
        self._every = next((place + 1 for place, one in enumerate(call.stages) if is_reduction(one)), len(call.stages))

    def start(
        self,
        chunk: Chunk,
        outputs: Sequence[BufferRegion],
        *,
        skip: int = 0,
        sync_to: bool = False,
        sync_from: bool = False,
    ) -> RunGroup:
        """Start the runs over one chunk; see `apyfal.device.launcher.KernelLauncher.start`.

        Stages after one that produces its output at the end of the job are started for the last chunk only.
        """
        self.steps_of = None
        del skip  # `skip` is for kernels that report their size, and no stage does
        chunks = self._chunks(chunk)
        between = self._regions(chunks, outputs)
        last = len(self._calls) - 1
        runs: list[Run] = []
        try:
            for place in range(last + 1 if chunk.last else self._every):
                part = chunk if place == 0 else chunks[place]._replace(region=between[place - 1])
                targets = outputs if place == last else (between[place],)
                runs.append(
                    self._launchers[place].start(
                        part, targets, sync_to=sync_to and place == 0, sync_from=sync_from and place == last
                    )
                )
        except BaseException:
            if runs:
                cancel(RunGroup(runs))
            raise
        return RunGroup(runs)

    @property
    def is_plain(self) -> bool:
        """Whether all stages are plain, so that the memory between them stays the same; see `Launcher`."""
        return all(launcher.is_plain for launcher in self._launchers)

    def set_steps(self, owner: object, chunk: Chunk, outputs: Sequence[BufferRegion]) -> None:
        """Set the arguments of all stages for a job of one run over memory on the device; see `Launcher`."""
        chunks = self._chunks(chunk)
        between = self._regions(chunks, outputs)
        steps = []
        for place, launcher in enumerate(self._launchers):
            part = chunk if place == 0 else chunks[place]._replace(region=between[place - 1])
            targets = outputs if launcher is self._launchers[-1] else (between[place],)
            steps.append(launcher.step(part, targets))
        self._steps = Steps(steps)
        self.steps_of = owner

    def rebind(self, inputs: Sequence[BufferObject], outputs: Sequence[BufferObject]) -> Steps:
        """Replace the memory of the first stage's inputs and of the last one's outputs; see `Launcher`."""
        self._launchers[0].rebind_inputs(inputs)
        self._launchers[-1].rebind_outputs(outputs)
        if self._steps is None:
            raise RuntimeError("no steps were set")
        return self._steps

    def unbind(self) -> None:
        """Drop the references to the memory of `rebind`."""
        self._launchers[0].clear_inputs()
        self._launchers[-1].clear_outputs()

    def _chunks(self, chunk: Chunk) -> list[Chunk]:
        """Return, for a chunk of the first stage's input, the chunk of each stage's input, without its memory."""
        chunks = [chunk]
        for place, (before, call) in enumerate(zip(self._calls, self._calls[1:], strict=False), start=1):
            port, one = before.outputs[0], chunks[-1]
            nbytes = port.nbytes(one.nbytes) or 0
            call.check_size(nbytes)
            if place >= self._every:
                chunks.append(Chunk(0, None, nbytes, 0, last=True))
            else:
                chunks.append(Chunk(one.number, None, nbytes, port.nbytes(one.offset) or 0, one.last))
        return chunks

    def _regions(self, chunks: Sequence[Chunk], outputs: Sequence[BufferRegion]) -> list[BufferRegion]:
        """Return the memory between each pair of stages."""
        regions: list[BufferRegion] = []
        behind = outputs[0]
        for place in reversed(range(1, len(chunks))):
            if not self._calls[place].inputs[0].changed:
                behind = self._region(
                    place - 1, chunks[place].nbytes, fresh=self._has_initial_values(place - 1, chunks)
                )
            regions.append(behind)
        return regions[::-1]

    def _has_initial_values(self, place: int, chunks: Sequence[Chunk]) -> bool:
        """Return whether the host writes first values to the output of stage `place`, or of in-place stages before."""
        begun = False
        while True:
            keeps = is_reduction(self._calls[place]) and chunks[place].number > 0
            begun |= self._launchers[place].initializes_on_device and not keeps
            if not self._calls[place].inputs or not self._calls[place].inputs[0].changed:
                return begun
            place -= 1

    def _region(self, place: int, nbytes: int, *, fresh: bool) -> BufferRegion:
        memory = self._memory[place]
        if memory is None or memory.nbytes < nbytes or fresh:  # an earlier run may still use the old memory
            memory = self._memory[place] = DeviceArray(self._device, max(nbytes, 1), np.uint8, self._banks[place])
        return BufferRegion.of(memory).part(0, nbytes)

    def take_bytes_moved(self) -> tuple[int, int]:
        """Return the bytes that runs have moved to the device and from it since the last call."""
        moved = [launcher.take_bytes_moved() for launcher in self._launchers]
        return sum(to_device for to_device, _ in moved), sum(from_device for _, from_device in moved)

    def clear_regions(self) -> None:
        """Drop the references to the last run's input and output memory."""
        self.steps_of = None
        for launcher in self._launchers:
            launcher.clear_regions()

    def read_report(self) -> tuple[int, int, int]:
        """Raise an error: no stage of a chain reports its size."""
        raise RuntimeError("a chain has no argument 'report'")


def _bank_between(calls: Sequence[BoundCall], kernels: Sequence[Kernel]) -> int:
    written = kernels[0].bank(calls[0].outputs[0].index)
    read = kernels[1].bank(calls[1].inputs[0].index)
    if written != read:
        raise ConfigurationError(
            f"stages: {calls[0].name!r} writes to memory bank {written}, and {calls[1].name!r} reads bank {read}; "
            "expected one bank"
        )
    return written
