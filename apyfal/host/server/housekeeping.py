"""Periodic work of the daemon, in steps: a step that fails is logged, and the other steps still run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping

from apyfal.log import get_logger

__all__ = ["run_periodically"]

Step = Callable[[], Awaitable[None] | None]


async def run_periodically(steps: Mapping[str, Step], interval: float) -> None:
    """Take all `steps` every `interval` seconds, until cancelled.

    Parameters
    ----------
    steps
        The functions to call, by a description for the log. An ``OSError`` or a database's error, which a full disk
        causes, is logged when it first occurs and when it is over; any other exception is a bug and ends the task.
    interval
        Seconds between two rounds.
    """
    failing: set[str] = set()
    while True:
        await asyncio.sleep(interval)
        for name, step in steps.items():
            try:
                pending = step()
                if pending is not None:
                    await pending
            except (sqlite3.Error, OSError) as error:
                if name not in failing:
                    failing.add(name)
                    get_logger().error("housekeeping, %s: %s", name, error)
            else:
                if name in failing:
                    failing.remove(name)
                    get_logger().info("housekeeping, %s: works again", name)
