"""One commit for the records of many jobs: those of one iteration of the event loop, or more if a log keeps them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable

from apyfal.host.server.records.logged_database import LoggedDatabase
from apyfal.log import get_logger

__all__ = ["GroupCommit"]

#: seconds until records that are in the log are committed
_DELAY = 0.1
#: seconds until a failed commit is tried again, unless something is written before
_RETRY = 1.0


class GroupCommit:
    """Groups writes to the journal's database, so that many jobs cost one commit. Used on the event loop.

    No job may start and no client may get a response before the journal has the record. So each writer registers a
    callback by `add_callback`. If the journal has a log, the next `settle` calls it; the commit comes later.

    Parameters
    ----------
    database
        The journal's. Transactions are opened with `open`, and end with the iteration of the loop or after some time.
    """

    def __init__(self, database: LoggedDatabase) -> None:
        self._database = database
        self._open = False
        self._timer: asyncio.Handle | None = None
        self._error: str | None = None  # of the last commit
        self._is_late = False  # whether the timer is for later than the end of this iteration
        self._following: deque[Callable[[bool], None]] = deque()

    def open(self, *, alone: bool = False) -> None:
        """Make the following writes part of the next commit. `alone`: the caller calls `settle` at once, since no other
        writes can share the commit.
        """
        if not self._open:
            self._database.begin()
            self._open = True
        if self._timer is None and not (alone and not self._database.is_kept):
            loop = asyncio.get_running_loop()
            self._is_late = self._database.is_kept
            self._timer = loop.call_later(_DELAY, self._flush) if self._is_late else loop.call_soon(self._flush)

    def add_callback(self, call: Callable[[bool], None]) -> None:
        """Call `call` once the writes are kept or have failed; its argument tells whether they are kept."""
        self._following.append(call)

    def settle(self, *, alone: bool = False) -> None:
        """Call the callbacks of `add_callback` if all writes are kept already; otherwise call them after the commit.

        The commit is made now if the writer is `alone`, else at the end of this iteration.
        """
        if self._database.is_kept:
            self._go_on(True)
        elif alone:
            self._flush()
        elif self._timer is None or self._is_late:  # the log was full
            self._cancel()
            self._is_late = False
            self._timer = asyncio.get_running_loop().call_soon(self._flush)

    def commit(self) -> None:
        """Commit everything written so far, for callers that cannot wait for the end of the iteration."""
        if self._open and not self._database.is_kept:
            self._flush()
        else:
            self._go_on(True)

    def close(self) -> None:
        """Commit all that was written. Nothing is written afterwards."""
        self._flush()
        self._cancel()

    def _flush(self) -> None:
        """Commit, and call the callbacks of `add_callback`."""
        self._cancel()
        if not self._open:
            return
        was_kept = self._database.is_kept
        self._open = False
        kept = True
        try:
            self._database.commit()
        except sqlite3.Error as error:
            if str(error) != self._error:  # once, however often it is tried
                get_logger().error("the journal cannot be written: %s", error)
            self._error = str(error)
            self._open = self._database.roll_back()
            kept = was_kept
            if self._open:  # what the log keeps waits for the next commit
                self._is_late = True
                self._timer = asyncio.get_running_loop().call_later(_RETRY, self._flush)
        else:
            self._error = None
        self._go_on(kept)

    def _go_on(self, kept: bool) -> None:
        count = len(self._following)
        while count and self._following:  # not those that are added meanwhile: their writes may not be kept
            self._following.popleft()(kept)
            count -= 1

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
