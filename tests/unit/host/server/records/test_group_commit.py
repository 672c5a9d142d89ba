"""What is written in one turn of the event loop is committed once, before anybody acts on it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

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
            commits.then(lambda kept, key=key: told.append((key, kept, crashed.find("alice", key) is not None)))  # type: ignore[misc]  # mypy knows no defaults in lambdas
        assert told == []
        await asyncio.sleep(0)
        assert told == [("a", True, True), ("b", True, True), ("c", True, True)]
        # Those who cannot wait for the end of the turn get the same at once, and only once.
        commits.open()
        journal.enter("alice", "d", "print")
        commits.then(lambda kept: told.append(("d", kept, crashed.find("alice", "d") is not None)))
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
        commits.then(told.append)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "apyfal"):
            patch.setattr(journal.database, "commit", full)
            await asyncio.sleep(0)
        commits.open()  # with room again, what comes next is kept
        journal.enter("alice", "b", "print")
        commits.then(told.append)
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert told == [False, True]
    assert "database or disk is full" in caplog.text
    assert crashed.find("alice", "a") is None
    assert crashed.find("alice", "b") is not None


def logged(directory: Path) -> Journal:
    return Journal(directory / "jobs.sqlite", log=MappedLog(directory / "jobs.log"))


def test_with_a_log_many_turns_share_a_commit(tmp_path: Path) -> None:
    journal = logged(tmp_path)
    seen = Journal(tmp_path / "jobs.sqlite")
    told: list[bool] = []

    async def turns() -> None:
        commits = GroupCommit(journal.database)
        for number in range(5):
            commits.open()
            journal.enter("alice", str(number), "print", running=True)
            commits.then(told.append)
            assert len(told) == number
            commits.settle()
            assert told == [True] * (number + 1), "at once"
            await asyncio.sleep(0)
        assert seen.find("alice", "0") is None
        await asyncio.sleep(0.3)
        assert all(seen.find("alice", str(number)) for number in range(5))
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

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def write(commits: GroupCommit, key: str) -> None:
        commits.open()
        journal.enter("alice", key, "print", running=True)
        commits.then(lambda kept: told.append((key, kept)))
        commits.settle()

    async def turns() -> None:
        commits = GroupCommit(journal.database)
        write(commits, "before")
        monkeypatch.setattr(journal.database, "commit", full)
        with caplog.at_level(logging.ERROR, "apyfal"):
            await asyncio.sleep(0.3)
            write(commits, "meanwhile")
            await asyncio.sleep(0.01)
        assert told == [("before", True), ("meanwhile", False)]
        monkeypatch.setattr(journal.database, "commit", commit)
        write(commits, "after")
        await asyncio.sleep(0.3)
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
        commits.then(told.append)
        commits.settle()
        assert told == []
        await asyncio.sleep(0)
        assert told == [True]
        commits.close()

    asyncio.run(turn())
    journal.close()
