"""The journal of jobs: requests by idempotency key and their results, kept across restarts of the daemon.

A job is entered before any work is done for it, and its result before the client gets it. So a repeated request is
answered from here. After a crash, every unfinished job is known, and is reported instead of run again. Each record goes
to a log in mapped memory first, where it outlives the process at once, so that many jobs share one commit of the
database (`apyfal.host.server.records.group_commit`). What a killed daemon left in the log is read at the start.

SQLite in WAL mode without a sync at each commit: a killed process loses nothing; a power failure can lose the last
moments, and with them at most the record of jobs whose effects the same failure put in doubt. A job's number is the
microsecond of its arrival, so that new rows go to one page at the end, and an id tells nothing about other users' jobs.
The sync of a checkpoint happens in another thread.

After an error (no room, a quota, the disk), SQLite may have undone any part of the transaction. So whatever is in the
log is then written anew from there before anything is read or committed, and the log begins anew only after a commit
that had all of it. A commit fails if writes that only its transaction had are gone.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from apyfal.exceptions import ConfigurationError
from apyfal.host.server.policy.limits import JOURNAL_LIMIT, share_of_user
from apyfal.host.server.records.mapped_log import MappedLog

__all__ = ["NOT_RUN", "Entry", "Journal"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_VERSION = 2
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    began INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON jobs (user, key);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    ended REAL NOT NULL,
    answer TEXT NOT NULL,
    output BLOB,
    held INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_held ON answers (number) WHERE held;
PRAGMA user_version={_VERSION};
"""
#: approximate bytes of a job besides its answer and output: two rows, their keys and an index entry
_ROW = 512
_SIZE = f"{_ROW} + length(answer) + coalesce(length(output), 0)"
_SIZES = f"SELECT user, sum({_SIZE}) FROM jobs JOIN answers USING (number)"
_KNOWN = "SELECT 1 FROM jobs WHERE user = ? AND key = ?"
_SEPARATOR = "\0"
_ID = re.compile(r"[0-9a-f]{15}-[0-9a-f]{16}")
#: rows that one call of `forget` examines
_BATCH = 100
#: pages in the log after which a commit itself writes them back, in case `checkpoint` does not keep up
_LOG_PAGES = 16384

#: error of a job that was waiting when the daemon stopped
NOT_RUN = "the host stopped before the job was started: it did not run"
_UNKNOWN = "the host stopped while the job was running: it will not be run again, and what it wrote is not known"


