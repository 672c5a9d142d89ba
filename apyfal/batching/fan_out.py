"""Call a function with many items, in a number of threads that follows from how long the calls wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from apyfal.device.control import Aborted
from apyfal.device.waiting import GRACE_SECONDS, POLL_SECONDS
from apyfal.storage.flow.cancel import CancelToken
from apyfal.threads import start_threads

if TYPE_CHECKING:
    from apyfal.device.control import JobControl

__all__ = ["FanOut", "StorageFanOut"]

_Item = TypeVar("_Item")

#: Approximate processor time in seconds for one small file or object. Work that takes no longer than this does not
#: wait for anything, and more threads would only compete for the interpreter.
_CPU_SECONDS = 250e-6
#: Small objects that are fetched, or stored, at once by each thread that runs batches.
_MAX_WIDTH = 8


class FanOut:
    """Calls a function with each of several items, in as many threads as are useful.

    The number adapts from call to call: the fastest item of a call shows the least time for which every item waits
    (0.1 ms for a local file, a round trip for an object of a store).

    Parameters
    ----------
    most
        The largest number of threads.

    Attributes
    ----------
    width
        Threads of the next call.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.width = 1

    def __call__(self, work: Callable[[_Item], None], items: Sequence[_Item], control: JobControl) -> None:
        """Call `work` with each item.

        Parameters
        ----------
        work
            Handles its own errors.
        items
            Started in this order.
        control
            If its deadline passes or it fails, the transfers that `work` has started are cancelled.

        Raises
        ------
        Aborted, RunTimeout
            The job failed, or its deadline passed. Some of the items were not done.
        """
        if not items:
            return
        cancel = CancelToken()
        left = iter(items)
        lock = threading.Lock()
        fastest = [float("inf")]

        def body() -> None:
            with cancel.scope():
                while not cancel.is_set():
                    with lock:
                        item = next(left, None)
                    if item is None:
                        return
                    start = perf_counter()
                    work(item)
                    fastest[0] = min(fastest[0], perf_counter() - start)

        count = min(self.width, len(items))
        if count == 1 and control.deadline is None:
            with control.on_failure(cancel.set):
                body()
            if control.failed:
                raise Aborted
        else:
            self._in_threads(body, count, cancel, control)
        self.width = min(max(round(fastest[0] / _CPU_SECONDS), 1), self._most)

    @staticmethod
    def _in_threads(body: Callable[[], None], count: int, cancel: CancelToken, control: JobControl) -> None:
        threads: list[threading.Thread] = []
        try:
            for thread in start_threads("fan-out", count, body, threads):
                while thread.is_alive():
                    if control.failed:
                        raise Aborted
                    seconds = control.seconds_left()
                    thread.join(POLL_SECONDS if seconds is None else min(POLL_SECONDS, seconds))
        except BaseException:
            cancel.set()
            for thread in threads:
                thread.join(GRACE_SECONDS)
            raise


class StorageFanOut:
    """Fetch and store the data of an accelerator's batches. For each direction, the number of threads adapts.

    Attributes
    ----------
    fetch, store
        The two directions.
    together
        For objects that one call transfers together.
    object_nbytes
        Likely size of the next object: that of all objects of the last batch that was received together; 0: they
        differed. A batch is received where it is needed if this is right, and copied there if not.
    """

    def __init__(self) -> None:
        self.fetch = FanOut(_MAX_WIDTH)
        self.store = FanOut(_MAX_WIDTH)
        self.together = FanOut(1)
        self.object_nbytes = 0
