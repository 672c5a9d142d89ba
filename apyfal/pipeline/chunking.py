"""How a job's input is cut: chunk size and ring depth, from the definition, the device and the memory limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from apyfal.definition.bound_call import CallOutput
from apyfal.exceptions import ParameterError
from apyfal.memory import charge
from apyfal.units import format_size

if TYPE_CHECKING:
    from apyfal._core.device import DeviceInfo
    from apyfal.definition.bound_call import BoundCall, CallInput, CallPort

__all__ = ["DEFAULT_MEMORY_LIMIT", "ChunkPlan", "PortPlan", "make_plan"]

#: Bytes of pinned memory for the rings of one job, by default.
DEFAULT_MEMORY_LIMIT = 256 << 20

#: Bytes of a chunk. Large enough that its fixed costs (about 100 us in all stages together) are small against its DMA
#: (800 us at 10 GB/s), and that it can be a part of an upload (5 MiB or more); small enough that stages soon overlap.
#: Measured by `bench/jobs/bench_chunks.py`, as multiples of the time that the device's link needs alone: chunks of 1 to
#: 4 MiB 1.01, 8 MiB 1.02, 16 MiB 1.05, 32 MiB 1.11. The differences are too small to justify tuning it in each job.
_CHUNK = 8 << 20
#: Buffers of a ring: one in each of the three stages that use it (being filled, on the device, being emptied), and one
#: for threads that wake up late. Measured by the same benchmark: 2 buffers 1.38, 3 to 6 buffers 1.02.
_DEPTH = 4
#: Buffers of a ring in addition to the chunks that are received, or sent, at once.
_EXTRA = 2
#: If several ranges of an object arrive at once, the first chunk is cut into smaller ones: a 16th, another, an 8th, a
#: quarter and a half. So the device starts when the first 16th has arrived, with all connections at work.
_FIRST = 16


class PortPlan(NamedTuple):
    """How one input or output of a job moves.

    Attributes
    ----------
    port
        The input or output.
    nbytes
        Bytes of an input; ``None``: known only at the end. ``None`` for outputs.
    ring
        Whether it goes through a ring. An array in place needs no memory from the job.
    connections
        Chunks that are received, or sent, at once; 0: one after the other.
    resident
        It is on the device already, or stays there.
    """

    port: CallPort
    nbytes: int | None
    ring: bool
    connections: int
    resident: bool = False

    @property
    def depth(self) -> int:
        """Buffers of its ring, for a job of several chunks."""
        return max(_DEPTH, self.connections + _EXTRA)


class ChunkPlan(NamedTuple):
    """How a job is cut.

    Attributes
    ----------
    chunk
        Bytes of the first input in each run except the last.
    first
        Bytes of the first input in the first run: less than `chunk` if chunks grow at the beginning, see `cut`.
    single
        Whether the whole job is one run.
    """

    chunk: int
    first: int
    single: bool

    def depth(self, port_plan: PortPlan | None = None) -> int:
        """Return the number of buffers of a port's ring; without `port_plan`, of a ring that only copies go through."""
        return 1 if self.single else _DEPTH if port_plan is None else port_plan.depth

    def cut(self, port: CallInput, total: int) -> list[tuple[int, int]]:
        """Return offset and size in bytes of each chunk of an input of `total` bytes.

        A chunk begins at each multiple of the chunk size; the first of these is cut further, into chunks that grow.
        """
        if self.single:
            return [(0, total)]
        chunk = port.companion_nbytes(self.chunk)
        cuts: list[tuple[int, int]] = []
        offset, nbytes = 0, port.companion_nbytes(self.first)
        while offset < total or not cuts:
            cuts.append((offset, min(nbytes, total - offset)))
            offset += nbytes
            nbytes = min(offset, chunk - offset) if offset < chunk else chunk
        return cuts


def make_plan(
    call: BoundCall,
    device: DeviceInfo,
    inputs: Sequence[PortPlan],
    outputs: Sequence[PortPlan],
    *,
    memory_limit: int | None,
    device_memory: int | None = None,
) -> ChunkPlan:
    """Choose the chunk size, and with it the size of the rings.

    Parameters
    ----------
    call
        The job.
    device
        What the driver says of the device.
    inputs, outputs
        The job's, in the call's order.
    memory_limit
        Bytes of ring memory at most; ``None``: `DEFAULT_MEMORY_LIMIT`.
    device_memory
        Bytes that the device has for its side of the rings; ``None``: enough.

    Raises
    ------
    ParameterError
        The job needs more memory than the limit: the message says how much. Or a run has more elements than the
        kernel's arguments can count.
    """
    plan = _plan(call, device, inputs, outputs, memory_limit, device_memory)
    total = inputs[0].nbytes if inputs else 0
    run = plan.chunk if total is None else min(plan.chunk, total)
    if call.chunk_limit is not None and run > call.chunk_limit:
        item = call.in_dtype.itemsize
        hint = "" if call.granularity is not None else ", or chunking = elements if the kernel can take parts"
        raise ParameterError(
            f"accelerator {call.name!r}: a run over {run // item} elements, and its arguments count "
            f"{call.chunk_limit // item} at most; expected a wider type for them{hint}"
        )
    return plan