_ENTER, _STRIKE, _RUN, _RELEASE = b"enter", b"strike", b"run", b"release"
_FINISH, _FINISH_ALONE = b"finish", b"finish without output"
#: in the order in which those that wait for a commit are executed together
_STATEMENTS: Mapping[bytes, str] = {
    _ENTER: "INSERT INTO jobs (number, id, user, key, fingerprint, began) VALUES (?, ?, ?, ?, ?, ?)",
    _RUN: "UPDATE jobs SET began = 1 WHERE number = ?",
    _FINISH: "INSERT INTO answers (number, state, ended, held, answer, output) VALUES (?, ?, ?, ?, ?, ?)",
    _FINISH_ALONE: "INSERT INTO answers (number, state, ended, held, answer) VALUES (?, ?, ?, ?, ?)",
    _STRIKE: "DELETE FROM jobs WHERE number = ?",
    _RELEASE: "UPDATE answers SET held = 0 WHERE number = ?",
}
_WAITING = (_ENTER, _RUN, _FINISH, _FINISH_ALONE)
#: the same for rows that the database may have already
_AGAIN = {operation: text.replace("INSERT INTO", "INSERT OR REPLACE INTO") for operation, text in _STATEMENTS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One job in the journal.

    Attributes
    ----------
    id, user, key
        The job, its user, and the key that its client gave it.
    fingerprint
        Digest of the request. The same key with another fingerprint is an error of the client.
    state
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    answer
        The job's JSON as last sent to its client, once it has ended.
    output
        The job's output, if it was small enough to keep.
    """

    id: str
    user: str
    key: str
    fingerprint: str
    state: str
    answer: dict[str, Any] | None
    output: bytes | None


def _fails(
    method: Callable[Concatenate[Journal, _Arguments], _Result],
) -> Callable[Concatenate[Journal, _Arguments], _Result]:
    """Expect any error of SQLite, even of a query, to have undone the transaction."""

    @functools.wraps(method)
    def call(self: Journal, /, *args: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        try:
            return method(self, *args, **keywords)
        except sqlite3.IntegrityError:  # undoes its own statement only
            raise
        except sqlite3.Error as error:
            self._fail(error)
            raise

    return call


class Journal:
    """The journal in one SQLite file. Used from one thread, except `checkpoint`.

    Parameters
    ----------
    path
        The file; created with mode 0600.
    log
        Where records are kept until they are committed; owned by this object from now on. ``None``: nowhere, only a
        commit keeps them.
    limit
        Bytes of answers and outputs. A user who exceeds `share_of_user` of it loses the oldest entries; so does the
        user with the most if all users together exceed it. Their keys are then unknown, as after `forget`.

    Raises
    ------
    ConfigurationError
        The file was written by another version.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int = JOURNAL_LIMIT, log: MappedLog | None = None) -> None:
        self._path = os.fspath(path)
        self._limit = limit
        self._log = log
        self._logs = log is not None  # whether records go to the log now; false while the database cannot be written
        self._is_kept = self._logs
        self._begun = False
        #: whether the database may lack what the log has, after an error
        self._is_behind = False
        self._is_failing = False  # since the last commit
        self._has_unlogged = False  # whether the transaction has writes that are nowhere else
        self._failure: sqlite3.Error | None = None  # after which these are gone
        #: records that are in the log but not in the database yet: those of many jobs are executed together
        self._waiting: dict[bytes, list[Sequence[Any]]] = {operation: [] for operation in _WAITING}
        self._entered: set[tuple[str, str]] = set()  # users and keys of these
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise ConfigurationError(f"{self._path}: a journal of version {version}, not {_VERSION}; move it away")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
            self._database.executescript(_SCHEMA)
            self.begin()
            self._catch_up()
            self.commit()
            self._last = self._database.execute("SELECT max(number) FROM jobs").fetchone()[0] or 0
        except BaseException:
            self._database.close()
            if log is not None:
                log.close()
            raise

    def close(self) -> None:
        """Commit all records, and close the file. What cannot be committed stays in the log for the next start."""
        try:
            if self._log is not None:
                with contextlib.suppress(sqlite3.Error):
                    self.commit()
        finally:
            self._database.close()
            if self._log is not None:
                self._log.close()

    @property
    def is_kept(self) -> bool:
        """Return whether all records survive the end of this process, committed or not."""
        return self._is_kept

    @property
    def has_log(self) -> bool:
        """Return whether records can be kept without a commit."""
        return self._log is not None

    def begin(self) -> None:
        """Begin a transaction: the following writes are kept or lost together. Without one, each write is a
        transaction.
        """
        self._begun = True

    @_fails
    def commit(self) -> None:
        """End the transaction. Raises `sqlite3.Error` if it could not be written; then nothing of it is kept besides
        what the log has.
        """
        self._bring_in()
        if self._failure is not None:
            raise sqlite3.OperationalError(str(self._failure)) from self._failure
        if self._database.in_transaction:
            self._database.execute("COMMIT")
        self._begun = self._has_unlogged = self._is_failing = False
        if self._log is not None and not (self._log.is_empty and self._is_kept):
            self._log.clear()
            self._logs = self._is_kept = True

    def roll_back(self) -> bool:
        """Undo all writes since `begin` that are not in the log. Only a commit keeps further ones.

        Returns
        -------
        bool
            Whether the log has records, which wait for the next commit: a transaction is open again. If it could not
            get them, whatever reads or commits next tries again.
        """
        again = self._log is not None and not self._log.is_empty
        if again:
            self._logs = self._is_kept = False
        self._begun = again
        self._has_unlogged = False
        self._failure = None
        self._is_behind = True
        with contextlib.suppress(sqlite3.Error):
            self._catch_up()
        return again

    def _fail(self, error: sqlite3.Error) -> None:
        """Take it that the transaction lacks anything that was written in it."""
        self._is_behind = self._is_failing = True
        if self._has_unlogged:
            self._failure = error
        self._forget_waiting()  # the log has these

    def _catch_up(self) -> None:
        """Begin the transaction anew, with what the log has."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._forget_waiting()
        if self._log is not None:
            self._database.execute("BEGIN IMMEDIATE")
            for operation, head, *rest in self._log.records():
                values: list[Any] = head.decode().split(_SEPARATOR)  # columns have types of their own
                if rest:
                    values.append(rest[0].decode())
                # a daemon that was killed after a commit may not have cleared the log: the last record of a key counts
                self._database.execute(_AGAIN[operation], values + rest[1:])
            if not self._begun:
                self._database.execute("COMMIT")
        self._recount()
        self._is_behind = False

    def _write(self, operation: bytes, *values: Any, answer: str | None = None, output: bytes | None = None) -> None:
        """Append a record to the log, and execute it: together with others if the log has it."""
        is_logged = False
        row: list[Any] = list(values)
        if answer is not None:
            row.append(answer)
        if output is not None:
            row.append(output)
        if self._logs and self._log is not None:
            record = [operation, _SEPARATOR.join(map(str, values)).encode()]
            if answer is not None:
                record.append(answer.encode())
            if output is not None:
                record.append(output)
            is_logged = self._log.append(record)
            self._is_kept = is_logged and self._is_kept
            if is_logged and self._is_behind:
                return  # comes from the log with the others
            if is_logged and operation in self._waiting:
                self._waiting[operation].append(row)
                return
        if not is_logged:
            self._has_unlogged = self._begun
        try:
            self._bring_in()
            self._in_transaction()
            self._database.execute(_STATEMENTS[operation], row)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            self._fail(error)
            if not is_logged and not self._begun:
                raise  # otherwise the log has it, or the commit fails

    def _in_transaction(self) -> None:
        if self._begun and not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")

    @_fails
    def _bring_in(self) -> None:
        """Execute the records that wait; after an error, all that are in the log."""
        if self._is_behind:
            self._catch_up()
            return
        for operation, rows in self._waiting.items():
            if rows:
                self._in_transaction()
                self._database.executemany(_AGAIN[operation], rows)
                rows.clear()
        self._entered.clear()

    def _forget_waiting(self) -> None:
        for rows in self._waiting.values():
            rows.clear()
        self._entered.clear()

    def _recount(self) -> None:
        """Recompute from the file how many bytes each user's jobs take. All of them can be forgotten again."""
        self._bytes = collections.Counter(dict(self._database.execute(f"{_SIZES} GROUP BY user").fetchall()))
        self._total = sum(self._bytes.values())
        self._dropped: dict[str, int] = {}  # highest number up to which each user's jobs have been dropped
        self._cleared = 0  # jobs up to this number no longer have an output here

    def find(self, user: str, key: str) -> Entry | None:
        """Return the job of `user` with idempotency key `key`; ``None``: there is none."""
        return self._one("user = ? AND key = ?", (user, key))

    def get(self, job_id: str) -> Entry | None:
        """Return a job by its id; ``None``: there is none."""
        return self._one("number = ? AND id = ?", (_number(job_id), job_id))

    @_fails
    def enter(self, user: str, key: str, fingerprint: str, *, running: bool = False) -> str:
        """Enter a new job, as ``queued`` or ``running``.

        Returns
        -------
        str
            The job's id.

        Raises
        ------
        sqlite3.IntegrityError
            `user` already has a job with this key.
        sqlite3.Error
            That is not known now, as the database cannot be read or lacks what the log has.
        """
        if self._is_behind:
            self._bring_in()
        if self._logs:
            known = (user, key) in self._entered or self._database.execute(_KNOWN, (user, key)).fetchone() is not None
            if known:
                raise sqlite3.IntegrityError("the user has a job with this key")
            self._entered.add((user, key))
        number = max(self._last + 1, time.time_ns() // 1000)
        job_id = f"{number:015x}-{secrets.token_hex(8)}"
        self._write(_ENTER, number, job_id, user, key, fingerprint, int(running))
        self._last = number
        return job_id

    def strike(self, job_id: str) -> None:
        """Remove a job that could not be queued."""
        self._write(_STRIKE, _number(job_id))

    def mark_running(self, job_id: str) -> None:
        """Record that the job is about to run. Once this has returned, the job is never started again."""
        self._write(_RUN, _number(job_id))

    def finish(
        self,
        job_id: str,
        state: str,
        answer: str,
        output: bytes | None = None,
        *,
        held: bool = False,
        user: str | None = None,
    ) -> None:
        """Store a job's result.

        Parameters
        ----------
        job_id, state
            The job, and its final state.
        answer
            The job as JSON.
        output
            The output, if it is to be kept here.
        held
            Whether the daemon holds the output instead, until `release`.
        user
            The job's user; ``None``: looked up.
        """
        number = _number(job_id)
        owner = user if user is not None else self._user_of(number)
        operation = _FINISH_ALONE if output is None else _FINISH
        self._write(operation, number, state, time.time(), int(held), answer=answer, output=output)
        self._cleared = min(self._cleared, number - 1)
        self._count(owner, _ROW + len(answer) + len(output or b""))
        with contextlib.suppress(sqlite3.Error):  # the next one to end tries again
            while self._bytes[owner] > share_of_user(self._limit) and self._drop_oldest(owner):
                pass
            while self._total > self._limit and self._drop_oldest(self._bytes.most_common(1)[0][0]):
                pass

    @_fails
    def _user_of(self, number: int) -> str:
        self._bring_in()
        (user,) = self._database.execute("SELECT user FROM jobs WHERE number = ?", (number,)).fetchone()
        return str(user)

    def _count(self, user: str, nbytes: int) -> None:
        self._total += nbytes
        self._bytes[user] += nbytes
        if self._bytes[user] <= 0:
            del self._bytes[user]

    @_fails
    def _drop_oldest(self, user: str) -> bool:
        """Forget some of a user's oldest jobs; return whether there were any."""
        self._bring_in()
        self._in_transaction()
        rows = self._database.execute(
            f"SELECT number, {_SIZE} FROM jobs JOIN answers USING (number) WHERE user = ? AND number > ? "
            "ORDER BY number LIMIT ?",
            (user, self._dropped.get(user, 0), _BATCH),
        ).fetchall()
        if not rows:
            if user not in self._dropped:
                return False
            del self._dropped[user]  # an older job may have ended since
            return True
        for table in ("answers", "jobs"):
            self._database.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number, _ in rows])
        self._dropped[user] = rows[-1][0]
        self._count(user, -sum(nbytes for _, nbytes in rows))
        return True

    def release(self, job_id: str) -> None:
        """Record that the daemon no longer holds the job's output."""
        self._write(_RELEASE, _number(job_id))

    def held(self) -> list[Entry]:
        """List the jobs whose outputs a daemon held in memory. After a restart, only saved outputs remain of these."""
        return self._all("held")

    def recover(self) -> list[Entry]:
        """Mark the jobs that an earlier daemon left unfinished as ``interrupted``, and return them. Called once, at
        startup.
        """
        unfinished = self._all("answers.number IS NULL")
        for entry in unfinished:
            ran, message = (None, _UNKNOWN) if entry.state == "running" else (False, NOT_RUN)
            error = {"type": "HostError", "message": message}
            answer = {"id": entry.id, "state": "interrupted", "ran": ran, "error": error}
            self.finish(entry.id, "interrupted", json.dumps(answer), user=entry.user)
        return [found for entry in unfinished if (found := self.get(entry.id)) is not None]

    @_fails
    def forget(self, outputs_before: float, jobs_before: float) -> bool:
        """Remove the oldest outputs and jobs that ended before the given times (seconds since the epoch).

        Each call removes a bounded number, in order, so that it can run between requests. Returns whether to call it
        again soon.
        """
        self._bring_in()
        self._in_transaction()
        cleared, more = self._cleared, False
        oldest = self._database.execute(
            "SELECT number, ended FROM answers WHERE number > ? ORDER BY number LIMIT ?", (cleared, _BATCH)
        )
        for number, ended in oldest:
            if ended >= outputs_before:
                break
            cleared = number
        if cleared > self._cleared:
            more = True
            for user, nbytes in self._database.execute(
                "SELECT user, sum(length(output)) FROM answers JOIN jobs USING (number) "
                "WHERE number > ? AND number <= ? AND output IS NOT NULL GROUP BY user",
                (self._cleared, cleared),
            ).fetchall():
                self._count(user, -nbytes)
            self._database.execute(
                "UPDATE answers SET output = NULL WHERE number > ? AND number <= ? AND output IS NOT NULL",
                (self._cleared, cleared),
            )
            self._cleared = cleared
        rows = self._database.execute(
            f"SELECT number, user, {_SIZE} FROM answers JOIN jobs USING (number) WHERE ended < ? AND number IN "
            "(SELECT number FROM answers ORDER BY number LIMIT ?)",
            (jobs_before, _BATCH),
        ).fetchall()
        for number, user, nbytes in rows:
            self._count(user, -nbytes)
            for table in ("answers", "jobs"):
                self._database.execute(f"DELETE FROM {table} WHERE number = ?", (number,))
        return (bool(rows) or more) and not self._is_failing

    def checkpoint(self) -> None:
        """Write the WAL back into the database file and sync it. May be called from any thread; writers do not wait for
        it.
        """
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=5)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _one(self, condition: str, values: tuple[str | int, ...]) -> Entry | None:
        return next(iter(self._all(condition, values)), None)

    @_fails
    def _all(self, condition: str, values: tuple[str | int, ...] = ()) -> list[Entry]:
        self._bring_in()
        rows = self._database.execute(
            f"SELECT id, user, key, fingerprint, coalesce(state, CASE began WHEN 0 THEN 'queued' ELSE 'running' END), "
            f"answer, output FROM jobs LEFT JOIN answers USING (number) WHERE {condition} ORDER BY number",
            values,
        ).fetchall()
        return [
            Entry(job_id, user, key, fingerprint, state, None if answer is None else json.loads(answer), output)
            for job_id, user, key, fingerprint, state, answer, output in rows
        ]


def _number(job_id: str) -> int:
    """Return the number in a job's id; -1, which no job has, if the id is malformed."""
    return int(job_id[:15], 16) if _ID.fullmatch(job_id) else -1
