"""One commit for everything that is written to the journal in one iteration of the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

from apyfal.host.server.jobs.journal import Journal
from apyfal.log import get_logger

__all__ = ["GroupCommit"]


class GroupCommit:
    """Groups writes to a journal, so that many simultaneous requests cost one commit. Used on the event loop.

    No job may start and no client may be answered before the journal has the record. So each writer registers with
    `then` what is to follow.

    Parameters
    ----------
    journal
        Transactions are opened with `open` and end with the iteration of the loop.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = False
        self._following: list[Callable[[bool], None]] = []

    def open(self, *, alone: bool = False) -> None:
        """Make the following writes part of this iteration's commit. `alone`: the caller calls `commit` at once, as
        nothing else is there to share it.
        """
        if not self._open:
            self._journal.begin()
            self._open = True
            if not alone:
                asyncio.get_running_loop().call_soon(self.commit)

    def then(self, call: Callable[[bool], None]) -> None:
        """Call `call` after that commit; its argument tells whether the writes are in the journal."""
        self._following.append(call)

    def commit(self) -> None:
        """Commit what has been written so far, for callers that cannot wait for the end of the iteration."""
        if not self._open:
            return
        self._open = False
        following, self._following = self._following, []
        kept = True
        try:
            self._journal.commit()
        except sqlite3.Error as error:
            get_logger().error("the journal cannot be written: %s", error)
            self._journal.roll_back()
            kept = False
        for call in following:
            call(kept)
