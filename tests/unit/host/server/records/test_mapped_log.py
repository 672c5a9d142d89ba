"""What is in the log outlives the process, and nothing else is taken for a record."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from apyfal.host.server.records.mapped_log import MappedLog

RECORDS = [[b"enter", b"1", b"", b"x" * 5000], [b"run"], [b"finish", bytes(range(256))]]


def filled(path: Path, records: list[list[bytes]]) -> None:
    log = MappedLog(path)
    for record in records:
        assert log.append(record)
    log.close()


def size_of(records: list[list[bytes]]) -> int:
    return sum(8 + 4 * (len(record) + 1) + sum(map(len, record)) for record in records)


def read(path: Path) -> list[list[bytes]]:
    log = MappedLog(path)
    found = list(log.records())
    log.close()
    return found


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read(path) == []
    filled(path, RECORDS)
    assert read(path) == RECORDS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log = MappedLog(path)
    assert list(log.records()) == RECORDS
    assert log.append([b"behind"])
    log.close()
    assert read(path) == [*RECORDS, [b"behind"]]


def test_nothing_of_before_counts_after_it_was_cleared(tmp_path: Path) -> None:
    path = tmp_path / "log"
    filled(path, RECORDS)
    log = MappedLog(path)
    log.clear()
    assert log.is_empty
    log.append(RECORDS[0])  # as long as the one before, so that older ones follow it in the file
    log.close()
    assert read(path) == RECORDS[:1]


#: What a child does until it is killed: it tells each step once it is done, first the number of the clearing, then how
#: many records were appended since.
ENDLESS = """
import itertools, os, sys
from apyfal.host.server.records.mapped_log import MappedLog

log = MappedLog(sys.argv[1])
for cleared in itertools.count(1):
    log.clear()
    os.write(1, b"%d 0\\n" % cleared)
    for number in range(int(sys.argv[2])):
        assert log.append([b"%d" % cleared, b"%d" % number, bytes(10_000)])
        os.write(1, b"%d %d\\n" % (cleared, number + 1))
"""


@pytest.mark.parametrize("steps", [2, 57, 400])
def test_a_process_that_is_killed_keeps_what_it_appended(tmp_path: Path, steps: int) -> None:
    """All that it told of is there, and at most the one step more that it could not tell of any more."""
    count = 50
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "log"), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(steps)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    cleared, number = map(int, told[-1].split())
    following = (cleared, number + 1) if number < count else (cleared + 1, 0)
    kept = [[[b"%d" % c, b"%d" % one, bytes(10_000)] for one in range(n)] for c, n in ((cleared, number), following)]
    assert read(tmp_path / "log") in kept


def test_damage_ends_the_records_before_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    filled(path, RECORDS)
    whole = path.read_bytes()
    source = random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[source.randrange(16, 16 + size_of(RECORDS))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        found = read(path)
        assert len(found) < len(RECORDS)
        assert found == RECORDS[: len(found)]


def test_it_says_when_it_is_full(tmp_path: Path) -> None:
    log = MappedLog(tmp_path / "log")
    assert not log.append([bytes(8 << 20)])
    count = 0
    while log.append([bytes(100_000)]):
        count += 1
    assert len(list(log.records())) == count > 30
    log.clear()
    assert log.append([bytes(100_000)])
    log.close()


def test_one_process_has_it(tmp_path: Path) -> None:
    log = MappedLog(tmp_path / "log")
    with pytest.raises(BlockingIOError):
        MappedLog(tmp_path / "log")
    log.close()
    MappedLog(tmp_path / "log").close()


def test_a_reader_that_stops_half_way_has_nothing_overwritten(tmp_path: Path) -> None:
    log = MappedLog(tmp_path / "log")
    for number in range(3):
        log.append([b"%d" % number])
    assert next(log.records()) == [b"0"]
    log.append([b"3"])
    assert list(log.records()) == [[b"0"], [b"1"], [b"2"], [b"3"]]
    log.close()


@pytest.mark.parametrize("size", [0, 10])
def test_only_a_new_log_without_room_leaves_an_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def full(descriptor: int, offset: int, nbytes: int) -> None:
        os.ftruncate(descriptor, 4096)
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "log").write_bytes(b"x" * size)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        MappedLog(tmp_path / "log")
    assert ((tmp_path / "log").stat().st_size > 0) == (size > 0)
