"""Close open devices when the interpreter exits: vendor libraries abort the process if handles are still open."""

from __future__ import annotations

import atexit
import logging
import weakref
from contextlib import ExitStack
from typing import Protocol

from apyfal.exceptions import AcceleratorException

__all__ = ["Stoppable", "is_exiting", "register", "unregister"]

_LOG = logging.getLogger("apyfal.device")


class Stoppable(Protocol):
    """An object that must be stopped before the process ends."""

    def stop(self) -> None:
        """Close the device."""


#: Weak references by `id`. Not a `WeakSet`: another thread may register an owner while this one lists them.
_open: dict[int, weakref.ref[Stoppable]] = {}
_exiting = False


def register(owner: Stoppable) -> None:
    """Call ``owner.stop()`` at exit if `owner` is still alive. This does not keep it alive."""
    key = id(owner)
    _open[key] = weakref.ref(owner, lambda gone: _open.pop(key, None))  # runs before another object can get this `id`


def unregister(owner: Stoppable) -> None:
    """Undo `register`: the owner has been stopped."""
    _open.pop(id(owner), None)


def is_exiting() -> bool:
    """Return whether the interpreter is exiting. From then on no thread can be started (Python 3.12 and later)."""
    return _exiting


def _stop_all() -> None:
    global _exiting
    _exiting = True
    with ExitStack() as stack:
        for known in list(_open.values()):
            if (owner := known()) is not None:
                stack.callback(_stop_quietly, owner)


def _stop_quietly(owner: Stoppable) -> None:
    try:
        owner.stop()
    except AcceleratorException:
        _LOG.warning("a device could not be closed at exit", exc_info=True)


atexit.register(_stop_all)
