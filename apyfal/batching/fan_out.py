"""The same work on many things side by side, where each waits for the network or a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from apyfal.device.control import Aborted
from apyfal.device.waiting import GRACE, LOOK
from apyfal.storage.flow.cancel import CancelToken

if TYPE_CHECKING:
    from apyfal.device.control import JobControl

__all__ = ["FanOut"]

_Item = TypeVar("_Item")

#: Seconds of processor time that one small file or object costs, roughly: what takes no longer does not wait, and more
#: threads would only take turns at the interpreter.
_OWN_WORK = 250e-6


class FanOut:
    """Calls a function with each of several items, in as many threads as are worth it.

    That is learned from one call to the next: the fastest item of each says how long all of them wait at least: 0.1 ms
    for a local file, a round trip for an object.

    Parameters
    ----------
    most
        Threads at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.width = 1

    def __call__(self, work: Callable[[_Item], None], items: Sequence[_Item], control: JobControl) -> None:
        """Do all of them.

        Parameters
        ----------
        work
            Keeps its own errors.
        items
            Begun in this order.
        control
            When its deadline passes or it fails, the transfers under way in `work` are cancelled.

        Raises
        ------
        Aborted, RunTimeout
            As `control` says; not all of the items were done.
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
            with control.telling(cancel.set):
                body()
            if control.failed:
                raise Aborted
        else:
            self._side_by_side(body, count, cancel, control)
        self.width = min(max(round(fastest[0] / _OWN_WORK), 1), self._most)

    @staticmethod
    def _side_by_side(body: Callable[[], None], count: int, cancel: CancelToken, control: JobControl) -> None:
        running = [threading.Thread(target=body, name=f"apyfal-side-{number}", daemon=True) for number in range(count)]
        for thread in running:
            thread.start()
        try:
            for thread in running:
                while thread.is_alive():
                    if control.failed:
                        raise Aborted
                    seconds = control.seconds_left()
                    thread.join(LOOK if seconds is None else min(LOOK, seconds))
        except BaseException:
            cancel.set()
            for thread in running:
                thread.join(GRACE)
            raise
