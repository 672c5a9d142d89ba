"""Several threads in one stage: side by side in what takes long, one after the other where order counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from apyfal.device.control import Aborted, Channel

if TYPE_CHECKING:
    from apyfal.device.control import JobControl

__all__ = ["OrderedSection"]

Item = TypeVar("Item")


class OrderedSection(Generic[Item]):
    """Numbers the items of a channel as they are taken, and lets whoever has them go on in that order.

    Parameters
    ----------
    control
        What ends the waiting when the job fails.
    channel
        Where the items come from.
    """

    def __init__(self, control: JobControl, channel: Channel[Item]) -> None:
        self._control = control
        self._channel = channel
        self._taking = threading.Lock()
        self._taken = 0
        self._done = 0

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        """Yield the items that fall to the calling thread, each with its number."""
        while True:
            with self._taking:
                try:
                    item = self._channel.get()
                except StopIteration:
                    return
                number = self._taken
                self._taken += 1
            yield number, item
            del item

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Let the block run when those of all earlier items have; `Aborted` when the job fails before."""
        changed = self._control.changed
        with changed:
            while self._done != number and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
        yield
        with changed:
            self._done = number + 1
            changed.notify_all()
