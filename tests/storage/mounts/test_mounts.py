"""Mounts in use, against real servers: unmounted while data moves, taken to other processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from servers.stores.ceph import Ceph

from apyfal import storage
from apyfal.exceptions import InvalidURL, MountError

pytestmark = pytest.mark.server

DATA = np.random.default_rng(11).integers(0, 256, 6 << 20, np.uint8)
#: Of the mount: its transfers of `DATA` take about a second.
BANDWIDTH = len(DATA)


@pytest.fixture(scope="module")
def bucket(ceph_server: Ceph) -> Iterator[str]:
    """A store with the object ``data``."""
    mount(ceph_server, "s3.whole")
    storage.makedirs("s3.whole://in-flight")
    storage.save("s3.whole://in-flight/data", DATA)
    yield "in-flight"
    storage.unmount("s3.whole")


def mount(server: Ceph, name: str, **parameters: object) -> None:
    storage.mount(
        name,
        endpoint_url=server.endpoint_url,
        client_id=server.access_key,
        secret_id=server.secret_key,
        config={},
        **parameters,
    )


def download() -> bool:
    return np.array_equal(storage.load("s3.slow://in-flight/data"), DATA)


def upload() -> bool:
    storage.save("s3.slow://in-flight/copy", DATA)
    return np.array_equal(storage.load("s3.whole://in-flight/copy"), DATA)


def read() -> bool:
    with storage.open("s3.slow://in-flight/data") as file:
        return bool(file.read() == DATA.tobytes())


def write() -> bool:
    with storage.open("s3.slow://in-flight/written", "wb") as file:
        file.write(DATA)
    return np.array_equal(storage.load("s3.whole://in-flight/written"), DATA)


@pytest.fixture(params=[download, upload, read, write], ids=lambda function: function.__name__)
def under_way(request: pytest.FixtureRequest, ceph_server: Ceph, bucket: str) -> Iterator[Future[bool]]:
    """A transfer on the mount ``s3.slow`` that has begun, in a thread of its own."""
    mount(ceph_server, "s3.slow", bandwidth=BANDWIDTH)
    with ThreadPoolExecutor(1) as pool:
        future: Future[bool] = pool.submit(request.param)
        while not in_use("s3.slow"):
            time.sleep(0.005)
        yield future
    if "s3.slow" in storage.mounts():
        storage.unmount("s3.slow")


def in_use(name: str) -> bool:
    return storage.mounts()[name].connected


def test_unmounting_waits_for_what_is_under_way(under_way: Future[bool]) -> None:
    storage.unmount("s3.slow", timeout=60)
    # what ends after its mount's last use (a comparison through another one) may still take a moment
    assert under_way.result(60)
    with pytest.raises(InvalidURL, match="unmounted"):
        storage.load("s3.slow://in-flight/data")


def test_what_cannot_be_unmounted_in_time_goes_on(under_way: Future[bool]) -> None:
    with pytest.raises(MountError, match=r"cannot unmount 's3\.slow': 1 of its files and transfers still run"):
        storage.unmount("s3.slow", timeout=0.01)
    assert storage.exists("s3.slow://in-flight/data")
    assert under_way.result(60)


def test_nothing_new_begins_while_a_mount_goes(under_way: Future[bool]) -> None:
    waiting = threading.Thread(target=storage.unmount, args=("s3.slow",), kwargs={"timeout": 60})
    waiting.start()
    refused = 0
    while waiting.is_alive() and not refused:
        try:
            storage.exists("s3.slow://in-flight/data")
        except InvalidURL:
            refused += 1
    waiting.join(60)
    assert refused
    assert under_way.result(60)


def test_replacing_a_mount_lets_what_is_under_way_end(under_way: Future[bool], ceph_server: Ceph) -> None:
    mount(ceph_server, "s3.slow", bandwidth=64 * BANDWIDTH, replace=True)
    assert np.array_equal(storage.load("s3.slow://in-flight/data"), DATA)
    assert under_way.result(60)


# -- other processes --------------------------------------------------------------------------------------------------
def sum_of(url: str) -> int:
    """Do what a worker does."""
    return int(storage.load(url).sum())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_have_the_mounts(method: str, bucket: str, ceph_server: Ceph) -> None:
    mount(ceph_server, "s3.rooted", root=f"{bucket}/")
    try:
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, context, initializer=storage.snapshot().restore) as pool:
            sums = list(pool.map(sum_of, ["s3.whole://in-flight/data", "s3.rooted://data"] * 2))
    finally:
        storage.unmount("s3.rooted")
    assert sums == [int(DATA.sum())] * 4
