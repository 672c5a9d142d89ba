"""Short jobs that the event loop runs itself: each once, recorded before it runs, and handed on if it takes long."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from apyfal.exceptions import KernelError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import JobSpec
from apyfal.host.server.jobs import manager as manager_module
from apyfal.host.server.jobs.execution import Executor
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.jobs.short_runs import ShortRun, ShortRuns
from apyfal.host.server.policy.quotas import Quota
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.records.mapped_log import MappedLog
from apyfal.host.server.transport.bodies import Data

KIND = JobSpec().text


class Card:
    """Stands for a prepared job: adds one to each element, at once or when it may."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.is_current = True
        self.source, self.target = np.zeros(4, np.uint8), np.zeros(4, np.uint8)
        self.journal = journal
        self.threads: list[int] = []
        self.states: list[str] = []
        self.failure: Exception | None = None
        self.may_end: threading.Event | None = None

    def begin(self, seconds: float) -> Callable[[], None] | None:
        self.threads.append(threading.get_ident())
        if self.journal is not None:
            self.states += [entry.state for entry in self.journal._all("number = (SELECT max(number) FROM jobs)")]
        if self.failure is not None:
            raise self.failure
        if self.may_end is None:
            np.add(self.source, 1, out=self.target)
            return None
        return self._rest

    def _rest(self) -> None:
        assert self.may_end is not None
        assert self.may_end.wait(10)
        self.threads.append(threading.get_ident())
        np.add(self.source, 1, out=self.target)


