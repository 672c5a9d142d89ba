"""Where the data of many small jobs lies: side by side in one buffer for all inputs and one for all outputs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from apyfal._core.device import DeviceInfo
    from apyfal.definition.bound_call import BoundCall

__all__ = ["PACK", "SMALL", "Packer", "Place"]

#: Inputs up to here travel together: at 10 GB/s the transfer of more takes longer (25 us) than its start (5 to 20 us).
SMALL = 256 << 10
#: Bytes of input that travel together: a transfer of so much takes 200 us at 10 GB/s, ten times its start. More brings
#: nothing (`bench/jobs/bench_small_jobs.py`), and would leave the processor's cache between packing and transfer.
PACK = 2 << 20

_PAGE = 4096
#: A kernel with one of these treats its input as a whole with a beginning, an end and positions.
_POSITIONAL = frozenset({"state", "report", "offset", "skip", "first", "last"})


class Place(NamedTuple):
    """Where one job's data is: offset and bytes of its input, offset and room of its output."""

    start: int
    nbytes: int
    out_start: int
    out_nbytes: int


class Packer:
    """Hands out places, to any thread.

    Attributes
    ----------
    merged
        The definition says that its input may be cut between any two elements, and no run knows where it was cut: then
        inputs one behind the other are one input, and one run does all jobs. Otherwise each job is a run of its own, at
        its place.
    possible
        Whether jobs of this definition can travel together on this device at all.
    used, out_used
        Bytes handed out so far.
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
        self._align = device["offset_align"] if "offset" in device["capabilities"] else _PAGE
        self._room = min(filter(None, (PACK, call.chunk_limit, device["max_buffer"])))
        self._out_room = device["max_buffer"] or None
        self._rooms: dict[int, int | None] = {}  # jobs that travel together tend to be of one size
        self.used = self.out_used = 0

    @property
    def room(self) -> int:
        """Bytes of input that fit."""
        return self._room

    def place(self, nbytes: int) -> Place | None:
        """Return a place for a job of `nbytes` of input; ``None``: there is no room, or it is no job for this.

        The caller gives every place its data or leaves it as it is: nobody reads what a run makes of it then.
        """
        room = self._rooms.get(nbytes, -1)
        if room == -1:
            room = self._rooms[nbytes] = self._room_for(nbytes)
        if room is None:
            return None
        with self._lock:
            if self.merged:
                start, out_start = self.used, self.out_used
            else:
                start, out_start = (-(-end // self._align) * self._align for end in (self.used, self.out_used))
            if start + nbytes > self._room or (self._out_room is not None and out_start + room > self._out_room):
                return None
            self.used, self.out_used = start + nbytes, out_start + room
        return Place(start, nbytes, out_start, room)

    def _room_for(self, nbytes: int) -> int | None:
        """Return the room that a job's output needs; ``None``: it is no job for this."""
        if not 0 < nbytes <= SMALL:
            return None
        try:
            self._call.check_size(nbytes)
            return self._call.outputs[0].room(nbytes)
        except ParameterError:
            return None
