"""A process that is nothing but a daemon: what it logs, what it must not leave behind, and its event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

from apyfal.host.daemon import Daemon
from apyfal.log import get_logger

__all__ = ["serve"]

#: seconds after which a thread that computes gives way to one that waits: Python's own 5 ms would delay every job whose
#: worker comes back from the card while the event loop is busy
_SWITCH_INTERVAL = 0.0005


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
        await daemon.run(lambda: ready(daemon))

    _no_core_dumps()
    _log_to_standard_error()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    asyncio.run(main())


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
