"""An error of the database, wherever it is met, takes nothing that somebody was told, and nobody is told too much."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apyfal.host.server.records.group_commit import GroupCommit
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.records.mapped_log import MappedLog

_JOBS = 200


def logged(directory: Path) -> Journal:
    return Journal(directory / "jobs.sqlite", log=MappedLog(directory / "jobs.log"))


@contextlib.contextmanager
def no_more_pages(journal: Journal, directory: Path) -> Iterator[None]:
    pages = journal.database._database.execute("PRAGMA page_count").fetchone()[0]
    journal.database._database.execute(f"PRAGMA max_page_count={pages + 4}")
    yield
    journal.database._database.execute("PRAGMA max_page_count=1000000")


@contextlib.contextmanager
def no_larger_files(journal: Journal, directory: Path) -> Iterator[None]:
    size = (directory / "jobs.sqlite-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def find(journal: Journal) -> None:
    journal.find("alice", "0")


def get(journal: Journal) -> None:
    journal.get(f"{1:015x}-{0:016x}")


def held(journal: Journal) -> None:
    journal.held()


def forget(journal: Journal) -> None:
    journal.forget(0, 0)


def strike(journal: Journal) -> None:
    journal.strike(journal.enter("bob", "struck", "print"))


def nothing(journal: Journal) -> None:
    pass


@pytest.mark.parametrize("full", [no_more_pages, no_larger_files])
@pytest.mark.parametrize("meet", [nothing, find, get, held, forget, strike])
def test_answered_jobs_are_known_once_there_is_room(
    tmp_path: Path,
    full: Callable[[Journal, Path], contextlib.AbstractContextManager[None]],
    meet: Callable[[Journal], None],
) -> None:
    journal = logged(tmp_path)
    journal.database._database.execute("PRAGMA cache_size=10")  # so that the transaction is written before its commit
    told: dict[str, bool] = {}

    def write(commits: GroupCommit, key: str) -> None:
        commits.open()
        job = journal.enter("alice", key, "print", running=True)
        journal.finish(job, "done", "{}", b"x" * 10_000, user="alice")
        commits.add_callback(lambda kept: told.update({key: kept}))
        commits.settle()

    async def main() -> None:
        commits = GroupCommit(journal.database)
        with full(journal, tmp_path):
            for number in range(_JOBS):
                write(commits, str(number))
            assert all(told.values())
            assert len(told) == _JOBS
            with contextlib.suppress(sqlite3.Error):
                meet(journal)
            await asyncio.sleep(0.3)
            with contextlib.suppress(sqlite3.Error):  # not known whether there is one
                write(commits, "meanwhile")
            with pytest.raises(sqlite3.Error):
                journal.enter("alice", "0", "print", running=True)
            with contextlib.suppress(sqlite3.Error):
                meet(journal)
            await asyncio.sleep(0.1)
        assert not told.get("meanwhile", False)
        write(commits, "after")
        await asyncio.sleep(0.3)
        assert told["after"]
        write(commits, "long after")
        assert told["long after"], "at once: the log is in use again"
        commits.close()

    asyncio.run(main())
    seen = sqlite3.connect(tmp_path / "jobs.sqlite")
    known = {key for (key,) in seen.execute("SELECT key FROM jobs JOIN answers USING (number) WHERE user = 'alice'")}
    seen.close()
    assert known == {key for key, kept in told.items() if kept}
    journal.close()


def test_a_commit_is_tried_again_without_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apyfal.host.server.records.group_commit._RETRY", 0.1)
    journal = logged(tmp_path)

    async def main() -> None:
        commits = GroupCommit(journal.database)
        with no_more_pages(journal, tmp_path):
            for number in range(_JOBS):
                commits.open()
                journal.finish(journal.enter("alice", str(number), "print"), "done", "{}", b"x" * 10_000, user="alice")
                commits.settle()
            await asyncio.sleep(0.3)
        await asyncio.sleep(0.3)
        assert journal.database.is_kept

    asyncio.run(main())
    assert all(journal.find("alice", str(number)) is not None for number in range(_JOBS))
    journal.close()


@pytest.mark.parametrize("full", [no_more_pages, no_larger_files])
def test_no_job_starts_whose_record_went_with_the_transaction_of_another(
    tmp_path: Path, full: Callable[[Journal, Path], contextlib.AbstractContextManager[None]]
) -> None:
    journal = Journal(tmp_path / "jobs.sqlite")
    journal.database._database.execute("PRAGMA cache_size=10")
    told: dict[str, bool] = {}

    async def main() -> None:
        commits = GroupCommit(journal.database)
        with full(journal, tmp_path):
            for key in "abcd":
                commits.open()
                job = journal.enter("alice", key, "print", running=True)
                if key in "bc":
                    journal.finish(job, "done", "{}", b"x" * 1_000_000, user="alice")
                commits.add_callback(lambda kept, key=key: told.update({key: kept}))  # type: ignore[misc]  # mypy knows no defaults in lambdas
                commits.settle()
            await asyncio.sleep(0.01)
        commits.open()
        journal.enter("alice", "after", "print", running=True)
        commits.add_callback(lambda kept: told.update(after=kept))
        commits.close()

    asyncio.run(main())
    assert told == dict.fromkeys("abcd", False) | {"after": True}
    assert {key for key in told if journal.find("alice", key) is not None} == {"after"}
    journal.close()


def test_forgetting_ends_while_nothing_can_be_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "jobs.sqlite")
    for number in range(3):
        journal.finish(journal.enter("alice", str(number), "print"), "done", "{}", b"x")
    journal.database.begin()
    assert journal.forget(1e12, 0)
    journal.database._database.execute("PRAGMA query_only=1")  # no statement can be executed
    journal.mark_running(f"{1:015x}-{0:016x}")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.database.commit()
    journal.database._database.execute("PRAGMA query_only=0")
    journal.database.roll_back()
    assert not journal.forget(1e12, 0)
    journal.database.commit()
    assert journal.find("alice", "0").output is None  # type: ignore[union-attr]
    journal.close()
