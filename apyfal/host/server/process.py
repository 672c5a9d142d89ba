"""A process that runs a daemon only: its logging, its protection of secrets, and its event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable

from apyfal.host.server.daemon import Daemon
from apyfal.log import get_logger

__all__ = ["limit_pauses", "serve"]

#: seconds after which a busy thread yields the interpreter: Python's default of 5 ms would delay each job whose worker
#: returns from the card while the event loop is busy
_SWITCH_INTERVAL = 0.0005
#: thresholds of the garbage collector: with Python's defaults (700, 10, 10), it would visit the objects of all
#: connections many times a minute (about 20 ms for a thousand connections)
_GC_THRESHOLDS = (10_000, 20, 100)


def serve(daemon_of: Callable[[], Daemon], ready: Callable[[Daemon], None]) -> None:
    """Run a daemon until it is asked to stop.

    Parameters
    ----------
    daemon_of
        Creates the daemon; called on the event loop.
    ready
        Called with the daemon when it listens.
    """

    async def main() -> None:
        daemon = daemon_of()

        def started() -> None:
            limit_pauses()
            ready(daemon)

        await daemon.run(started)

    _no_core_dumps()
    _log_to_standard_error()
    asyncio.run(main())


def limit_pauses() -> None:
    """Prevent long pauses by threads and the garbage collector. Called when all modules are loaded."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # modules and classes live until the end: exclude them from later collections
    gc.set_threshold(*_GC_THRESHOLDS)


def _log_to_standard_error() -> None:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    get_logger().addHandler(handler)


def _no_core_dumps() -> None:
    """Keep tokens and users' data out of core files and unreadable to other processes (``PR_SET_DUMPABLE`` off)."""
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
