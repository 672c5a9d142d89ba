"""`storage.sync` that is cancelled, interrupted or killed, and its memory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler
from trees import content, fill

from apyfal import storage
from apyfal.exceptions import TransferCancelled
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.trees.comparing import differs_in_content
from apyfal.storage.url import parse


def _apyfal_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("apyfal-sync")]


def test_a_signal_ends_all_copies_before_it_is_raised(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / "in"), {str(number): b"data" for number in range(40)})
    began, ended = threading.Semaphore(0), []

    def put(*_: Any, **__: Any) -> Any:
        cancel = current_cancel()
        assert cancel is not None
        began.release()
        was_set = cancel.wait(60)
        time.sleep(0.2)
        ended.append(was_set)
        cancel.check()

    def interrupt() -> None:
        for _ in range(8):
            assert began.acquire(timeout=60)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(store, "put", put)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        storage.sync(tmp_path / "in", "lab://b/out", concurrency=8)
    assert ended == [True] * 8
    assert _apyfal_threads() == []


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_cancelled_sync_raises_whatever_goes_on(store: MemoryHandler, tmp_path: Path, keep_going: bool) -> None:
    fill(str(tmp_path / "in"), {str(number): b"data" for number in range(40)})
    cancel = CancelToken()
    report = storage.SyncReport()
    with cancel.scope(), pytest.raises(TransferCancelled):
        storage.sync(
            tmp_path / "in",
            "lab://b/out",
            keep_going=keep_going,
            concurrency=2,
            progress=lambda done, total: cancel.set(),
            report=report,
        )
    assert 1 <= len(report.copied) <= 3
    assert report.left == []
    assert _apyfal_threads() == []


def test_a_cancelled_comparison_of_local_files_ends(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(bytes(3 << 20))
    cancel = CancelToken()
    cancel.set()
    with cancel.scope(), pytest.raises(TransferCancelled):
        differs_in_content(parse(tmp_path / "one"), parse(tmp_path / "other"))


@pytest.mark.slow
def test_interrupted_at_random_moments_in_a_store(store: MemoryHandler, tmp_path: Path) -> None:
    files = {f"{number % 7}/{number}": os.urandom(number % 50) for number in range(1500)}
    fill(str(tmp_path / "in"), files)
    chance = random.Random(3)
    interrupts = 0
    for _ in range(10):
        limit = chance.randrange(1, 60)
        calls = iter(range(limit))

        def stop(done: int, total: int | None, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        try:
            storage.sync(tmp_path / "in", "lab://b/out", progress=stop)
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 10
    before = len(store.objects)
    assert 0 < before < len(files)
    report = storage.sync(tmp_path / "in", "lab://b/out")
    assert len(report.copied) == len(files) - before
    assert content("lab://b/out") == files
    assert Counter(store.calls)["put"] == len(files)  # each once


@pytest.mark.slow
@pytest.mark.timeout(300)  # ten interpreters begin
def test_killed_at_random_moments_on_a_disk(tmp_path: Path) -> None:
    files = {f"{number % 7}/{number}": os.urandom(50) for number in range(600)}
    fill(str(tmp_path / "in"), files)
    chance = random.Random(4)
    command = [sys.executable, "-m", "apyfal", "sync", "-j2", str(tmp_path / "in"), str(tmp_path / "out")]
    seen: dict[str, tuple[int, int]] = {}
    for number in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = len(seen) + chance.randrange(1, 40)
        while process.poll() is None and sum(len(names) for _, _, names in os.walk(tmp_path / "out")) < wanted:
            time.sleep(0.001)
        process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
        process.wait()
        for folder, _, names in os.walk(tmp_path / "out"):
            for name in names:
                status = os.stat(f"{folder}/{name}")
                # one that was there before is the same file still
                assert seen.setdefault(f"{folder}/{name}", (status.st_ino, status.st_ctime_ns)) == (
                    status.st_ino,
                    status.st_ctime_ns,
                )
    report = storage.sync(tmp_path / "in", tmp_path / "out")
    assert len(report.copied) == len(files) - len(seen)
    assert content(str(tmp_path / "out")) == files


@pytest.mark.slow
def test_many_small_objects_in_flat_memory(store: MemoryHandler, tmp_path: Path) -> None:
    for number in range(10_000):
        store.store(f"b/in/{number % 100}/{number}", b"x")
    storage.sync("lab://b/in/1", "lab://b/warm")
    tracemalloc.start()
    try:
        report = storage.sync("lab://b/in", "lab://b/out", dry_run=True)
        assert len(report.copied) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000 * 400 + (8 << 20)  # the listings, the report's names, and a block of files
    report = storage.sync("lab://b/in", "lab://b/out")
    assert len(report.copied) == 10_000
    assert storage.sync("lab://b/in", "lab://b/out", delete=True).same == 10_000
