"""Many small objects from an S3 endpoint into prepared memory, by 1 and 8 threads: how many a second?"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import numpy as np
from support.common import Bench, main
from support.peers import KEYS, address, boto3_client, installed, obstore_store, serve

import apyfal
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import download

SIZE = 64 << 10


def benches(quick: bool) -> list[Bench]:
    """2,000 objects of 64 KiB (100 in a smoke run)."""
    count = 100 if quick else 2000
    data = np.frombuffer(np.random.default_rng(1).bytes(count * SIZE), np.uint8).reshape(count, SIZE)
    server = serve({str(number): data[number] for number in range(count)})
    url = server.endpoint_url
    target = apyfal.empty((count, SIZE), np.uint8)
    target[...] = 0
    rows = [memoryview(target[number]) for number in range(count)]

    def check(_: object) -> None:
        if not np.array_equal(target, data):
            raise AssertionError("wrong data")
        target[...] = 0

    ways: dict[str, Callable[[int], Any]] = {}
    state = local()
    host, port = address(url)

    def unsigned(number: int) -> None:
        connection = getattr(state, "connection", None)
        if connection is None:
            connection = state.connection = http.client.HTTPConnection(host, port)
        connection.request("GET", f"/b/{number}")
        response = connection.getresponse()
        if response.readinto(rows[number]) != SIZE or response.read():
            raise AssertionError("wrong length")

    handler = S3Handler(endpoint_url=url, **KEYS)
    ways["http.client, not signed (readinto)"] = unsigned
    ways["apyfal download"] = lambda number: download(handler, f"b/{number}", rows[number])
    if installed("obstore"):
        import obstore

        store = obstore_store(url)

        def obstore_get(number: int) -> None:
            rows[number][:] = memoryview(obstore.get(store, str(number)).bytes())

        ways["obstore get"] = obstore_get
    if installed("boto3"):
        client = boto3_client(url)

        def boto3_get(number: int) -> None:
            rows[number][:] = client.get_object(Bucket="b", Key=str(number))["Body"].read()

        ways["boto3 get_object"] = boto3_get
    if installed("pyarrow"):
        from pyarrow import fs

        filesystem = fs.S3FileSystem(
            access_key=KEYS["client_id"],
            secret_key=KEYS["secret_id"],
            region="us-east-1",
            scheme="http",
            endpoint_override=f"{host}:{port}",
        )

        def pyarrow_read(number: int) -> None:
            with filesystem.open_input_file(f"b/{number}") as file:
                rows[number][:] = memoryview(file.read_at(SIZE, 0))

        ways["pyarrow open_input_file"] = pyarrow_read

    made = []
    for threads in (1, 8):
        bench = Bench(f"{count} objects of 64 KiB, {threads} threads: microseconds an object", unit="us", scale=1e6)
        for name, get in ways.items():
            pool = ThreadPoolExecutor(threads)
            bench.add(name, all_of(pool, get, count), check, repeats=count, limit=name.startswith("http.client"))
        for way in bench.ways:
            way.note = lambda way=way: f"{1 / np.median(way.seconds):,.0f} objects/s"
        made.append(bench)
    return made


def all_of(pool: ThreadPoolExecutor, get: Callable[[int], Any], count: int) -> Callable[[], None]:
    """Return what gets every object once."""

    def run() -> None:
        for _ in pool.map(get, range(count)):
            pass

    return run


if __name__ == "__main__":
    main(benches, rounds=7)
