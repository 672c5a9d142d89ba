"""How a job's input is cut: chunk size and ring depth, from the definition, the device and the memory limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apyfal.exceptions import ParameterError
from apyfal.units import format_size

if TYPE_CHECKING:
    from apyfal._core.device import DeviceInfo
    from apyfal.call import Call

__all__ = ["DEFAULT_MEMORY_LIMIT", "Plan", "make_plan"]

#: Bytes of pinned ring memory that a job uses at most, where nothing else is said.
DEFAULT_MEMORY_LIMIT = 256 << 20

#: Large enough that a chunk's fixed costs (some 100 us in all stages together) vanish beside its DMA (800 us at
#: 10 GB/s), and to be a part of an upload (5 MiB and more); small enough that the stages overlap early. Measured by
#: `bench/bench_chunks.py`, in times of the card's link alone, on a machine with other work: chunks of 1 MiB 1.40, 4 MiB
#: 1.35, 8 MiB 1.22, 32 MiB 1.16.
_CHUNK = 8 << 20
#: One chunk in each of the three stages that touch a ring (being filled, on the card, being emptied), and one for
#: threads that are woken late. Measured likewise: 2 slots 1.89, 3 slots 1.22, 4 slots 1.05, 5 slots 1.09.
_DEPTH = 4
#: What a ring needs beside the chunks that arrive, or are sent, at once.
_BESIDE = 2
#: Where several ranges of an object arrive at once, the first chunk is cut into smaller ones: a 16th, another, an 8th,
#: a quarter and a half. So the card begins when the 16th has arrived, over each of the connections.
_FIRST = 16
#: Offsets in buffer objects that every driver accepts.
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """How to cut.

    Attributes
    ----------
    chunk
        Bytes of input a run, but for the last.
    first
        Bytes of the first run where the chunks at the front grow (see `cut`); otherwise as `chunk`.
    capacity
        Bytes of output a run has room for.
    depth
        Slots of a ring.
    in_depth, out_depth
        Slots of the ring that the input is received into, and of the one that the output is sent from.
    single
        The whole job is one run.
    """

    chunk: int
    first: int
    capacity: int
    depth: int
    in_depth: int
    out_depth: int
    single: bool

    def cut(self, total: int) -> list[tuple[int, int]]:
        """Return offset and bytes of each chunk of `total` bytes; every `chunk` bytes from the front one begins."""
        cuts: list[tuple[int, int]] = []
        offset, nbytes = 0, self.first
        while offset < total or not cuts:
            cuts.append((offset, min(nbytes, total - offset)))
            offset += nbytes
            nbytes = min(offset, self.chunk - offset) if offset < self.chunk else self.chunk
        return cuts


def make_plan(
    call: Call,
    device: DeviceInfo,
    total: int | None,
    *,
    in_ring: bool,
    out_ring: bool,
    memory_limit: int | None,
    connections: int = 0,
    parts: int = 0,
) -> Plan:
    """Choose chunk size and depth.

    Parameters
    ----------
    call
        The job.
    device
        What the driver says of the device.
    total
        Bytes of input; ``None`` where that is not known before the end.
    in_ring, out_ring
        Whether input and output go through a ring; arrays used in place need no memory of the job's.
    memory_limit
        Bytes of ring memory at most; ``None``: `DEFAULT_MEMORY_LIMIT`.
    connections
        Chunks that are received at once; 0 is one after the other.
    parts
        Chunks of output that are sent at once; 0 is one after the other.

    Raises
    ------
    ParameterError
        The job cannot be done within the limit: the message says what it needs.
    """
    limit = DEFAULT_MEMORY_LIMIT if memory_limit is None else memory_limit
    if call.granularity is None:
        if total is None:
            raise ParameterError(
                f"accelerator {call.definition.name!r} takes its input whole, and the size of this source is not known"
            )
        plan = _single(call, total)
        need = total * in_ring + plan.capacity * out_ring
        if memory_limit is not None and need > limit:
            raise ParameterError(
                f"accelerator {call.definition.name!r} takes its input whole: it needs {format_size(need)}, "
                f"memory_limit is {format_size(limit)}"
            )
        return plan
    unit = _unit(call)
    in_depth, out_depth = max(_DEPTH, connections + _BESIDE), max(_DEPTH, parts + _BESIDE)
    chunk = max(_CHUNK // unit, 1) * unit
    ceiling = min(filter(None, (call.chunk_limit, device["max_buffer"])), default=None)
    while chunk > unit and (
        _need(call, chunk, in_depth * in_ring, out_depth * out_ring) > limit
        or (ceiling is not None and max(chunk, call.capacity(chunk)) > ceiling)
    ):
        chunk = max(chunk // 2 // unit, 1) * unit
    need = _need(call, chunk, in_depth * in_ring, out_depth * out_ring)
    if need > limit:
        raise ParameterError(
            f"memory_limit of {format_size(limit)} is too small; this job's smallest ring takes {format_size(need)}"
        )
    if total is not None and (total <= chunk or _nothing_moves(call, device, total, ceiling, in_ring or out_ring)):
        return _single(call, total)
    first = chunk // _FIRST if connections and not chunk % (_FIRST * unit) else chunk
    return Plan(chunk, first, call.capacity(chunk), _DEPTH, in_depth, out_depth, single=False)


def _single(call: Call, total: int) -> Plan:
    return Plan(total, total, call.capacity(total), 1, 1, 1, single=True)


def _nothing_moves(call: Call, device: DeviceInfo, total: int, ceiling: int | None, rings: bool) -> bool:
    """Where the device works in the arrays themselves there is no transfer to hide behind another chunk's computing."""
    if rings or "separate-memory" in device["capabilities"]:
        return False
    return ceiling is None or max(total, call.capacity(total)) <= ceiling


def _need(call: Call, chunk: int, in_slots: int, out_slots: int) -> int:
    return chunk * in_slots + call.capacity(chunk) * out_slots


def _unit(call: Call) -> int:
    """The smallest input that keeps both sides' offsets at pages."""
    unit = math.lcm(call.granularity or 1, _PAGE)
    if call.definition.output.kind in ("same", "factor"):
        output = call.output_bytes(unit) or _PAGE
        unit *= _PAGE // math.gcd(output, _PAGE)
    return unit