def _plan(
    call: BoundCall,
    device: DeviceInfo,
    inputs: Sequence[PortPlan],
    outputs: Sequence[PortPlan],
    memory_limit: int | None,
    device_memory: int | None,
) -> ChunkPlan:
    limit = DEFAULT_MEMORY_LIMIT if memory_limit is None else memory_limit
    total = inputs[0].nbytes if inputs else 0
    if call.granularity is None:
        return _uncut(call, inputs, outputs, limit if memory_limit is not None else None)
    rings = [port_plan for port_plan in (*inputs, *outputs) if port_plan.ring]
    largest_buffer = min(filter(None, (call.chunk_limit, device["max_buffer"])), default=None)
    known = total is not None and (len(inputs) < 2 or all(port_plan.nbytes is not None for port_plan in inputs))
    moves = "separate-memory" in device["capabilities"] and not _all_resident(inputs, outputs)
    if total is not None and known and not rings and not moves and _fits_one_run(call, total, largest_buffer):
        return _single(total)
    granularity = call.aligned_granularity
    chunk = max(_CHUNK // granularity, 1) * granularity
    available = limit if device_memory is None else min(limit, device_memory)
    while chunk > granularity and (
        _ring_nbytes(chunk, rings) > available
        or (largest_buffer is not None and _largest_nbytes(call, chunk) > largest_buffer)
    ):
        chunk = max(chunk // 2 // granularity, 1) * granularity
    needed = _ring_nbytes(chunk, rings)
    if needed > limit:
        raise ParameterError(
            f"memory_limit of {format_size(limit)} is too small; this job's smallest ring takes {format_size(needed)}"
        )
    if total is not None and known and total <= chunk:
        return _single(total)
    # Chunks that grow are for one input only: several inputs are cut alike, and some may not arrive in ranges.
    grows = len(inputs) == 1 and inputs[0].connections and not chunk % (_FIRST * granularity)
    return ChunkPlan(chunk, chunk // _FIRST if grows else chunk, single=False)


def _uncut(
    call: BoundCall, inputs: Sequence[PortPlan], outputs: Sequence[PortPlan], memory_limit: int | None
) -> ChunkPlan:
    """Plan the one run of a kernel whose input must not be cut."""
    total = inputs[0].nbytes if inputs else 0
    unknown = [port_plan.port.name for port_plan in inputs if port_plan.nbytes is None]
    if unknown or total is None:
        which = "this source" if len(inputs) == 1 else f"{unknown[0]!r}"
        raise ParameterError(f"accelerator {call.name!r} takes its input whole, and the size of {which} is not known")
    needed = sum(port_plan.nbytes or 0 for port_plan in inputs if port_plan.ring)
    needed += sum(port_plan.port.buffer_nbytes(total) for port_plan in outputs if port_plan.ring)
    if memory_limit is not None and needed > memory_limit:
        raise ParameterError(
            f"accelerator {call.name!r} takes its input whole: it needs {format_size(needed)}, "
            f"memory_limit is {format_size(memory_limit)}"
        )
    charge(needed)
    return _single(total)


def _single(total: int) -> ChunkPlan:
    return ChunkPlan(total, total, single=True)


def _all_resident(inputs: Sequence[PortPlan], outputs: Sequence[PortPlan]) -> bool:
    """Return whether no chunk of the job moves: there is no transfer that another run could hide."""
    cut = [one for one in outputs if not isinstance(one.port, CallOutput) or one.port.fixed_nbytes is None]
    return all(port_plan.resident for port_plan in (*inputs, *cut))


def _fits_one_run(call: BoundCall, total: int, largest_buffer: int | None) -> bool:
    return largest_buffer is None or _largest_nbytes(call, total) <= largest_buffer


def _ring_nbytes(chunk: int, rings: list[PortPlan]) -> int:
    """Return the bytes of all rings together."""
    return sum(port_plan.port.buffer_nbytes(chunk) * port_plan.depth for port_plan in rings)


def _largest_nbytes(call: BoundCall, chunk: int) -> int:
    """Return the bytes of the largest buffer that a run uses."""
    return max([port.buffer_nbytes(chunk) for port in (*call.inputs, *call.outputs)])
