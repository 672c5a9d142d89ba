"""The same work on many things side by side, where each waits for the network or a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from apyfal.pipeline.channel import Aborted
from apyfal.pipeline.waiting import GRACE, LOOK
from apyfal.storage.cancel import Cancel

if TYPE_CHECKING:
    from apyfal.pipeline.channel import Control

__all__ = ["spread"]

_Item = TypeVar("_Item")


def spread(work: Callable[[_Item], None], items: Sequence[_Item], threads: int, control: Control) -> None:
    """Call `work` with each of the items, in several threads.

    Parameters
    ----------
    work
        Keeps its own errors.
    items
        Begun in this order.
    threads
        How many at once.
    control
        When its deadline passes or it fails, the transfers under way in `work` are cancelled.

    Raises
    ------
    Aborted, RunTimeout
        As `control` says; not all of the items were done.
    """
    if len(items) == 1 and control.deadline is None:
        work(items[0])
        return
    cancel = Cancel()
    left = iter(items)
    lock = threading.Lock()

    def body() -> None:
        with cancel.scope():
            while not cancel.is_set():
                with lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item)

    running = [
        threading.Thread(target=body, name=f"apyfal-side-{number}", daemon=True)
        for number in range(min(threads, len(items)))
    ]
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
