"""How many connections a transfer is worth, found out while it runs."""

from __future__ import annotations

import time

from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.handler import Handler

__all__ = ["SLOW", "AdaptiveConcurrency"]

#: Bytes a second below which a connection is held back by the store (object stores give each some 50 to 90 MB/s), so
#: that a few at once are right from the start. Faster ones share what limits them, mostly a processor.
SLOW = 100e6
_FEW = 4
#: How often the number is looked at (seconds), how long new connections may take to get going before they are measured,
#: and how many times the rate a step must bring.
_WINDOW = 0.25
_SETTLE = 0.1
_GAIN = 1.15


class AdaptiveConcurrency:
    """Adapts the number of connections of one transfer. The owner's lock guards it.

    It begins with as few as `first`. Where they turn out slow there are a few at once, and more as long as each step
    raises the rate by 15 %. Where they are fast one more is tried, as on a fast network a second one may have a
    processor to itself, and given up when it brings nothing: it would only cost CPU time.

    Parameters
    ----------
    options, handler
        The limits. With ``options.concurrency`` nothing adapts.
    step
        Bytes after which `moved` is called: rates over less say nothing.
    first
        Connections to begin with.
    most
        Connections at most, besides the limits.

    Attributes
    ----------
    target
        Connections that there should be now; the owner starts and ends threads accordingly.
    most
        Upper limit of `target`.
    """

    def __init__(
        self, options: TransferOptions, handler: Handler, *, step: int, first: int = 1, most: int | None = None
    ) -> None:
        few, allowed = options.connections(handler)
        self.most = allowed if most is None else max(1, min(allowed, most))
        self._few = min(few, self.most)
        self.target = self._few if options.concurrency is not None else min(first, self.most)
        self._step = step
        self._settled = self.target >= self.most
        self._ranked = first >= _FEW
        self._before = (0, 0.0)  # connections before the last step, and their rate
        self._moved = 0
        self._window = (time.monotonic(), 0)

    @property
    def poll_interval(self) -> float | None:
        """Seconds after which `update` may say something new though nothing moved; ``None``: never."""
        return None if self._settled else max(_WINDOW, self._step / SLOW)

    def moved(self, count: int) -> None:
        """Note that `count` more bytes have moved."""
        self._moved += count
        if not self._settled:
            self.update()

    def update(self) -> None:
        """Decide again."""
        if self._settled:
            return
        now = time.monotonic()
        since, before = self._window
        if now < since:  # new connections are getting going
            self._window = (since, self._moved)
            return
        seconds, moved = now - since, self._moved - before
        if not self._ranked:
            if moved >= self._step or seconds >= self._step / SLOW:
                self._ranked = True
                if moved < seconds * SLOW * self.target:
                    self._go_to(self._few, now)
            return
        if seconds < _WINDOW or moved < 2 * self._step * self.target:
            return
        rate = moved / seconds
        connections, earlier = self._before
        if earlier and rate < earlier * _GAIN:
            self.target, self._settled = connections, True
        elif self.target == self.most:
            self._settled = True
        else:
            self._before = (self.target, rate)
            slow = rate < self.target * SLOW
            self._go_to(min(self.most, self.target + (max(1, self.target // 2) if slow else 1)), now)

    def _go_to(self, target: int, now: float) -> None:
        self.target = target
        self._window = (now + _SETTLE, self._moved)
