"""`process_map` left after its first result, over hosts: nothing stays open, whichever way it is left."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon

import apyfal


class _Error(Exception):
    """Of the loop's body."""


def _leave_by_break(results: Any) -> None:
    for _ in results:
        break


def _leave_by_error(results: Any) -> None:
    for _ in results:
        raise _Error


def _leave_by_close(results: Any) -> None:
    next(results)
    results.close()


@pytest.mark.parametrize("nbytes", [1_000, 3_000_000])
@pytest.mark.parametrize("leave", [_leave_by_break, _leave_by_error, _leave_by_close])
@pytest.mark.parametrize("is_pool", [False, True])
def test_nothing_stays_open(daemon: RunningDaemon, leave: Callable[[Any], None], nbytes: int, is_pool: bool) -> None:
    token = daemon.token()
    srcs = [np.full(nbytes, number, np.uint8) for number in range(40)]

    def run() -> None:
        if is_pool:
            with apyfal.AcceleratorPoolExecutor("sha3", hosts=[daemon.url] * 2, token=token) as pool:
                leave(pool.process_map(srcs))
        else:
            with apyfal.Accelerator("sha3", host_ip=daemon.url, token=token) as card:
                leave(card.process_map(srcs))

    def run_once() -> tuple[int, int]:
        with contextlib.suppress(_Error):
            run()
        until = time.monotonic() + 5
        while threading.active_count() > threads and time.monotonic() < until:
            time.sleep(0.01)  # jobs that were cancelled on their host
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    threads = threading.active_count()
    first = run_once()
    gc.collect()
    gc.disable()
    try:
        assert run_once() == first
    finally:
        gc.enable()
