"""How a job's input is cut: chunk size and ring depth, from the definition, the device and the memory limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from apyfal.exceptions import ParameterError
from apyfal.memory import charge
from apyfal.units import format_size

if TYPE_CHECKING:
    from apyfal._core.device import DeviceInfo
    from apyfal.definition.bound_call import BoundCall, CallInput, CallPort

__all__ = ["DEFAULT_MEMORY_LIMIT", "Plan", "PortPlan", "make_plan"]

#: Bytes of pinned ring memory that a job uses at most, where nothing else is said.
DEFAULT_MEMORY_LIMIT = 256 << 20

#: Large enough that a chunk's fixed costs (some 100 us in all stages together) vanish beside its DMA (800 us at
#: 10 GB/s), and to be a part of an upload (5 MiB and more); small enough that the stages overlap early. Measured by
#: `bench/jobs/bench_chunks.py`, in times of the card's link alone: chunks of 1 to 4 MiB 1.01, 8 MiB 1.02, 16 MiB 1.05,
#: 32 MiB 1.11. So little lies between them that measuring in the running job would bring nothing.
_CHUNK = 8 << 20
#: One chunk in each of the three stages that touch a ring (being filled, on the card, being emptied), and one for
#: threads that are woken late. Measured likewise: 2 slots 1.38, 3 to 6 slots 1.02.
_DEPTH = 4
#: What a ring needs beside the chunks that arrive, or are sent, at once.
_BESIDE = 2
#: Where several ranges of an object arrive at once, the first chunk is cut into smaller ones: a 16th, another, an 8th,
#: a quarter and a half. So the card begins when the 16th has arrived, over each of the connections.
_FIRST = 16


class PortPlan(NamedTuple):
    """What the plan needs to know of one input or output of a job.

    Attributes
    ----------
    port
        Which.
    nbytes
        Bytes that an input has in all; ``None`` where that is not known before the end, and for outputs.
    ring
        Whether it goes through a ring; arrays used in place need no memory of the job's.
    connections
        Chunks that are received, or sent, at once; 0 is one after the other.
    """

    port: CallPort
    nbytes: int | None
    ring: bool
    connections: int

    @property
    def depth(self) -> int:
        """Slots of its ring, where there are several chunks."""
        return max(_DEPTH, self.connections + _BESIDE)


class Plan(NamedTuple):
    """How to cut.

    Attributes
    ----------
    chunk
        Bytes of the first input a run, but for the last.
    first
        Bytes of the first run where the chunks at the front grow (see `cut`); otherwise as `chunk`.
    single
        The whole job is one run.
    """

    chunk: int
    first: int
    single: bool

    def depth(self, end: PortPlan | None = None) -> int:
        """Return the slots of a ring; of one that only copies pass through, without `end`."""
        return 1 if self.single else _DEPTH if end is None else end.depth

    def cut(self, port: CallInput, total: int) -> list[tuple[int, int]]:
        """Return offset and bytes of each chunk of an input of `total` bytes; every `chunk` bytes one begins."""
        if self.single:
            return [(0, total)]
        chunk = port.beside(self.chunk)
        cuts: list[tuple[int, int]] = []
        offset, nbytes = 0, port.beside(self.first)
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
    room: int | None = None,
) -> Plan:
    """Choose the chunk size, and with it the rings.

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
    room
        Bytes that the device has for rings, which are as large there; ``None``: enough.

    Raises
    ------
    ParameterError
        The job cannot be done within the limit: the message says what it needs.
    """
    limit = DEFAULT_MEMORY_LIMIT if memory_limit is None else memory_limit
    total = inputs[0].nbytes if inputs else 0
    if call.granularity is None:
        unknown = [end.port.name for end in inputs if end.nbytes is None]
        if unknown or total is None:
            which = "this source" if len(inputs) == 1 else f"{unknown[0]!r}"
            raise ParameterError(
                f"accelerator {call.definition.name!r} takes its input whole, and the size of {which} is not known"
            )
        need = sum(end.nbytes or 0 for end in inputs if end.ring)
        need += sum(end.port.room(total) for end in outputs if end.ring)
        if memory_limit is not None and need > limit:
            raise ParameterError(
                f"accelerator {call.definition.name!r} takes its input whole: it needs {format_size(need)}, "
                f"memory_limit is {format_size(limit)}"
            )
        charge(need)
        return _single(total)
    rings = [end for end in (*inputs, *outputs) if end.ring]
    ceiling = min(filter(None, (call.chunk_limit, device["max_buffer"])), default=None)
    known = total is not None and (len(inputs) < 2 or all(end.nbytes is not None for end in inputs))
    if total is not None and known and not rings and _nothing_moves(call, device, total, ceiling):
        return _single(total)
    unit = call.unit
    chunk = max(_CHUNK // unit, 1) * unit
    most = limit if room is None else min(limit, room)
    while chunk > unit and (_need(chunk, rings) > most or (ceiling is not None and _largest(call, chunk) > ceiling)):
        chunk = max(chunk // 2 // unit, 1) * unit
    need = _need(chunk, rings)
    if need > limit:
        raise ParameterError(
            f"memory_limit of {format_size(limit)} is too small; this job's smallest ring takes {format_size(need)}"
        )
    if total is not None and known and total <= chunk:
        return _single(total)
    # Several inputs are cut at the same elements, and not all of them can arrive in ranges.
    grows = len(inputs) == 1 and inputs[0].connections and not chunk % (_FIRST * unit)
    return Plan(chunk, chunk // _FIRST if grows else chunk, single=False)


def _single(total: int) -> Plan:
    return Plan(total, total, single=True)


def _nothing_moves(call: BoundCall, device: DeviceInfo, total: int, ceiling: int | None) -> bool:
    """Where the device works in the arrays themselves there is no transfer to hide behind another chunk's computing."""
    if "separate-memory" in device["capabilities"]:
        return False
    return ceiling is None or _largest(call, total) <= ceiling


def _need(chunk: int, rings: list[PortPlan]) -> int:
    """Bytes of all rings' slots."""
    return sum(end.port.room(chunk) * end.depth for end in rings)


def _largest(call: BoundCall, chunk: int) -> int:
    """Bytes of the largest buffer that a run uses."""
    return max([port.room(chunk) for port in (*call.inputs, *call.outputs)])
