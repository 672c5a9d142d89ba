"""Small work from 1, 2 and 4 threads: what a second thread is worth, with and without an interpreter lock.

Run it with an interpreter of each kind (`python3.14`, `python3.14t`) in turns. Each thread has its own arrays and its
own prepared job; the accelerator is shared. The threads of `load_many` each load their own list of objects of 16 KiB
from nginx on loopback, over the transport in C, and of files.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from support.common import Bench, main
from support.peers import KEYS, serve

import apyfal
from apyfal import storage

THREADS = (1, 2, 4)
SIZE = 4096
OBJECT = 16 << 10


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call `work` with the number of each thread, all at once."""
    failed: list[BaseException] = []

    def go(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def lock() -> str:
    """Say whether this interpreter has a lock."""
    return "with the lock" if getattr(sys, "_is_gil_enabled", lambda: True)() else "without a lock"


def compare(question: str, total: int, work: Callable[[int, int], object], check: Callable[[int, int], None]) -> Bench:
    """Compare the same work in one thread and in several.

    `work` gets the thread's number and how often to do it; so does `check` for each thread, when the time was taken.
    """
    bench = Bench(f"{question}, {lock()}: microseconds each", unit="us", scale=1e6)
    for count in THREADS:
        each = total // count

        def check_all(_: object, count: int = count, each: int = each) -> None:
            for number in range(count):
                check(number, each)

        bench.add(
            f"{count} thread{'s' * (count > 1)}",
            partial(in_threads, count, lambda number, each=each: work(number, each)),
            check_all,
            repeats=each * count,
            limit=count == 1,
        )
    return bench


def benches(quick: bool) -> list[Bench]:
    """40,000 jobs and 8,000 objects (a hundredth in a smoke run)."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    few = 100 if quick else 1
    card = stack.enter_context(apyfal.Accelerator("scale", dtype="int32"))
    count = SIZE // 4
    sources = [apyfal.empty(count, "i4") for _ in range(max(THREADS))]
    targets = [apyfal.empty(count, "i4") for _ in range(max(THREADS))]
    for number, source in enumerate(sources):
        source[...] = number
    prepared = [card.prepare(src, dst, a=3, b=1) for src, dst in zip(sources, targets, strict=True)]

    def check(number: int, times: int) -> None:
        if not (targets[number] == number * 3 + 1).all():
            raise AssertionError("wrong data")
        targets[number][...] = 0  # what the next run leaves is its own

    def process(number: int, times: int) -> None:
        for _ in range(times):
            card.process(sources[number], targets[number], a=3, b=1)

    def prepared_job(number: int, times: int) -> None:
        job = prepared[number]
        for _ in range(times):
            job()

    batch = 200 if not quick else 20
    data = np.frombuffer(np.random.default_rng(1).bytes(batch * OBJECT), np.uint8).reshape(batch, OBJECT)
    server = serve({str(number): data[number] for number in range(batch)})
    storage.mount("s3.threads", endpoint_url=server.endpoint_url, config={}, **KEYS)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for number in range(batch):
        data[number].tofile(folder / str(number))

    last: dict[int, list[np.ndarray]] = {}

    def load(urls: list[str], number: int, times: int) -> None:
        for _ in range(times // batch):
            last[number] = storage.load_many(urls)
            if not np.array_equal(last[number][-1], data[-1]):
                raise AssertionError("wrong data")

    def check_loaded(number: int, times: int) -> None:
        if not np.array_equal(last.pop(number), data):
            raise AssertionError("wrong data")

    objects = [f"s3.threads://b/{number}" for number in range(batch)]
    files = [str(folder / str(number)) for number in range(batch)]
    return [
        compare("process of 4 KiB in place", 40_000 // few, process, check),
        compare("prepared job of 4 KiB", 200_000 // few, prepared_job, check),
        compare("load_many, S3 objects of 16 KiB", max(8_000 // few, 4 * batch), partial(load, objects), check_loaded),
        compare("load_many, files of 16 KiB", max(8_000 // few, 4 * batch), partial(load, files), check_loaded),
    ]


if __name__ == "__main__":
    main(benches, rounds=3)
