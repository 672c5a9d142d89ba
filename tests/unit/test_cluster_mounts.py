"""Mounts travel with each job to a cluster's workers, whatever the workers had before."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import apyfal
from apyfal import storage
from apyfal.exceptions import InvalidURL


@pytest.fixture(scope="module", params=["spawn", "forkserver"])
def executor(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(request.param)) as made:
        yield made


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Folders with an object ``x`` each, which holds the folder's name."""
    made = {}
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode() * 8)
        made[name] = str(tmp_path / name)
    yield made
    for name in ("first", "second"):
        if name in storage.mounts():
            storage.unmount(name)


@pytest.mark.parametrize("way", ["submit", "map", "executor"])
def test_a_worker_has_the_mounts_of_each_job(executor: Any, folders: dict[str, str], way: str) -> None:
    pool = apyfal.AcceleratorPoolExecutor("loopback", 1, executor=executor)

    def read(url: str) -> bytes:
        if way == "map":
            (result,) = pool.process_map([url])
        elif way == "submit":
            result = pool.process_submit(url).result(60)
        else:
            (result,) = pool.map(pool.process, [url])
        return bytes(result)

    storage.mount("first", provider="file", root=folders["a"])
    assert read("first://x") == b"aaaaaaaa"
    storage.mount("second", provider="file", root=folders["b"])  # mounted after the worker opened the accelerator
    assert read("second://x") == b"bbbbbbbb"
    storage.mount("first", provider="file", root=folders["c"], replace=True)  # replaced
    assert read("first://x") == b"cccccccc"
    assert read("second://x") == b"bbbbbbbb"
    storage.unmount("first")  # and gone
    with pytest.raises(InvalidURL, match="first"):
        read("first://x")
    storage.mount("first", provider="file", root=folders["b"])  # another store under the old name
    assert read("first://x") == b"bbbbbbbb"
    pool.stop()


def test_jobs_of_this_process_leave_its_mounts_alone(folders: dict[str, str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, apyfal.AcceleratorPoolExecutor("loopback", 1, executor=threads) as pool:
        storage.mount("first", provider="file", root=folders["a"])
        results = [pool.process_submit("first://x") for _ in range(20)]
        storage.mount("first", provider="file", root=folders["c"], replace=True)
        assert {bytes(result.result(60)) for result in results} <= {b"aaaaaaaa", b"cccccccc"}
        assert bytes(storage.load("first://x")) == b"cccccccc"


def test_mounts_show_no_secret(folders: dict[str, str]) -> None:
    from apyfal.cluster_worker import Mounts

    storage.mount("first", provider="s3", client_id="me", secret_id="hush-hush", endpoint_url="http://127.0.0.1:9")
    assert "hush" not in repr(Mounts.here())
    assert str(os.getpid()) in repr(Mounts.here())
