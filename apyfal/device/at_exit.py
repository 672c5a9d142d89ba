"""Stops what is still open when the interpreter ends: vendor libraries abort the process when handles are open."""

from __future__ import annotations

import atexit
import weakref
from contextlib import ExitStack
from typing import Protocol

from apyfal.exceptions import AcceleratorException

__all__ = ["Stoppable", "forget", "remember"]


class Stoppable(Protocol):
    """What has to be stopped before the process ends."""

    def stop(self) -> None:
        """Close the device."""


_open: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def remember(one: Stoppable) -> None:
    """Stop `one` at exit, if it is still there."""
    _open.add(one)


def forget(one: Stoppable) -> None:
    """Take `one` off the list: it was stopped."""
    _open.discard(one)


def _stop_all() -> None:
    with ExitStack() as stack:
        for one in list(_open):
            stack.callback(_stop_quietly, one)


def _stop_quietly(one: Stoppable) -> None:
    try:
        one.stop()
    except AcceleratorException:
        from apyfal.log import get_logger

        get_logger().debug("a device could not be closed at exit", exc_info=True)


atexit.register(_stop_all)
