"""The layout of a batch: all inputs one after the other in one buffer, all outputs in another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from apyfal._core.device import DeviceInfo
    from apyfal.definition.bound_call import BoundCall

__all__ = ["BATCH_NBYTES", "SMALL_NBYTES", "BatchSlot", "Packer"]

#: Largest input of a job in a batch, in bytes. At 10 GB/s, the transfer of more takes longer (25 us) than starting it
#: (5 to 20 us).
SMALL_NBYTES = 256 << 10
#: Bytes of input of a batch. At 10 GB/s their transfer takes 200 us, ten times as long as starting it. More gains
#: nothing (`bench/jobs/bench_small_jobs.py`), and would no longer be in the processor's cache when it is transferred.
BATCH_NBYTES = 2 << 20

_PAGE = 4096
#: A kernel with one of these arguments needs to know where its input begins and ends, or its position.
_POSITIONAL = frozenset({"state", "report", "offset", "skip", "first", "last"})


class BatchSlot(NamedTuple):
    """Where one job's data is, in bytes: offset and size of its input, offset and capacity of its output."""

    start: int
    nbytes: int
    out_start: int
    out_nbytes: int


class Packer:
    """Gives each job of a batch a place in the two buffers. All methods may be called from any thread.

    Parameters
    ----------
    call
        Of all jobs.
    device
        What the driver says of the device: alignment and the size of its buffers.

    Attributes
    ----------
    merged
        Whether one run does all jobs: if the definition allows a cut between any two elements, and no argument depends
        on where the cut is, adjacent inputs are one input. Otherwise each job is a run of its own.
    possible
        Whether jobs of this definition can be batched on this device.
    capacity
        Bytes of input that fit.
    used, out_used
        Bytes of input and of output that have been assigned to jobs.
    """

    def __init__(self, call: BoundCall, device: DeviceInfo) -> None:
        self._call = call
        self._lock = threading.Lock()
        names = {argument.name for argument in call.arguments}
        self.merged = (
            call.granularity is not None
            and all(output.rule.kind in ("same", "factor") for output in call.outputs)
            and not names & _POSITIONAL
        )
        self.possible = len(call.inputs) == len(call.outputs) == 1 and "import" in device["capabilities"]
        # arguments that depend on the sizes of one job's data, or are filled before its run, belong to that job alone
        self.possible &= not call.needs_sources and all(output.initial is None for output in call.outputs)
        self._align = device["offset_align"] if "offset" in device["capabilities"] else _PAGE
        self.capacity = min(filter(None, (BATCH_NBYTES, call.chunk_limit, device["max_buffer"])))
        self._out_capacity = device["max_buffer"] or None
        self._out_nbytes: dict[int, int | None] = {}  # by bytes of input: jobs of a batch tend to be of one size
        self.used = self.out_used = 0

    def place(self, nbytes: int, room: BatchSlot | None = None) -> BatchSlot | None:
        """Return a place for a job with `nbytes` of input; ``None``: there is no space, or the job cannot be batched.

        A place that is not filled is harmless: the output of a run over it is not read. `room` is an unused place from
        an earlier call: if it is large enough, its beginning becomes the place.
        """
        out_nbytes = self._out_nbytes.get(nbytes, -1)
        if out_nbytes == -1:
            out_nbytes = self._out_nbytes[nbytes] = self._output_nbytes(nbytes)
        if out_nbytes is None:
            return None
        if room is not None and nbytes <= room.nbytes and out_nbytes <= room.out_nbytes:
            return BatchSlot(room.start, nbytes, room.out_start, out_nbytes)
        with self._lock:
            if self.merged:
                start, out_start = self.used, self.out_used
            else:
                start, out_start = (-(-end // self._align) * self._align for end in (self.used, self.out_used))
            if start + nbytes > self.capacity:
                return None
            if self._out_capacity is not None and out_start + out_nbytes > self._out_capacity:
                return None
            self.used, self.out_used = start + nbytes, out_start + out_nbytes
        return BatchSlot(start, nbytes, out_start, out_nbytes)

    def _output_nbytes(self, nbytes: int) -> int | None:
        """Return the bytes that a job's output needs; ``None``: the job cannot be batched."""
        if not 0 < nbytes <= SMALL_NBYTES:
            return None
        try:
            self._call.check_size(nbytes)
            return self._call.outputs[0].buffer_nbytes(nbytes)
        except ParameterError:
            return None
