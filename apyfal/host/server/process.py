"""A process that is nothing but a daemon: what it logs, what it must not leave behind, and its event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable

from apyfal.host.server.daemon import Daemon
from apyfal.log import get_logger

__all__ = ["serve", "stay_prompt"]

#: seconds after which a thread that computes gives way to one that waits: Python's own 5 ms would delay every job whose
#: worker comes back from the card while the event loop is busy
_SWITCH_INTERVAL = 0.0005
#: new objects before a collection, and collections of a generation before one of the next: with Python's own (700, 10,
#: 10) the objects of all connections (of a thousand: some 20 ms) would be gone through many times a minute
_GC_THRESHOLDS = (10_000, 20, 100)


def serve(daemon_of: Callable[[], Daemon], ready: Callable[[Daemon], None]) -> None:
    """Run a daemon until it is told to stop.

    Parameters
    ----------
    daemon_of
        Makes it; called on the event loop.
    ready
        Called with it once it listens.
    """

    async def main() -> None:
        daemon = daemon_of()

        def started() -> None:
            stay_prompt()
            ready(daemon)

        await daemon.run(started)

    _no_core_dumps()
    _log_to_standard_error()
    asyncio.run(main())


def stay_prompt() -> None:
    """Keep threads and the garbage collector from holding this process's requests up; called when all is loaded."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # what is there now stays: no later collection looks at it
    gc.set_threshold(*_GC_THRESHOLDS)


def _log_to_standard_error() -> None:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    get_logger().addHandler(handler)


def _no_core_dumps() -> None:
    """Keep tokens and users' data out of core files and other processes' reach (``PR_SET_DUMPABLE`` off)."""
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
