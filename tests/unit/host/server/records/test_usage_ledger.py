"""What a user keeps below ``host://`` counts while it is there, and no longer."""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apyfal.exceptions import AccessDenied, ConfigurationError, ObjectExists, StorageError
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


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_no_other_file_gets_the_number_of_one_that_is_still_counted(
    how: str, directories: AllowedDirectories, ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems use the number of a removed file for the next one, whose record would be removed in its place."""
    alice, shared = store(directories, ledger), Path(directories.directories[0])
    at_once(alice, "x", 5 * KIB)
    numbers: list[tuple[int, set[int]]] = []
    forget = ledger.forget

    def after_others(status: os.stat_result) -> None:
        for number in range(20):
            (shared / f"new{number}").touch()
        numbers.append((status.st_ino, {one.stat().st_ino for one in shared.glob("new*")}))
        forget(status)

    monkeypatch.setattr(ledger, "forget", after_others)
    if how == "removed":
        alice.remove("x")
    else:
        at_once(alice, "x", 9 * KIB)
    assert len(numbers) == 1
    assert numbers[0][0] not in numbers[0][1]
    assert ledger.held_by("alice") == (0 if how == "removed" else 12 * KIB)
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]  # but that of this listing
    assert not [link for link in links if os.readlink(link).startswith(f"{shared}/")]


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


# -- what fails, or is killed, half way -------------------------------------------------------------------------------
def failing(monkeypatch: pytest.MonkeyPatch, call: str, concerns: Callable[[object], bool]) -> None:
    """Let each call of a function of ``os`` fail whose first argument `concerns`."""
    real = getattr(os, call)

    def fail(first: object, *args: object, **kwargs: object) -> object:
        if concerns(first):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(first, *args, **kwargs)

    monkeypatch.setattr(os, call, fail)


def is_directory(descriptor: object) -> bool:
    return isinstance(descriptor, int) and os.path.isdir(f"/proc/self/fd/{descriptor}")


def is_part_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".part")


@pytest.mark.parametrize(
    ("call", "concerns", "placed", "exclusive"),
    [
        ("fsync", is_directory, True, False),
        ("fsync", is_directory, True, True),
        ("open", lambda name: name == ".", False, False),
        ("open", lambda name: name == ".", False, True),
        ("fsync", lambda descriptor: not is_directory(descriptor), False, False),
        ("fsync", lambda descriptor: not is_directory(descriptor), False, True),
        ("rename", is_part_name, False, False),
        ("link", is_part_name, False, True),
    ],
)
def test_a_file_that_got_its_name_counts_whatever_failed_then(
    directories: AllowedDirectories,
    ledger: UsageLedger,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    concerns: Callable[[object], bool],
    placed: bool,
    exclusive: bool,
) -> None:
    alice, shared = store(directories, ledger), Path(directories.directories[0])
    if not exclusive:
        at_once(alice, "x", 20 * KIB)
    writing = alice.upload("x", size=8 * KIB, exclusive=exclusive)
    writing.write_part(1, memoryview(bytes(8 * KIB)), None)
    with monkeypatch.context() as patch:
        failing(patch, call, concerns)
        with pytest.raises(
            StorageError, match="cannot sync the directory of host://x" if placed else "cannot write host://x"
        ):
            writing.complete(8 * KIB, None)
        if placed:
            with pytest.raises(StorageError, match="cannot sync the directory of host://x"):
                writing.complete(8 * KIB, None)
    writing.abort()
    before = {} if exclusive else {"x": 20 * KIB}
    left = {one.name: one.stat().st_size for one in shared.iterdir()}
    assert left == ({"x": 8 * KIB} if placed else before)
    assert ledger.held_by("alice") == sum(left.values())
    at_once(alice, "x", 12 * KIB)
    assert ledger.held_by("alice") == 12 * KIB


def test_an_exclusive_file_whose_temporary_name_stays_is_not_there(
    directories: AllowedDirectories, ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, shared = store(directories, ledger), Path(directories.directories[0])
    writing = alice.upload("x", size=8 * KIB, exclusive=True)
    writing.write_part(1, memoryview(bytes(8 * KIB)), None)
    with monkeypatch.context() as patch:
        failing(patch, "unlink", is_part_name)
        with pytest.raises(StorageError, match="cannot write host://x"):
            writing.complete(8 * KIB, None)
    assert not (shared / "x").exists()
    writing.abort()
    assert list(shared.iterdir()) == []
    assert ledger.held_by("alice") == 0


_KILLED = """
import os, signal, sys
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.records.usage_ledger import UsageLedger

shared, path, how = sys.argv[1:]
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
ledger = UsageLedger(path, 1 << 20)
store = HostStore(AllowedDirectories([shared]), account=ledger.account("alice"))
uploads = [store.upload(f"x{number}", size=None, exclusive=how == "linked") for number in range(3)]
for upload in uploads:
    upload.write_part(1, memoryview(bytes(8192)), None)
if how == "before its name":
    os.rename = kill
elif how == "after its name":
    os.rename = lambda *args, rename=os.rename, **kwargs: (rename(*args, **kwargs), kill())
elif how == "linked":
    os.unlink = kill
if how != "while it is written":
    uploads[0].complete(8192, None)
kill()
"""


@pytest.mark.parametrize(
    ("how", "complete"),
    [("while it is written", 0), ("before its name", 0), ("after its name", 1), ("linked", 1)],
)
def test_a_killed_daemon_leaves_only_what_is_complete_and_counts(
    directories: AllowedDirectories, tmp_path: Path, how: str, complete: int
) -> None:
    shared, path = Path(directories.directories[0]), tmp_path / "killed.sqlite"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(shared), str(path), how], capture_output=True, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    other = shared / ".apyfal-0123456789abcdef.part"  # not the ledger's
    other.write_bytes(b"other")
    assert len(list(shared.glob(".apyfal-*.part"))) >= 3
    again = UsageLedger(path, LIMIT)
    try:
        names = [f"x{number}" for number in range(complete)]
        assert sorted(one.name for one in shared.iterdir()) == [other.name, *names]
        alice = store(directories, again)
        again._check_files("alice")
        assert again.held_by("alice") == 8 * KIB * complete
        assert [info.path for info in alice.list("")] == names
        for name in names:
            alice.remove(name)
        assert again.held_by("alice") == 0
    finally:
        again.close()


def test_what_a_killed_daemon_left_counts_as_long_as_it_cannot_be_removed(
    directories: AllowedDirectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, path = Path(directories.directories[0]), tmp_path / "killed.sqlite"
    subprocess.run([sys.executable, "-c", _KILLED, str(shared), str(path), "while it is written"], timeout=60)
    for held in (24 * KIB, 24 * KIB, 0):
        with monkeypatch.context() as patch:
            if held:
                failing(patch, "unlink", lambda name: str(name).endswith(".part'"))
            again = UsageLedger(path, LIMIT)
        again._check_files("alice")
        assert again.held_by("alice") == held
        assert len(list(shared.iterdir())) == held // (8 * KIB)
        again.close()


def test_what_another_daemon_is_writing_is_not_removed(
    directories: AllowedDirectories, ledger: UsageLedger, tmp_path: Path
) -> None:
    alice = store(directories, ledger)
    writing = alice.upload("x", size=8 * KIB)
    writing.write_part(1, memoryview(bytes(8 * KIB)), None)
    assert [info.path for info in alice.list("")] == []
    UsageLedger(tmp_path / "files.sqlite", LIMIT).close()
    writing.complete(8 * KIB, None)
    assert ledger.held_by("alice") == 8 * KIB
    assert ledger._database.execute("SELECT count(*) FROM parts").fetchone() == (0,)


@pytest.mark.parametrize("exclusive", [False, True])
def test_no_client_writes_a_temporary_name(
    directories: AllowedDirectories, ledger: UsageLedger, exclusive: bool
) -> None:
    alice, shared = store(directories, ledger), Path(directories.directories[0])
    name = ".apyfal-0123456789abcdef.part"
    (shared / "link").symlink_to(name)
    for path in (name, "link"):
        with pytest.raises(AccessDenied, match=re.escape(f"host://{path}: only files that are being written")):
            alice.put(path, memoryview(b"x"), None, exclusive=exclusive)
    assert not (shared / name).exists()
    assert ledger.held_by("alice") == 0


@pytest.mark.parametrize("reused", [False, True])
def test_a_look_does_not_forget_what_gets_its_name_meanwhile(
    ledger: UsageLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    path, temporary = tmp_path / "x", tmp_path / "temporary"
    temporary.write_bytes(bytes(8 * KIB))
    status = temporary.stat()
    claim = ledger.account("alice").claim()
    claim.enter(str(tmp_path / "removed" if reused else path), status)
    if reused:
        claim.placed(status, None)
    real, calls = os.lstat, []

    def lstat(name: bytes) -> os.stat_result:
        calls.append(name)
        try:
            return real(name)
        finally:
            if len(calls) == 1:  # what is here happens in another thread, between the look and its conclusion
                if reused:
                    claim.enter(str(path), status)
                temporary.rename(path)
                claim.placed(status, None)

    monkeypatch.setattr(os, "lstat", lstat)
    ledger._check_files("alice")
    assert calls
    assert ledger.held_by("alice") == 8 * KIB
    ledger.forget(status)
    assert ledger.held_by("alice") == 0


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
