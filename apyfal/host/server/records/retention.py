"""What the journal forgets: the oldest outputs and jobs, by age, and those of users with too many bytes."""

from __future__ import annotations

import collections
import contextlib
import sqlite3
from typing import Final

from apyfal.host.server.policy.limits import share_of_user
from apyfal.host.server.records.logged_database import LoggedDatabase

__all__ = ["Retention"]

#: approximate bytes of a job besides its answer and output: two rows, their keys and an index entry
_ROW: Final = 512
_SIZE: Final = f"{_ROW} + length(answer) + coalesce(length(output), 0)"
_SIZES: Final = f"SELECT user, sum({_SIZE}) FROM jobs JOIN answers USING (number) GROUP BY user"
_OLDEST_OF_USER: Final = (
    f"SELECT number, {_SIZE} FROM jobs JOIN answers USING (number) WHERE user = ? AND number > ? "
    "ORDER BY number LIMIT ?"
)
_ENDED: Final = "SELECT number, ended FROM answers WHERE number > ? ORDER BY number LIMIT ?"
_HAS_OUTPUT: Final = "number > ? AND number <= ? AND output IS NOT NULL"
_OUTPUTS: Final = (
    f"SELECT user, sum(length(output)) FROM answers JOIN jobs USING (number) WHERE {_HAS_OUTPUT} GROUP BY user"
)
_OLD: Final = (
    f"SELECT number, user, {_SIZE} FROM answers JOIN jobs USING (number) WHERE ended < ? AND number IN "
    "(SELECT number FROM answers ORDER BY number LIMIT ?)"
)
#: rows that one call examines
_BATCH: Final = 100


class Retention:
    """Removes jobs that have ended from the journal's database, in the order in which they came.

    Parameters
    ----------
    database
        The journal's.
    limit
        Bytes of answers and outputs. A user who exceeds `share_of_user` of it loses the oldest entries; so does the
        user with the most if all users together exceed it.
    """

    def __init__(self, database: LoggedDatabase, limit: int) -> None:
        self._database = database
        self._limit = limit

    def recount(self) -> None:
        """Recompute from the database how many bytes each user's jobs take. All of them can be forgotten again."""
        self._bytes = collections.Counter(dict(self._database.read(_SIZES)))
        self._total = sum(self._bytes.values())
        self._dropped: dict[str, int] = {}  # highest number up to which each user's jobs have been dropped
        self._cleared = 0  # jobs up to this number no longer have an output here

    def add(self, number: int, user: str, nbytes: int) -> None:
        """Count a job that has ended, whose answer and output have `nbytes`, and make room for it."""
        self._cleared = min(self._cleared, number - 1)
        self._count(user, _ROW + nbytes)
        with contextlib.suppress(sqlite3.Error):  # the next job that ends tries again
            while self._bytes[user] > share_of_user(self._limit) and self._drop_oldest(user):
                pass
            while self._total > self._limit and self._drop_oldest(self._bytes.most_common(1)[0][0]):
                pass

    def forget(self, outputs_before: float, jobs_before: float) -> bool:
        """Remove some of the outputs and jobs that ended before the given times (seconds since the epoch).

        Each call removes a bounded number, in order, so that it can run between requests. Returns whether to call it
        again soon.
        """
        self._database.bring_in()
        outputs = self._forget_outputs(outputs_before)
        jobs = self._forget_jobs(jobs_before)
        return (outputs or jobs) and not self._database.is_failing

    def _forget_outputs(self, before: float) -> bool:
        last = self._cleared
        for number, ended in self._database.read(_ENDED, (last, _BATCH)):
            if ended >= before:
                break
            last = number
        if last == self._cleared:
            return False
        for user, nbytes in self._database.read(_OUTPUTS, (self._cleared, last)):
            self._count(user, -nbytes)
        self._database.change(f"UPDATE answers SET output = NULL WHERE {_HAS_OUTPUT}", [(self._cleared, last)])
        self._cleared = last
        return True

    def _forget_jobs(self, before: float) -> bool:
        rows = self._database.read(_OLD, (before, _BATCH))
        for _, user, nbytes in rows:
            self._count(user, -nbytes)
        self._remove([number for number, _, _ in rows])
        return bool(rows)

    def _drop_oldest(self, user: str) -> bool:
        """Forget some of a user's oldest jobs; return whether there were any."""
        self._database.bring_in()
        rows = self._database.read(_OLDEST_OF_USER, (user, self._dropped.get(user, 0), _BATCH))
        if not rows:
            if user not in self._dropped:
                return False
            del self._dropped[user]  # an older job may have ended since
            return True
        self._remove([number for number, _ in rows])
        self._dropped[user] = rows[-1][0]
        self._count(user, -sum(nbytes for _, nbytes in rows))
        return True

    def _remove(self, numbers: list[int]) -> None:
        for table in ("answers", "jobs"):
            self._database.change(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])

    def _count(self, user: str, nbytes: int) -> None:
        self._total += nbytes
        self._bytes[user] += nbytes
        if self._bytes[user] <= 0:
            del self._bytes[user]
