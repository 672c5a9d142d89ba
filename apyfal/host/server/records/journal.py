"""The journal of jobs: requests by idempotency key and their results, kept across restarts of the daemon.

A job is entered before any work is done for it, and its result before the client gets it. So a repeated request is
answered from here. After a crash, every unfinished job is known, and is reported instead of run again. Records outlive
the process before they are committed (`apyfal.host.server.records.logged_database`), so that many jobs share one commit
(`apyfal.host.server.records.group_commit`).

A power failure can lose at most the record of jobs whose effects the same failure put in doubt. A job's number is the
microsecond of its arrival, so that new rows go to one page at the end, and an id tells nothing about other users' jobs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Final

from apyfal.host.server.policy.limits import JOURNAL_LIMIT
from apyfal.host.server.records.known_keys import KnownKeys
from apyfal.host.server.records.logged_database import LoggedDatabase, Schema
from apyfal.host.server.records.mapped_log import MappedLog
from apyfal.host.server.records.retention import Retention

__all__ = ["NOT_RUN", "Journal", "JournalEntry"]

_TABLES: Final = """
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
"""
_ENTER, _STRIKE, _RUN, _RELEASE = b"enter", b"strike", b"run", b"release"
_FINISH, _FINISH_ALONE = b"finish", b"finish without output"
_SCHEMA: Final = Schema(
    version=2,
    tables=_TABLES,
    writes={
        _ENTER: "INSERT INTO jobs (number, id, user, key, fingerprint, began) VALUES (?, ?, ?, ?, ?, ?)",
        _RUN: "UPDATE jobs SET began = 1 WHERE number = ?",
        _FINISH: "INSERT INTO answers (number, state, ended, held, answer, output) VALUES (?, ?, ?, ?, ?, ?)",
        _FINISH_ALONE: "INSERT INTO answers (number, state, ended, held, answer) VALUES (?, ?, ?, ?, ?)",
        _STRIKE: "DELETE FROM jobs WHERE number = ?",
        _RELEASE: "UPDATE answers SET held = 0 WHERE number = ?",
    },
    together=(_ENTER, _RUN, _FINISH, _FINISH_ALONE),
)
_KNOWN: Final = "SELECT 1 FROM jobs WHERE user = ? AND key = ?"
_KEYS: Final = "SELECT number, user, key FROM jobs WHERE number > ? ORDER BY number LIMIT ?"
#: rows of one query of all keys
_KEYS_AT_ONCE: Final = 10_000
_ENTRIES: Final = (
    "SELECT id, user, key, fingerprint, coalesce(state, CASE began WHEN 0 THEN 'queued' ELSE 'running' END), "
    "answer, output FROM jobs LEFT JOIN answers USING (number)"
)
_ID: Final = re.compile(r"[0-9a-f]{15}-[0-9a-f]{16}")

#: error of a job that was waiting when the daemon stopped
NOT_RUN = "the host stopped before the job was started: it did not run"
_UNKNOWN = "the host stopped while the job was running: it will not be run again, and what it wrote is not known"


@dataclass(frozen=True, slots=True)
class JournalEntry:
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


class Journal:
    """The journal in one SQLite file. Used from one thread.

    Parameters
    ----------
    path
        The file; created with mode 0600.
    log
        Where records are kept until they are committed; owned by this object from now on. ``None``: nowhere, only a
        commit keeps them.
    limit
        Bytes of answers and outputs; see `Retention`. The keys of what it removes are then unknown, as after `forget`.

    Attributes
    ----------
    database
        The file, for transactions of several records.

    Raises
    ------
    ConfigurationError
        The file was written by another version.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int = JOURNAL_LIMIT, log: MappedLog | None = None) -> None:
        self.database = LoggedDatabase(path, _SCHEMA, log)
        try:
            self._retention = Retention(self.database, limit)
            self.database.start(self._retention.recount)
            self._keys = KnownKeys()  # of all jobs, and of those that were forgotten since
            self._last = self._read_keys()
        except BaseException:
            self.database.abandon()
            raise

    def _read_keys(self) -> int:
        """Learn the keys of all jobs; return the last job's number."""
        last = 0
        while rows := self.database.read(_KEYS, (last, _KEYS_AT_ONCE)):
            for _, user, key in rows:
                self._keys.add((user, key))
            last = rows[-1][0]
        return last

    def close(self) -> None:
        """Commit all records, and close the file. What cannot be committed stays in the log for the next start."""
        self.database.close()

    def find(self, user: str, key: str) -> JournalEntry | None:
        """Return the job of `user` with idempotency key `key`; ``None``: there is none."""
        return self._one("user = ? AND key = ?", (user, key))

    def get(self, job_id: str) -> JournalEntry | None:
        """Return a job by its id; ``None``: there is none."""
        return self._one("number = ? AND id = ?", (_number(job_id), job_id))

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
            Whether there is one is not known: the database cannot be read, or lacks what the log has.
        """
        self.database.recover()
        owned = (user, key)
        if self._keys.may_have(owned):
            if self.database.is_logging and (self.database.is_waiting(owned) or self.database.read(_KNOWN, owned)):
                raise sqlite3.IntegrityError("the user has a job with this key")
        else:
            self._keys.add(owned)  # before the write, so that the key is known even if the write fails half-way
        number = max(self._last + 1, time.time_ns() // 1000)
        job_id = f"{number:015x}-{secrets.token_hex(8)}"
        self.database.write(_ENTER, number, job_id, user, key, fingerprint, int(running), key=owned)
        self._last = number
        return job_id

    def strike(self, job_id: str) -> None:
        """Remove a job that could not be queued."""
        self.database.write(_STRIKE, _number(job_id))

    def mark_running(self, job_id: str) -> None:
        """Record that the job is about to run. Once this has returned, the job is never started again."""
        self.database.write(_RUN, _number(job_id))

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
        kind = _FINISH_ALONE if output is None else _FINISH
        self.database.write(kind, number, state, time.time(), int(held), text=answer, blob=output)
        self._retention.add(number, owner, len(answer) + len(output or b""))

    def _user_of(self, number: int) -> str:
        self.database.bring_in()
        ((user,),) = self.database.read("SELECT user FROM jobs WHERE number = ?", (number,))
        return str(user)

    def release(self, job_id: str) -> None:
        """Record that the daemon no longer holds the job's output."""
        self.database.write(_RELEASE, _number(job_id))

    def held(self) -> list[JournalEntry]:
        """List the jobs whose outputs a daemon held in memory. After a restart, only saved outputs remain of these."""
        return self._all("held")

    def recover(self) -> list[JournalEntry]:
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

    def forget(self, outputs_before: float, jobs_before: float) -> bool:
        """Remove the oldest outputs and jobs that ended before the given times; see `Retention.forget`."""
        return self._retention.forget(outputs_before, jobs_before)

    def _one(self, condition: str, values: tuple[str | int, ...]) -> JournalEntry | None:
        return next(iter(self._all(condition, values)), None)

    def _all(self, condition: str, values: tuple[str | int, ...] = ()) -> list[JournalEntry]:
        self.database.bring_in()
        return [
            JournalEntry(job_id, user, key, fingerprint, state, None if answer is None else json.loads(answer), output)
            for job_id, user, key, fingerprint, state, answer, output in self.database.read(
                f"{_ENTRIES} WHERE {condition} ORDER BY number", values
            )
        ]


def _number(job_id: str) -> int:
    """Return the number in a job's id; -1, which no job has, if the id is malformed."""
    return int(job_id[:15], 16) if _ID.fullmatch(job_id) else -1