class NoThread:
    """Stands for the executor: finishes what has begun, and counts what it runs from its start."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, job: Job) -> None:
        rest, job.rest = job.rest, None
        if rest is None:
            self.runs += 1
        else:
            rest()


@pytest.fixture(params=["with a log", "without"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    log = MappedLog(tmp_path / "jobs.log") if request.param == "with a log" else None
    opened = Journal(tmp_path / "jobs.sqlite", log=log)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _a_busy_machine_makes_no_job_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_BRIEF", 5.0)


def make(journal: Journal, executor: NoThread, directory: Path) -> JobManager:
    return JobManager(
        journal=journal, saved=SavedOutputs(directory / "outputs"), executor=cast("Executor", executor),
        workers=2, limit=10, limit_of_user=10,
    )  # fmt: skip


def session_of(card: Card, quota: Quota | None = None) -> Session:
    session = Session("alice", {}, brief=4)
    memory = quota or Quota("bytes", 100)
    session.short_runs.keep(KIND, ShortRun(card, card.source, card.target, memory.share("alice", 8)))
    return session


def job_of(session: Session, key: object, first: int = 0, **options: Any) -> Job:
    data = Data(array=np.arange(first, first + 4, dtype=np.uint8))
    options = {"wants_info": False, "spec": JobSpec(), **options}
    return Job(session.user, session, key=str(key), data=data, **options)


def output_of(job: Job) -> list[int]:
    assert job.output is not None
    assert job.output.array is not None
    return list(job.output.array.view(np.uint8))


def test_a_short_job_runs_on_the_event_loop_once_it_is_recorded(journal: Journal, tmp_path: Path) -> None:
    card, executor = Card(journal), NoThread()

    async def main() -> list[Job]:
        manager, session = make(journal, executor, tmp_path), session_of(card)
        jobs = [job_of(session, number, number) for number in range(5)]
        for one in jobs:
            assert manager.submit(one, "print") is one
            assert (one.ended, one.state, one.progress, manager.running) == (True, "done", (4, 4), 0)
        again = job_of(session, 0, 0)
        assert manager.submit(again, "print") is jobs[0]  # known by its key
        assert session.active == 0
        assert await manager.stop(5) == []
        return jobs

    jobs = asyncio.run(main())
    assert [output_of(one) for one in jobs] == [[one, one + 1, one + 2, one + 3] for one in range(1, 6)]
    assert (card.threads, executor.runs) == ([threading.get_ident()] * 5, 0)
    assert card.states == ["running"] * 5
    for one in jobs:
        entry = journal.get(one.id)
        assert entry is not None
        assert (entry.state, list(entry.output or b"")) == ("done", output_of(one))


def test_a_job_that_does_not_end_at_once_is_waited_for_in_a_thread(journal: Journal, tmp_path: Path) -> None:
    card, executor = Card(), NoThread()
    card.may_end = threading.Event()

    async def main() -> None:
        manager, session = make(journal, executor, tmp_path), session_of(card)
        first, second = job_of(session, 1), job_of(session, 2)
        manager.submit(first, "print")
        assert (first.ended, manager.running) == (False, 1)
        manager.submit(second, "print")  # not on the arrays that the first still uses
        assert await second.wait(10)
        assert executor.runs == 1
        assert card.may_end is not None
        card.may_end.set()
        assert await first.wait(10)
        assert (first.state, output_of(first)) == ("done", [1, 2, 3, 4])
        assert await manager.stop(5) == []

    asyncio.run(main())
    assert len(set(card.threads)) == 2


def test_an_error_is_the_job_s_and_the_next_job_goes_to_a_thread(journal: Journal, tmp_path: Path) -> None:
    card, executor, quota = Card(), NoThread(), Quota("bytes", 100)
    card.failure = KernelError("it failed")

    async def main() -> None:
        manager, session = make(journal, executor, tmp_path), session_of(card, quota)
        failed, following = job_of(session, 1), job_of(session, 2)
        manager.submit(failed, "print")
        assert (failed.state, (failed.error or {})["message"]) == ("failed", "it failed")
        assert quota.used == 0
        manager.submit(following, "print")
        assert await following.wait(10)
        assert await manager.stop(5) == []

    asyncio.run(main())
    assert (len(card.threads), executor.runs) == (1, 1)


def test_a_job_that_cannot_be_recorded_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, executor = Card(), NoThread()
    journal = Journal(tmp_path / "jobs.sqlite")

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> None:
        manager, session = make(journal, executor, tmp_path), session_of(card)
        monkeypatch.setattr(journal.database, "commit", full)
        refused = job_of(session, 1)
        manager.submit(refused, "print")
        assert (refused.state, refused.document()["ran"], manager.running) == ("failed", False, 0)
        monkeypatch.undo()
        accepted = job_of(session, 2)
        manager.submit(accepted, "print")
        assert accepted.state == "done"
        assert await manager.stop(5) == []

    asyncio.run(main())
    journal.close()
    assert (len(card.threads), executor.runs) == (1, 0)


@pytest.mark.parametrize("why", ["a report", "another kind", "not brief", "started again"])
def test_other_jobs_go_to_a_thread(why: str, journal: Journal, tmp_path: Path) -> None:
    card, executor = Card(), NoThread()

    async def main() -> None:
        manager, session = make(journal, executor, tmp_path), session_of(card)
        options: dict[str, Any] = {}
        if why == "a report":
            options["wants_info"] = True
        elif why == "another kind":
            options["spec"] = JobSpec(copy=False)
        elif why == "not brief":
            session.brief = 3
        else:
            card.is_current = False
        one = job_of(session, 1, **options)
        manager.submit(one, "print")
        assert await one.wait(10)
        assert await manager.stop(5) == []

    asyncio.run(main())
    assert (card.threads, executor.runs) == ([], 1)


def test_a_kind_is_prepared_when_it_came_often_and_again_after_a_start() -> None:
    runs, card = ShortRuns(), Card()
    assert [runs.is_wanted("a") for _ in range(5)] == [False, False, False, True, True]
    assert not any(runs.is_wanted(text) for text in "bababa")
    quota = Quota("bytes", 100)
    runs.keep("a", ShortRun(card, card.source, card.target, quota.share("alice", 8)))
    assert runs.find("a") is not None
    assert not any(runs.is_wanted("a") for _ in range(5))
    card.is_current = False
    assert runs.find("a") is None
    assert runs.is_wanted("a")
    runs.keep("a", None)  # there is none: it is not tried again
    assert quota.used == 0
    assert not any(runs.is_wanted("a") for _ in range(5))


def test_few_kinds_are_kept_and_their_memory_is_given_back() -> None:
    runs, quota = ShortRuns(), Quota("bytes", 1000)
    for number in range(20):
        card = Card()
        runs.keep(str(number), ShortRun(card, card.source, card.target, quota.share("alice", 8)))
        assert quota.used <= 4 * 8
    assert [number for number in range(20) if runs.find(str(number))] == [16, 17, 18, 19]
    runs.close()
    assert quota.used == 0


def test_a_session_that_was_closed_keeps_none() -> None:
    quota, card = Quota("bytes", 100), Card()
    session = session_of(card, quota)
    session.stop()
    assert quota.used == 0
    session.keep_short_run(KIND, ShortRun(card, card.source, card.target, quota.share("alice", 8)))
    assert (quota.used, session.short_runs.find(KIND)) == (0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"began": False}, {"state": "failed", "error": {"type": "HostError", "message": "no"}}, {"progress": None},
        {"result": 0}, {"result": {}}, {"info": {"chunks": 1}}, {"batch": []}, {"output_parts": {}}, {"output": None},
        {"output_region": "r"}, {"output_type": None}, {"output_type": ArrayType(np.dtype("<f4"), (1, 1))},
        {"progress": (1, None)}, {"cancelled": True},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_is_the_job_s_document(changes: dict[str, Any]) -> None:
    for number, more in enumerate(({}, changes, {})):
        one = job_of(Session("alice", {}), number)
        options = {
            "id": f"0{number}-a", "state": "done", "began": True, "progress": (4, 4),
            "output": Data.of_bytes(bytes(4)), "output_type": ArrayType(np.dtype("u1"), (4,)), **more,
        }  # fmt: skip
        for name, value in options.items():
            setattr(one, name, value)
        one.describe()
        assert one.answer == json.dumps(one.document())
