"""One commit for all that is written to the journal in one turn of the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

from apyfal.host.server.jobs.journal import Journal
from apyfal.log import get_logger

__all__ = ["GroupCommit"]


class GroupCommit:
    """Groups what is written to a journal: many requests at once cost one commit. Used on the event loop.

    Nothing may be done, and nobody told, before the journal has it; so whoever writes says what is to follow.

    Parameters
    ----------
    journal
        Written to between `open` and the end of the turn.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = False
        self._following: list[Callable[[bool], None]] = []

    def open(self) -> None:
        """Let what is written from here on be part of the commit of this turn."""
        if not self._open:
            self._journal.begin()
            self._open = True
            asyncio.get_running_loop().call_soon(self.commit)

    def then(self, call: Callable[[bool], None]) -> None:
        """Have `call` called after that commit, with whether what was written is in the journal."""
        self._following.append(call)

    def commit(self) -> None:
        """Commit what was written so far; for those who cannot wait for the end of the turn."""
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
