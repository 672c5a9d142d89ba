"""The engine runs each job once, whenever it comes and goes, and not at all where the journal cannot say so."""

from __future__ import annotations

import asyncio
import collections
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apyfal.host.protocol.messages import JobSpec
from apyfal.host.server.jobs.execution import Executor
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.records.journal import Journal


class Counting:
    """Stands for the executor: counts the runs of each job, which end when they may."""

    def __init__(self) -> None:
        self.runs: collections.Counter[str] = collections.Counter()
        self.may_end = threading.Event()
        self.may_end.set()

    def run(self, job: Job) -> None:
        self.runs[job.key] += 1
        self.may_end.wait(10)
        job.result = {"key": job.key}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def make(journal: Journal, executor: Counting, directory: Path, workers: int = 2) -> JobManager:
    return JobManager(
        journal=journal, saved=SavedOutputs(directory / "outputs"), executor=cast("Executor", executor),
        workers=workers, limit=1000, limit_of_user=1000,
    )  # fmt: skip


def job(session: Session, key: object) -> Job:
    return Job(session.user, session, JobSpec(), str(key))


def test_each_job_runs_once_however_turns_fall(journal: Journal, tmp_path: Path) -> None:
    executor = Counting()
    sessions = [Session(user, {}) for user in ("alice", "bob")]

    async def main() -> list[Job]:
        engine = make(journal, executor, tmp_path)
        jobs = [job(sessions[number % 2], number) for number in range(300)]
        for number, one in enumerate(jobs):
            assert engine.submit(one, "print") is one
            if number % 7 == 0:  # some come in one turn with the end of others, and are taken from the queue in it
                await asyncio.sleep(0.001 * (number % 3))
        for one in jobs:
            assert await one.wait(20)
        assert await engine.stop(5) == []
        return jobs

    jobs = asyncio.run(main())
    assert executor.runs == {one.key: 1 for one in jobs}
    for one in jobs:
        entry = journal.get(one.id)
        assert entry is not None
        assert (entry.state, (entry.answer or {})["result"]) == ("done", {"key": one.key})


def test_a_job_that_the_journal_cannot_take_is_not_run(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Counting()
    session = Session("alice", {})
    commit = journal.database.commit

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> dict[str, Any]:
        engine = make(journal, executor, tmp_path, workers=1)
        monkeypatch.setattr(journal.database, "commit", full)
        refused = [job(session, number) for number in range(3)]  # one would run, two would wait
        for one in refused:
            engine.submit(one, "print")
        for one in refused:
            assert await one.wait(5)
            assert (one.state, one.document()["ran"]) == ("failed", False)
            assert "cannot write its journal" in (one.error or {})["message"]
        monkeypatch.setattr(journal.database, "commit", commit)
        # A job that has run is told to those who wait, though nothing of it could be kept.
        executor.may_end.clear()
        ran = job(session, "ran")
        engine.submit(ran, "print")
        while not executor.runs:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(journal.database, "commit", full)
        executor.may_end.set()
        assert await ran.wait(5)
        monkeypatch.setattr(journal.database, "commit", commit)
        again = job(session, "again")
        engine.submit(again, "print")
        assert await again.wait(5)
        assert await engine.stop(5) == []
        assert (engine.waiting, engine.running, session.active) == (0, 0, 0)
        return {"ran": ran.state, "again": again.state}

    assert asyncio.run(main()) == {"ran": "done", "again": "done"}
    assert executor.runs == {"ran": 1, "again": 1}


def test_a_manager_is_idle_after_its_last_job_whatever_the_journal_says(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**keywords: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def main() -> None:
        manager = make(journal, Counting(), tmp_path)
        manager.submit(job(Session("alice", {}), "key"), "print")
        with monkeypatch.context() as patch:
            patch.setattr(manager._commits, "settle", fail)
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            while manager.running:
                await asyncio.sleep(0.01)
        assert await asyncio.wait_for(manager.stop(1), 5) == []
        assert manager._idle.is_set()
        manager.close()

    asyncio.run(main())
