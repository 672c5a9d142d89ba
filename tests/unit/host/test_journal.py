"""The journal of jobs."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apyfal.host.journal import NOT_RUN, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def test_life_of_a_job(journal: Journal, tmp_path: Path) -> None:
    assert journal.find("alice", "key") is None
    journal.enter("id", "alice", "key", "print")
    entry = journal.find("alice", "key")
    assert entry is not None
    assert (entry.id, entry.state, entry.fingerprint, entry.answer) == ("id", "queued", "print", None)
    journal.mark_running("id")
    journal.finish("id", "done", {"id": "id", "result": 1}, b"output")
    entry = journal.get("id")
    assert entry is not None
    assert (entry.state, entry.answer, entry.output) == ("done", {"id": "id", "result": 1}, b"output")
    assert stat.S_IMODE((tmp_path / "jobs.sqlite").stat().st_mode) == 0o600


def test_a_key_belongs_to_one_job_of_a_user(journal: Journal) -> None:
    journal.enter("one", "alice", "key", "print")
    with pytest.raises(sqlite3.IntegrityError):
        journal.enter("two", "alice", "key", "print")
    journal.enter("three", "bob", "key", "print")


def test_recovery_reports_what_had_not_ended(tmp_path: Path) -> None:
    first = Journal(tmp_path / "jobs.sqlite")
    first.enter("waiting", "alice", "1", "print")
    first.enter("running", "alice", "2", "print", running=True)
    first.enter("done", "alice", "3", "print", running=True)
    first.finish("done", "done", {"state": "done"})
    # No close: the process was killed.
    second = Journal(tmp_path / "jobs.sqlite")
    found = {entry.id: entry.answer for entry in second.recover()}
    assert set(found) == {"waiting", "running"}
    waiting, running = found["waiting"], found["running"]
    assert waiting is not None
    assert running is not None
    assert (waiting["state"], waiting["ran"], waiting["error"]["message"]) == ("interrupted", False, NOT_RUN)
    assert (running["state"], running["ran"]) == ("interrupted", None)
    assert second.recover() == []
    second.close()
    first.close()


def test_forgetting(journal: Journal) -> None:
    for number in range(3):
        journal.enter(str(number), "alice", str(number), "print", running=True)
    journal.finish("0", "done", {}, b"x")
    journal.finish("1", "failed", {})
    later = time.time() + 1
    journal.forget(later, 0)
    entry = journal.get("0")
    assert entry is not None
    assert entry.output is None
    journal.forget(later, later)
    assert journal.get("0") is None
    assert journal.get("1") is None
    assert journal.get("2") is not None, "what runs is never forgotten"
