"""The journal of jobs: what was asked, whether it ran, and what was answered. It outlives the daemon.

A job is entered before it may run, marked before it runs, and its answer is written before it is sent. So a request
that comes again is answered from here, and after a crash every job that was not finished is known, and is reported
rather than run a second time.

SQLite in WAL mode without a sync at each commit: a killed process loses nothing; a power failure may lose the last
moments, and with them at most the record of jobs whose effects the same failure put in doubt.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

__all__ = ["NOT_RUN", "Entry", "Journal"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    changed REAL NOT NULL,
    answer TEXT,
    output BLOB,
    UNIQUE (user, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_change ON jobs (changed);
"""
_VERSION = 1
_BATCH = 500

#: why a job that waited has ended
NOT_RUN = "the host stopped before the job was started: it did not run"
_UNKNOWN = "the host stopped while the job was running: it will not be run again, and what it wrote is not known"


@dataclass(frozen=True, slots=True)
class Entry:
    """One job in the journal.

    Attributes
    ----------
    id, user, key
        The job, whose it is, and the key that its client gave it.
    fingerprint
        Of what was asked; the same key with another one is a mistake of the client.
    state
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    answer
        The job as it was last described to its client, once it has ended.
    output
        Its output, if it was small enough to keep.
    """

    id: str
    user: str
    key: str
    fingerprint: str
    state: str
    answer: dict[str, Any] | None
    output: bytes | None


class Journal:
    """The journal in one SQLite file. Used by one thread.

    Parameters
    ----------
    path
        The file; made with mode 0600.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        self._database.execute(f"PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, user: str, key: str) -> Entry | None:
        """Return the job that `user` gave `key` to."""
        return self._one("user = ? AND key = ?", (user, key))

    def get(self, job_id: str) -> Entry | None:
        """Return a job by its id."""
        return self._one("id = ?", (job_id,))

    def enter(self, job_id: str, user: str, key: str, fingerprint: str, *, running: bool = False) -> None:
        """Enter a new job, ``queued`` or at once ``running``; `sqlite3.IntegrityError` where the key is there."""
        self._database.execute(
            "INSERT INTO jobs (id, user, key, fingerprint, state, changed) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, user, key, fingerprint, "running" if running else "queued", time.time()),
        )

    def mark_running(self, job_id: str) -> None:
        """Say that the job is about to run. Once this returns, it is never started again."""
        self._database.execute("UPDATE jobs SET state = 'running', changed = ? WHERE id = ?", (time.time(), job_id))

    def finish(self, job_id: str, state: str, answer: dict[str, Any], output: bytes | None = None) -> None:
        """Keep the job's answer, and its output if that is given."""
        self._database.execute(
            "UPDATE jobs SET state = ?, changed = ?, answer = ?, output = ? WHERE id = ?",
            (state, time.time(), json.dumps(answer), output, job_id),
        )

    def recover(self) -> list[Entry]:
        """Mark what an earlier daemon left unfinished as ``interrupted``, and return it. Called once, at the start."""
        rows = self._database.execute("SELECT id FROM jobs WHERE state IN ('queued', 'running')").fetchall()
        entries = []
        for (job_id,) in rows:
            entry = self.get(job_id)
            if entry is None:
                continue
            ran = None if entry.state == "running" else False
            message = _UNKNOWN if entry.state == "running" else NOT_RUN
            answer = {
                "id": job_id,
                "state": "interrupted",
                "ran": ran,
                "error": {"type": "HostError", "message": message},
            }
            self.finish(job_id, "interrupted", answer)
            entries.append(Entry(job_id, entry.user, entry.key, entry.fingerprint, "interrupted", answer, None))
        return entries

    def forget(self, outputs_before: float, jobs_before: float) -> None:
        """Remove some of the outputs and ended jobs that last changed before these moments (seconds since the epoch).

        Bounded work, so that it can be called often between requests.
        """
        ended = "state NOT IN ('queued', 'running')"
        self._database.execute(
            f"UPDATE jobs SET output = NULL WHERE id IN (SELECT id FROM jobs WHERE changed < ? AND output IS NOT NULL "
            f"ORDER BY changed LIMIT {_BATCH})",
            (outputs_before,),
        )
        self._database.execute(
            f"DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE changed < ? AND {ended} LIMIT {_BATCH})",
            (jobs_before,),
        )

    def _one(self, condition: str, values: tuple[str, ...]) -> Entry | None:
        row = self._database.execute(
            f"SELECT id, user, key, fingerprint, state, answer, output FROM jobs WHERE {condition}", values
        ).fetchone()
        if row is None:
            return None
        job_id, owner, key, fingerprint, state, answer, output = row
        return Entry(job_id, owner, key, fingerprint, state, None if answer is None else json.loads(answer), output)
