"""A signal between any two lines: whatever was taken is free afterwards."""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from memory_store import MemoryHandler

import apyfal
from apyfal.exceptions import StoreUnavailable
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.connections import ConnectionLimiter
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import RangeReader
from apyfal.storage.transfer import download, stream, upload

OURS = (os.path.dirname(apyfal.__file__), contextlib.__file__)


def interrupted(work: Callable[[], object], line: int) -> bool:
    """Run `work`, with the exception of a signal before the given line that it executes; whether it came so far."""
    left = line
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if name == "__del__" or not file.startswith(OURS):  # it would go nowhere; Python's own threads and locks
            return None
        # CPython traces a `with` again before it leaves it, where it never handles a signal
        again = frame.f_lineno < last.get(frame, 0) and linecache.getline(file, frame.f_lineno).lstrip()[:5] == "with "
        last[frame] = frame.f_lineno
        if event == "line" and not again:
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        last.clear()
    return left <= 0


def require_free(limits: ConnectionLimiter, line: int) -> None:
    assert (limits._turns, limits._streams, list(limits._waiting)) == (set(), set(), []), line
    found: list[bool] = []
    other = threading.Thread(target=lambda: found.append(limits._lock.acquire(blocking=False)))
    other.start()
    other.join()
    assert found == [True], line
    limits._begin()


def _turn(limits: ConnectionLimiter, _: RangeReader) -> None:
    with limits.turn(CancelToken()):
        pass


def _nested(limits: ConnectionLimiter, _: RangeReader) -> None:
    with limits.turn(None), limits.turn(None):
        pass


def _turns(limits: ConnectionLimiter, _: RangeReader) -> None:
    with limits.turns(3, None) as count:
        assert count == 2


def _opened(limits: ConnectionLimiter, reader: RangeReader) -> None:
    with limits.opened(lambda: reader, None) as opened, limits.turn(None, taken=True):
        opened.readinto(memoryview(bytearray(1)))


def _failing(limits: ConnectionLimiter, _: RangeReader) -> None:
    def begin() -> RangeReader:
        raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        limits.opened(begin, None)


def _stream(limits: ConnectionLimiter, reader: RangeReader) -> None:
    with limits.stream(reader):
        pass


@pytest.mark.parametrize("work", [_turn, _nested, _turns, _opened, _failing, _stream])
def test_every_line_of_a_turn(work: Callable[[ConnectionLimiter, RangeReader], None]) -> None:
    handler = MemoryHandler()
    handler.store("b/x", b"x")
    limits = ConnectionLimiter(2)
    line = 1
    while interrupted(lambda: work(limits, handler.read("b/x", 0, None, None)), line):
        gc.collect()
        require_free(limits, line)
        line += 1
    assert line > 10


def _download(handler: MemoryHandler) -> None:
    download(handler, "b/x", memoryview(bytearray(3)))


def _upload(handler: MemoryHandler) -> None:
    upload(handler, "b/y", memoryview(b"abc"))


def _read(handler: MemoryHandler) -> None:
    with stream(handler, "b/x") as opened:
        opened.readinto(memoryview(bytearray(1)))


@pytest.mark.parametrize("work", [_download, _upload, _read])
def test_every_line_of_a_transfer(work: Callable[[MemoryHandler], None]) -> None:
    handler = MemoryHandler()
    handler.max_concurrency = 1
    handler.store("b/x", b"abc")
    limits = limits_for(handler).connections
    line = 1
    while interrupted(lambda: work(handler), line):
        gc.collect()
        require_free(limits, line)
        line += 1
    assert line > 10
