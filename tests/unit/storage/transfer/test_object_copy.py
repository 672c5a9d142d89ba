"""The engine's copy between two stores: reading and writing at once, in bounded memory."""

from __future__ import annotations

import os
import threading

import pytest
from memory_store import MemoryHandler

from apyfal.exceptions import StorageError
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import ObjectInfo, RangeReader
from apyfal.storage.transfer import TransferOptions, copy

MIB = 1 << 20
DATA = os.urandom(MIB) * 45


class Source(MemoryHandler):
    """Counts its reads, and the most memory that its transfers held at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.store("b/object", DATA)
        self.reads = threading.Semaphore(0)
        self.most_held = 0

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        self.most_held = max(self.most_held, limits_for(self).memory._held)
        self.reads.release()
        return super().read(path, start, stop, version_of)


def test_one_part_is_read_while_another_is_written() -> None:
    source = Source()
    first = threading.Lock()  # two threads may begin to write at once

    class Destination(MemoryHandler):
        def check(self, call: str) -> None:
            if call == "write_part" and first.acquire(blocking=False):
                for _ in range(2):
                    assert source.reads.acquire(timeout=10), "nothing is read while a part is written"
            super().check(call)

    destination = Destination()
    copy(source, "b/object", destination, "b/copy", options=TransferOptions(memory=48 * MIB))
    assert destination.objects["b/copy"][0] == DATA


@pytest.mark.parametrize("memory", [1, 8 * MIB, 20 * MIB, 48 * MIB])
def test_its_buffers_stay_within_the_memory(memory: int) -> None:
    source, destination = Source(), MemoryHandler()
    copy(source, "b/object", destination, "b/copy", options=TransferOptions(memory=memory))
    assert destination.objects["b/copy"][0] == DATA
    assert 0 < source.most_held <= max(8 * MIB, memory)
    assert limits_for(source).memory._held == 0


@pytest.mark.parametrize("call", ["upload", "write_part", "complete"])
def test_a_failure_gives_the_memory_back(call: str) -> None:
    source, destination = Source(), MemoryHandler()
    destination.fail[call] = 1
    with pytest.raises(StorageError, match="on demand"):
        copy(source, "b/object", destination, "b/copy", options=TransferOptions(memory=48 * MIB))
    assert not destination.objects
    assert not destination.uploads
    assert limits_for(source).memory._held == 0
