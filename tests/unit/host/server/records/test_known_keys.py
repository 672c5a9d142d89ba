"""Keys that are certainly new."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from apyfal.host.server.records import journal as journals
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.records.known_keys import KnownKeys
from apyfal.host.server.records.mapped_log import MappedLog


@pytest.mark.parametrize("nbytes", [1, 2, 1 << 12])
def test_no_key_is_forgotten(nbytes: int) -> None:
    keys, known = [("user", str(number)) for number in range(1000)], KnownKeys(nbytes)
    assert not any(known.may_have(key) for key in keys)
    for key in keys:
        known.add(key)
        assert known.may_have(key)
    assert all(known.may_have(key) for key in keys)


def test_most_new_keys_are_certain() -> None:
    known = KnownKeys()
    for number in range(1000):
        known.add(("user", str(number)))
    assert sum(known.may_have(("user", f"another {number}")) for number in range(1000)) < 10


def opened(directory: Path) -> Journal:
    """Open the journal of a directory."""
    return Journal(directory / "jobs.sqlite", log=MappedLog(directory / "jobs.log"))


@pytest.mark.parametrize("at_once", [1, 3, 7, 10_000])
def test_a_key_is_known_in_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(journals, "_KEYS_AT_ONCE", at_once)
    with contextlib.closing(opened(tmp_path)) as first:
        first.database.begin()
        for number in range(7):
            last = first.enter("alice", str(number), "print")
    with contextlib.closing(opened(tmp_path)) as second:
        second.database.begin()
        for number in range(7):
            with pytest.raises(sqlite3.IntegrityError):
                second.enter("alice", str(number), "print")
        assert second.enter("bob", "0", "print") > last


def test_the_database_is_asked_only_for_keys_that_may_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(opened(tmp_path)) as journal:
        journal.database.begin()
        asked: list[Any] = []
        read = journal.database.read
        monkeypatch.setattr(journal.database, "read", lambda *query: asked.append(query) or read(*query))
        journal.enter("alice", "0", "print")
        journal.database.commit()
        assert not asked
        with pytest.raises(sqlite3.IntegrityError):
            journal.enter("alice", "0", "print")
        assert len(asked) == 1


def test_a_key_whose_job_was_struck_can_be_used_again(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as journal:
        journal.database.begin()
        journal.strike(journal.enter("alice", "0", "print"))
        journal.enter("alice", "0", "print")
        with pytest.raises(sqlite3.IntegrityError):
            journal.enter("alice", "0", "print")


def test_every_key_may_be_known_when_the_table_is_full(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as journal:
        journal.database.begin()
        journal._keys = KnownKeys(1)
        for number in range(10):
            journal.enter("alice", str(number), "print")
        for number in range(10):
            with pytest.raises(sqlite3.IntegrityError):
                journal.enter("alice", str(number), "print")
