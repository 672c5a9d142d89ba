"""The output of a running job: the part that is final, from its beginning, for a client that takes it early."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from apyfal.exceptions import HostError
from apyfal.pipeline.outputs import watched

__all__ = ["EarlyOutput"]


class EarlyOutput:
    """The beginning of one job's output. The worker that runs the job never waits for the receiver.

    Made on the event loop, where all methods but `made_in` are called.

    Parameters
    ----------
    nbytes
        Size of the complete output.
    begun
        Called on the event loop whenever more of it is final.
    """

    def __init__(self, nbytes: int, begun: Callable[[], None]) -> None:
        self.nbytes = nbytes
        self._begun = begun
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._ended = False
        self._lock = threading.Lock()  # guards the following, which the worker changes
        self._view: memoryview | None = None
        self._final = 0
        self._woken = False
        self._dropped = False

    # -- the worker ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def made_in(self, array: np.ndarray[Any, Any]) -> Iterator[None]:
        """Within the ``with`` block, send what a job writes to `array`."""
        flat: np.ndarray[Any, Any] = array.reshape(-1).view(np.uint8)
        with self._lock:
            self._view = None if self._dropped else flat.data
        with watched(array, self._produced):
            yield

    def _produced(self, nbytes: int) -> None:
        with self._lock:
            if nbytes < self._final:  # the bytes that were sent cannot be replaced
                raise HostError("the job began again after a part of its output was sent")
            self._final = nbytes
            if self._woken or self._dropped:
                return
            self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop was closed before the job ended
            self._loop.call_soon_threadsafe(self._wake)

    # -- the event loop ------------------------------------------------------------------------------------------------
    def _wake(self) -> None:
        with self._lock:
            self._woken = False
            if self._dropped:
                return
        self._changed.set()
        self._begun()

    async def piece(self, start: int, most: int) -> memoryview:
        """Wait until more than `start` bytes are final; return up to `most` of the bytes from `start` on."""
        while True:
            with self._lock:
                view, final = self._view, self._final
                if view is not None and final > start:
                    return view[start : min(final, start + most)]
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        """Make the rest available: the job has succeeded."""
        with self._lock:
            self._final = self.nbytes
        self._ended = True
        self._changed.set()

    async def ended(self) -> None:
        """Wait for `end`."""
        while not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def drop(self) -> None:
        """Release the memory: nobody receives the rest."""
        with self._lock:
            self._dropped, self._view = True, None
        self._begun = _ignore


def _ignore() -> None:
    """Do nothing: replaces a callback whose owner is gone."""
