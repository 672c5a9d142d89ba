"""The journal of jobs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError
from apyfal.host.server.records.journal import NOT_RUN, Journal
from apyfal.host.server.records.mapped_log import MappedLog


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def test_life_of_a_job(journal: Journal, tmp_path: Path) -> None:
    assert journal.find("alice", "key") is None
    job = journal.enter("alice", "key", "print")
    entry = journal.find("alice", "key")
    assert entry is not None
    assert (entry.id, entry.state, entry.fingerprint, entry.answer) == (job, "queued", "print", None)
    journal.mark_running(job)
    journal.finish(job, "done", json.dumps({"id": job, "result": 1}), b"output")
    entry = journal.get(job)
    assert entry is not None
    assert (entry.state, entry.answer, entry.output) == ("done", {"id": job, "result": 1}, b"output")
    assert stat.S_IMODE((tmp_path / "jobs.sqlite").stat().st_mode) == 0o600


def test_ids_lead_to_their_own_job_only(journal: Journal) -> None:
    first, second = journal.enter("alice", "1", "print"), journal.enter("alice", "2", "print")
    assert first < second, "in the order in which they came"
    for wrong in ("", "0" * 32, first[:-1] + ("0" if first[-1] != "0" else "1"), first[:15] + second[15:], f"{first} "):
        assert journal.get(wrong) is None
    assert journal.get(first) != journal.get(second)


def test_a_key_belongs_to_one_job_of_a_user(journal: Journal) -> None:
    job = journal.enter("alice", "key", "print")
    with pytest.raises(sqlite3.IntegrityError):
        journal.enter("alice", "key", "print")
    journal.enter("bob", "key", "print")
    journal.strike(job)
    journal.enter("alice", "key", "print")


def test_recovery_reports_what_had_not_ended(tmp_path: Path) -> None:
    first = Journal(tmp_path / "jobs.sqlite")
    waiting = first.enter("alice", "1", "print")
    running = first.enter("alice", "2", "print", running=True)
    done = first.enter("alice", "3", "print", running=True)
    first.finish(done, "done", json.dumps({"state": "done"}))
    # No close: the process was killed.
    second = Journal(tmp_path / "jobs.sqlite")
    answers = {entry.id: entry.answer or {} for entry in second.recover()}
    assert set(answers) == {waiting, running}
    assert (answers[waiting]["state"], answers[waiting]["ran"]) == ("interrupted", False)
    assert answers[waiting]["error"]["message"] == NOT_RUN
    assert (answers[running]["state"], answers[running]["ran"]) == ("interrupted", None)
    assert second.recover() == []
    assert second.enter("alice", "4", "print") > done
    second.close()
    first.close()


def test_outputs_that_the_daemon_held_are_known_after_a_crash(tmp_path: Path) -> None:
    first = Journal(tmp_path / "jobs.sqlite")
    jobs = [first.enter("alice", str(number), "print", running=True) for number in range(3)]
    for job in jobs:
        first.finish(job, "done", "{}", held=job != jobs[0])
    first.release(jobs[1])
    second = Journal(tmp_path / "jobs.sqlite")
    assert [entry.id for entry in second.held()] == [jobs[2]]
    second.close()
    first.close()


def test_forgetting(journal: Journal) -> None:
    done, failed, running = (journal.enter("alice", str(number), "print", running=True) for number in range(3))
    journal.finish(done, "done", "{}", b"x")
    journal.finish(failed, "failed", "{}")
    later = time.time() + 1
    journal.forget(later, 0)
    entry = journal.get(done)
    assert entry is not None
    assert entry.output is None
    journal.forget(later, later)
    assert journal.get(done) is None
    assert journal.get(failed) is None
    assert journal.get(running) is not None, "what runs is never forgotten"


def test_much_is_forgotten_little_by_little(journal: Journal) -> None:
    jobs = [journal.enter("alice", str(number), "print", running=True) for number in range(1000)]
    for job in jobs:
        journal.finish(job, "done", "{}", b"x")
    later = time.time() + 1
    assert journal.forget(later, later)
    assert journal.get(jobs[-1]) is not None, "not all in one go: requests wait meanwhile"
    calls = 1
    while journal.forget(later, later):
        calls += 1
    assert calls < 100
    assert all(journal.get(job) is None for job in jobs)


def test_the_log_is_written_back_by_another_thread(journal: Journal, tmp_path: Path) -> None:
    for number in range(10):
        journal.enter("alice", str(number), "print")
    size = (tmp_path / "jobs.sqlite").stat().st_size
    thread = threading.Thread(target=journal.database.checkpoint)
    thread.start()
    thread.join()
    assert (tmp_path / "jobs.sqlite").stat().st_size > size


def test_a_journal_of_another_version_is_not_touched(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        database.execute("PRAGMA user_version=1")
    with pytest.raises(ConfigurationError, match="version 1, not 2"):
        Journal(tmp_path / "jobs.sqlite")


def test_a_user_over_the_limit_loses_the_oldest_and_nobody_else_does(tmp_path: Path) -> None:
    answer, output = json.dumps({"state": "done"}), bytes(10_000)
    with contextlib.closing(Journal(tmp_path / "jobs", limit=4_000_000)) as journal:
        kept = journal.enter("alice", "first", "print")
        journal.finish(kept, "done", answer, output, user="alice")
        for number in range(2_000):
            journal.finish(journal.enter("mallory", str(number), "print"), "done", answer, output, user="mallory")
        assert journal.get(kept) is not None
        assert journal.find("mallory", "0") is None
        assert journal.find("mallory", "1999") is not None
    held = (tmp_path / "jobs").stat().st_size
    assert held < 8_000_000, "what is dropped makes room"
    with contextlib.closing(Journal(tmp_path / "jobs", limit=4_000_000)) as journal:
        assert journal._retention._bytes["mallory"] <= 3_000_000, "counted anew from the file"
        while journal.forget(time.time() + 1, time.time() + 1):
            pass
        assert journal._retention._total == 0


# -- with a log: what a killed daemon had not committed ----------------------------------------------------------------
def opened(directory: Path) -> Journal:
    return Journal(directory / "jobs.sqlite", log=MappedLog(directory / "jobs.log"))


def killed(journal: Journal) -> None:
    """Leave the files as a process that is killed leaves them."""
    journal.database.abandon()


def test_a_killed_daemon_loses_nothing_that_was_not_committed(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.database.begin()
    waiting, running, done, struck = (journal.enter("alice", str(number), "print") for number in range(4))
    journal.mark_running(running)
    journal.mark_running(done)
    journal.finish(done, "done", json.dumps({"result": "\udcff"}), b"", held=False)
    alone = journal.enter("bob", "0", "print", running=True)
    journal.finish(alone, "done", "{}", held=True)
    journal.release(alone)
    journal.strike(struck)
    assert journal.database.is_kept
    killed(journal)
    again = opened(tmp_path)
    assert {entry.id: entry.answer["ran"] for entry in again.recover() if entry.answer} == {
        waiting: False,
        running: None,
    }
    found = again.get(done)
    assert found is not None
    assert (found.state, found.output, found.key) == ("done", b"", "2")
    assert (again.get(struck), again.held()) == (None, [])
    found = again.get(alone)
    assert found is not None
    assert found.output is None
    again.close()
    third = opened(tmp_path)
    assert third.recover() == []
    assert third.find("alice", "2") is not None
    third.close()


def test_a_daemon_killed_between_commit_and_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    monkeypatch.setattr(MappedLog, "clear", lambda self: None)
    journal.database.begin()
    first = journal.enter("alice", "key", "print", running=True)
    journal.finish(first, "done", "{}", b"1")
    journal.strike(first)
    second = journal.enter("alice", "key", "print", running=True)
    journal.finish(second, "done", "{}", b"2")
    journal.database.commit()
    monkeypatch.undo()
    killed(journal)
    again = opened(tmp_path)
    found = again.find("alice", "key")
    assert found is not None
    assert (found.id, found.output) == (second, b"2")
    assert again.recover() == []
    again.close()


def test_a_commit_that_fails_keeps_what_the_log_has(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.database.begin()
    kept = journal.enter("alice", "kept", "print", running=True)
    assert journal.database.roll_back(), "a transaction is open again"
    assert not journal.database.is_kept, "only a commit keeps what comes now"
    with pytest.raises(sqlite3.IntegrityError):
        journal.enter("alice", "kept", "print")
    lost = journal.enter("alice", "lost", "print")
    assert journal.database.roll_back()
    assert (journal.get(kept) is None, journal.get(lost)) == (False, None)
    journal.finish(kept, "done", "{}")
    journal.database.commit()
    assert journal.database.is_kept
    killed(journal)
    again = opened(tmp_path)
    assert again.recover() == []
    again.close()


def test_a_record_that_the_log_cannot_take_waits_for_a_commit(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.database.begin()
    job = journal.enter("alice", "key", "print", running=True)
    journal.finish(job, "done", "x" * (5 << 20))
    assert not journal.database.is_kept
    journal.database.commit()
    assert journal.database.is_kept
    journal.close()
