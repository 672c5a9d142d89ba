"""What a user keeps below ``host://`` counts while it is there, and no longer."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, ObjectExists
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.policy.refusals import TooLarge, TooMany
from apyfal.host.server.records.usage_ledger import UsageLedger
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.transfer import copy, upload

KIB = 1 << 10
LIMIT = 64 * KIB

Write = Callable[[HostStore, str, int], object]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[UsageLedger]:
    opened = UsageLedger(tmp_path / "files.sqlite", LIMIT)
    yield opened
    opened.close()


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[AllowedDirectories]:
    (tmp_path / "shared").mkdir()
    with AllowedDirectories([str(tmp_path / "shared")]) as allowed:
        yield allowed


def store(directories: AllowedDirectories, ledger: UsageLedger, user: str = "alice") -> HostStore:
    return HostStore(directories, account=ledger.account(user))


def at_once(target: HostStore, path: str, size: int) -> object:
    return target.put(path, memoryview(bytes(size)), None)


def in_parts(target: HostStore, path: str, size: int) -> object:
    return upload(target, path, memoryview(bytes(size)), options=TransferOptions(part_size=4 * KIB))


def of_unknown_size(target: HostStore, path: str, size: int) -> object:
    writing = target.upload(path, size=None)
    try:
        for number, start in enumerate(range(0, max(size, 1), 4 * KIB), start=1):
            writing.write_part(number, memoryview(bytes(min(4 * KIB, size - start))), None)
        return writing.complete(size, None)
    except BaseException:
        writing.abort()
        raise


def copied(target: HostStore, path: str, size: int) -> object:
    source = HostStore(target._directories)
    source.put("source", memoryview(bytes(size)), None)
    return copy(source, "source", target, path)


WAYS: list[Write] = [at_once, in_parts, of_unknown_size, copied]


@pytest.mark.parametrize("write", WAYS)
def test_each_way_of_writing_counts(directories: AllowedDirectories, ledger: UsageLedger, write: Write) -> None:
    alice = store(directories, ledger)
    write(alice, "x", 40 * KIB)
    assert ledger.held_by("alice") == 40 * KIB
    with pytest.raises((TooMany, TooLarge), match=r"host://"):
        write(alice, "y", 40 * KIB)
    assert ledger.held_by("alice") == 40 * KIB
    names = [one.name for one in Path(directories.directories[0]).iterdir() if one.name != "source"]
    assert names == ["x"], "nothing is left of what was refused"
    write(store(directories, ledger, "bob"), "z", 40 * KIB)
    alice.remove("x")
    assert (ledger.held_by("alice"), ledger.held_by("bob")) == (0, 40 * KIB)
    write(alice, "y", 40 * KIB)


def test_a_file_that_replaces_another_counts_instead(directories: AllowedDirectories, ledger: UsageLedger) -> None:
    alice, bob = store(directories, ledger), store(directories, ledger, "bob")
    at_once(alice, "x", 20 * KIB)
    at_once(alice, "x", 10 * KIB)
    assert ledger.held_by("alice") == 12 * KIB, "in blocks"
    at_once(bob, "x", 8 * KIB)
    assert (ledger.held_by("alice"), ledger.held_by("bob")) == (0, 8 * KIB)
    alice.remove("x")  # whoever removes it
    assert (ledger.held_by("alice"), ledger.held_by("bob")) == (0, 0)


def test_empty_files_count_too(directories: AllowedDirectories, ledger: UsageLedger) -> None:
    alice = store(directories, ledger)
    for number in range(LIMIT // (4 * KIB)):
        at_once(alice, str(number), 0)
    with pytest.raises(TooMany, match=r"you keep 65536 there, and a user may keep 65536; remove some files"):
        at_once(alice, "one more", 0)


def test_a_file_that_could_never_fit_is_too_large(directories: AllowedDirectories, ledger: UsageLedger) -> None:
    with pytest.raises(TooLarge, match="a user may keep 65536"):
        store(directories, ledger).upload("x", size=LIMIT + 1)
    assert list(Path(directories.directories[0]).iterdir()) == []


def test_a_file_that_exists_already_costs_nothing(directories: AllowedDirectories, ledger: UsageLedger) -> None:
    alice = store(directories, ledger)
    at_once(alice, "x", KIB)
    with pytest.raises(ObjectExists):
        alice.put("x", memoryview(bytes(KIB)), None, exclusive=True)
    with pytest.raises(ObjectExists):
        alice.upload("x", size=KIB, exclusive=True)
    # The name is taken between the beginning and the end.
    late = alice.upload("y", size=KIB, exclusive=True)
    late.write_part(1, memoryview(bytes(KIB)), None)
    (Path(directories.directories[0]) / "y").write_bytes(b"")
    with pytest.raises(ObjectExists):
        late.complete(KIB, None)
    late.abort()
    assert ledger.held_by("alice") == 4 * KIB


def test_a_restart_forgets_nothing(directories: AllowedDirectories, ledger: UsageLedger, tmp_path: Path) -> None:
    at_once(store(directories, ledger), "x", 40 * KIB)
    pending = store(directories, ledger).upload("y", size=8 * KIB)  # its daemon is killed
    ledger.close()
    again = UsageLedger(tmp_path / "files.sqlite", LIMIT)
    assert again.held_by("alice") == 40 * KIB
    alice = store(directories, again)
    with pytest.raises(TooMany):
        at_once(alice, "z", 40 * KIB)
    alice.remove("x")
    assert again.held_by("alice") == 0
    again.close()
    pending.abort()


def test_what_somebody_else_changed_is_noticed_before_more_is_refused(
    directories: AllowedDirectories, ledger: UsageLedger
) -> None:
    alice = store(directories, ledger)
    for number in range(3):
        at_once(alice, str(number), 20 * KIB)
    shared = Path(directories.directories[0])
    (shared / "0").unlink()
    (shared / "another").write_bytes(bytes(8 * KIB))
    (shared / "another").rename(shared / "1")
    os.truncate(shared / "2", 30 * KIB)
    assert ledger.held_by("alice") == 60 * KIB
    at_once(alice, "3", 20 * KIB)
    assert ledger.held_by("alice") == 52 * KIB
    assert not ledger.fits("alice", 20 * KIB)
    with pytest.raises(TooMany):  # and this does not look again so soon
        ledger.require("alice", 20 * KIB)
    assert ledger.held_by("alice") == 52 * KIB


def test_many_at_once_stay_within_the_limit(directories: AllowedDirectories, ledger: UsageLedger) -> None:
    alice = store(directories, ledger)
    refused = []

    def work(thread: int) -> None:
        for number in range(40):
            name = f"{thread}-{number % 4}"
            try:
                in_parts(alice, name, 6 * KIB)
            except TooMany:
                refused.append(name)
            if number % 7 == 6:
                alice.remove(name) if (Path(directories.directories[0]) / name).exists() else None
            assert ledger.held_by("alice") <= LIMIT

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = list(Path(directories.directories[0]).iterdir())
    assert refused
    assert ledger.held_by("alice") == 8 * KIB * len(left)


@pytest.mark.parametrize("content", ["another version", "damaged"])
def test_a_ledger_that_cannot_be_read_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "files.sqlite"
    if content == "damaged":
        path.write_bytes(b"no database" * 1000)
    else:
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version=7")
        database.commit()
        database.close()
    with pytest.raises(ConfigurationError, match="move it away"):
        UsageLedger(path, LIMIT)
