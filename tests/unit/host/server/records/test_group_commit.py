"""What is written in one turn of the event loop is committed once, before anybody acts on it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apyfal.host.server.records import group_commit
from apyfal.host.server.records.group_commit import GroupCommit
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.records.mapped_log import MappedLog


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[tuple[Journal, Journal]]:
    """One that is written to, and one that sees what a daemon would find after a crash."""
    written, seen = Journal(tmp_path / "jobs.sqlite"), Journal(tmp_path / "jobs.sqlite")
    yield written, seen
    written.close()
    seen.close()


def test_nobody_is_told_before_the_journal_has_it(journals: tuple[Journal, Journal]) -> None:
    journal, crashed = journals
    told: list[tuple[str, bool, bool]] = []

    async def turn() -> None:
        commits = GroupCommit(journal.database)
        for key in "abc":
            commits.open()
            journal.enter("alice", key, "print", running=True)
            assert crashed.find("alice", key) is None
            commits.add_callback(lambda kept, key=key: told.append((key, kept, crashed.find("alice", key) is not None)))  # type: ignore[misc]  # mypy knows no defaults in lambdas
        assert told == []
        await asyncio.sleep(0)
        assert told == [("a", True, True), ("b", True, True), ("c", True, True)]
        # Those who cannot wait for the end of the turn get the same at once, and only once.
        commits.open()
        journal.enter("alice", "d", "print")
        commits.add_callback(lambda kept: told.append(("d", kept, crashed.find("alice", "d") is not None)))
        commits.commit()
        await asyncio.sleep(0)
        assert told[3:] == [("d", True, True)]

    asyncio.run(turn())


def test_a_key_that_is_taken_spoils_nothing_else_of_the_turn(journals: tuple[Journal, Journal]) -> None:
    journal, crashed = journals

    async def turn() -> None:
        commits = GroupCommit(journal.database)
        commits.open()
        journal.enter("alice", "a", "print")
        with pytest.raises(sqlite3.IntegrityError):
            journal.enter("alice", "a", "print")
        journal.enter("alice", "b", "print")
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert crashed.find("alice", "a") is not None
    assert crashed.find("alice", "b") is not None


def test_a_journal_that_cannot_be_written_is_said(
    journals: tuple[Journal, Journal], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal, crashed = journals
    told: list[bool] = []

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def turn() -> None:
        commits = GroupCommit(journal.database)
        commits.open()
        journal.enter("alice", "a", "print")
        commits.add_callback(told.append)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "apyfal"):
            patch.setattr(journal.database, "commit", full)
            await asyncio.sleep(0)
        commits.open()  # with room again, what comes next is kept
        journal.enter("alice", "b", "print")
        commits.add_callback(told.append)
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert told == [False, True]
    assert "database or disk is full" in caplog.text
    assert crashed.find("alice", "a") is None
    assert crashed.find("alice", "b") is not None


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds, however busy the machine is."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def logged(directory: Path) -> Journal:
    return Journal(directory / "jobs.sqlite", log=MappedLog(directory / "jobs.log"))


def counted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that has an item more after each commit."""
    commit = journal.database.commit
    commits: list[None] = []

    def counting() -> None:
        commit()
        commits.append(None)

    monkeypatch.setattr(journal.database, "commit", counting)
    return commits


def test_with_a_log_many_turns_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = logged(tmp_path)
    count = counted(journal, monkeypatch)
    seen = Journal(tmp_path / "jobs.sqlite")
    told: list[bool] = []

    async def turns() -> None:
        commits = GroupCommit(journal.database)
        monkeypatch.setattr(group_commit, "_DELAY", 3600.0)
        for number in range(5):
            commits.open()
            journal.enter("alice", str(number), "print", running=True)
            commits.add_callback(told.append)
            assert len(told) == number
            commits.settle()
            assert told == [True] * (number + 1), "at once"
            await asyncio.sleep(0)
        assert seen.find("alice", "0") is None
        commits.close()
        assert all(seen.find("alice", str(number)) for number in range(5))
        assert len(count) == 1
        monkeypatch.setattr(group_commit, "_DELAY", 0.01)
        commits.open()
        journal.enter("alice", "5", "print", running=True)
        commits.settle()
        await until(lambda: seen.find("alice", "5"))
        assert len(count) == 2
        commits.close()

    asyncio.run(turns())
    journal.close()
    seen.close()


def test_with_a_log_a_full_disk_loses_nothing_that_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = logged(tmp_path)
    commit = journal.database.commit
    told: list[tuple[str, bool]] = []
    refused: list[int] = []

    def full() -> None:
        refused.append(len(told))
        raise sqlite3.OperationalError("database or disk is full")

    def write(commits: GroupCommit, key: str) -> None:
        commits.open()
        journal.enter("alice", key, "print", running=True)
        commits.add_callback(lambda kept: told.append((key, kept)))
        commits.settle()

    async def turns() -> None:
        commits = GroupCommit(journal.database)
        write(commits, "before")
        monkeypatch.setattr(journal.database, "commit", full)
        with caplog.at_level(logging.ERROR, "apyfal"):
            await until(lambda: refused)
            write(commits, "meanwhile")
            await until(lambda: len(told) == 2)
        assert told == [("before", True), ("meanwhile", False)]
        monkeypatch.setattr(journal.database, "commit", commit)
        count = counted(journal, monkeypatch)
        write(commits, "after")
        await until(lambda: count)
        write(commits, "long after")
        assert told[2:] == [("after", True), ("long after", True)]
        commits.close()

    asyncio.run(turns())
    assert "database or disk is full" in caplog.text
    assert [journal.find("alice", key) is not None for key, _ in told] == [True, False, True, True]
    journal.close()


def test_a_full_log_is_a_commit_at_the_end_of_the_turn(tmp_path: Path) -> None:
    journal = logged(tmp_path)
    told: list[bool] = []

    async def turn() -> None:
        commits = GroupCommit(journal.database)
        commits.open()
        job = journal.enter("alice", "key", "print", running=True)
        journal.finish(job, "done", "x" * (5 << 20))
        commits.add_callback(told.append)
        commits.settle()
        assert told == []
        await asyncio.sleep(0)
        assert told == [True]
        commits.close()

    asyncio.run(turn())
    journal.close()
