"""Jobs of one run between device arrays: what does not change from job to job is decided once.

The first job of its kind goes through all of `apyfal.pipeline.run`. If that is one run of each kernel, and nothing
is written before the run, it leaves a `ResidentPlan`. A later job over arrays of the same shapes and types, with the
same parameters, only replaces the arrays among the arguments of a launcher.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from apyfal.device.context import frozen
from apyfal.device.regions import BufferRegion, Chunk
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.waiting import POLL_SECONDS, RunGroup, wait

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.grammar import Port
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl

__all__ = ["ResidentArguments", "ResidentPlan"]


def _arrays_of(context: DeviceContext, ports: Sequence[Port], value: object) -> list[DeviceArray] | None:
    """Return the device arrays that a job uses as inputs or outputs of these names.

    Returns
    -------
    list or None
        ``None``: some are not device arrays, are missing, or are on another device.
    """
    if isinstance(value, DeviceArray):
        return [value] if len(ports) == 1 and value.device is context.device else None
    if not isinstance(value, Mapping):
        return [] if value is None and not ports else None
    names = [port.name for port in ports]
    if value.keys() != set(names):
        return None
    found = [one for one in map(value.get, names) if isinstance(one, DeviceArray) and one.device is context.device]
    return found if len(found) == len(names) else None


class ResidentArguments(NamedTuple):
    """The arguments of a job all of whose data is in device arrays.

    Attributes
    ----------
    plan
        What an earlier job of this kind has decided; ``None``: there was none.
    key
        Equal for all jobs of one kind.
    sources, dsts
        Its arrays.
    """

    plan: ResidentPlan | None
    key: Hashable
    sources: Sequence[DeviceArray]
    dsts: Sequence[DeviceArray]

    @classmethod
    def of(
        cls,
        context: DeviceContext,
        src: object,
        dst: object,
        parameters: Mapping[str, object],
        memory_limit: int | None,
    ) -> ResidentArguments | None:
        """Return the arguments of `process` in this form; ``None``: some of the data is elsewhere."""
        definition = context.definition
        sources = _arrays_of(context, definition.inputs, src)
        dsts = None if sources is None else _arrays_of(context, definition.outputs, dst)
        if sources is None or dsts is None or (len(dsts) > 1 and len(set(map(id, dsts))) < len(dsts)):
            return None
        key = (
            ResidentPlan,
            memory_limit,
            tuple([(one.shape, one.dtype, one.bank) for one in sources]),
            tuple([(one.shape, one.dtype, one.bank) for one in dsts]),
            *[(name, frozen(value)) for name, value in parameters.items()],
        )
        try:
            return cls(context.direct.get(key), key, sources, dsts)
        except TypeError:  # a parameter that cannot be hashed
            return None


class ResidentPlan:
    """The decisions that all jobs of one kind share. Usable from any thread.

    Parameters
    ----------
    call
        What is run, with the outputs' sizes.
    names
        Names of the outputs.
    bytes_in
        Bytes of each input.
    bytes_out
        Bytes that the kernel writes to each output.

    Attributes
    ----------
    largest
        Bytes of all inputs or of all outputs, whichever are more.
    """

    def __init__(
        self, call: BoundCall, names: Sequence[str], bytes_in: Sequence[int], bytes_out: Sequence[int]
    ) -> None:
        self._call = call
        self._names = tuple(names)
        self._bytes_in = tuple(bytes_in)
        self._bytes_out = tuple(bytes_out)
        self.largest = max(sum(bytes_in), sum(bytes_out))

    def run(
        self, context: DeviceContext, sources: Sequence[DeviceArray], dsts: Sequence[DeviceArray], control: JobControl
    ) -> None:
        """Run a job over these arrays, of the shapes and types that this was made for, and wait for its end.

        Raises
        ------
        ClosedError
            An array was closed.
        Aborted, RunTimeout, AcceleratorException
            As `apyfal.device.waiting.wait` does.
        """
        inputs, outputs = [one.buffer()[0] for one in sources], [one.buffer()[0] for one in dsts]
        launcher = context.acquire_launcher(self._call)
        if launcher.steps_of is not self:
            launcher.set_steps(self, *self._chunk(sources, dsts))
        left = control.seconds_left()
        runs = launcher.rebind(inputs, outputs).run(POLL_SECONDS if left is None or left > POLL_SECONDS else left)
        if runs is not None:
            wait(RunGroup(runs), control)
        launcher.unbind()
        context.release_launcher(self._call, launcher)
        for source in sources:
            if source.writer is not None:
                source.settle()
        for dst in dsts:
            dst.written()

    def start(self, context: DeviceContext, sources: Sequence[DeviceArray], dsts: Sequence[DeviceArray]) -> RunGroup:
        """Start the runs of a job without waiting for them."""
        inputs, outputs = [one.buffer()[0] for one in sources], [one.buffer()[0] for one in dsts]
        launcher = context.acquire_launcher(self._call)
        if launcher.steps_of is not self:
            launcher.set_steps(self, *self._chunk(sources, dsts))
        runs = RunGroup(launcher.rebind(inputs, outputs).start())
        launcher.unbind()
        context.release_launcher(self._call, launcher)
        return runs

    def value(self, dsts: Sequence[DeviceArray]) -> Any:
        """Return what the job returns: the output, or a mapping of several by their names."""
        return dsts[0] if len(dsts) == 1 else dict(zip(self._names, dsts, strict=True)) or None

    def _chunk(self, sources: Sequence[DeviceArray], dsts: Sequence[DeviceArray]) -> tuple[Chunk, list[BufferRegion]]:
        chunks = [
            Chunk(0, BufferRegion.of(one), nbytes, 0, last=True)
            for one, nbytes in zip(sources, self._bytes_in, strict=True)
        ]
        first = chunks[0]._replace(companions=tuple(chunks[1:])) if chunks else Chunk(0, None, 0, 0, last=True)
        return first, [BufferRegion.of(one).part(0, nbytes) for one, nbytes in zip(dsts, self._bytes_out, strict=True)]
