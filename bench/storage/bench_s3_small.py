"""Many small objects from an S3 endpoint into prepared memory, and to one: how many a second, for how much CPU time?"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import local
from typing import Any

import numpy as np
from support.common import Bench, main
from support.discard import discard
from support.peers import KEYS, address, boto3_client, installed, obstore_store, serve

import apyfal
from apyfal import storage
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import download, upload

SIZE = 64 << 10


def benches(quick: bool) -> list[Bench]:
    """2,000 objects of 64 KiB, also over TLS, and 20,000 of 4 KiB read, 2,000 of 64 KiB written (a smoke run: 100)."""
    few, many = (100, 100) if quick else (2000, 20_000)
    return [
        *reads(few, SIZE, (1, 8)),
        *reads(few, SIZE, (8,), tls=True),
        *reads(many, 4 << 10, (32,)),
        writes(few, 8),
    ]


def reads(count: int, size: int, widths: tuple[int, ...], *, tls: bool = False) -> list[Bench]:
    """Return a table for each number of objects at once."""
    data = np.frombuffer(np.random.default_rng(1).bytes(count * size), np.uint8).reshape(count, size)
    server = serve({str(number): data[number] for number in range(count)})
    url = server.tls_url if tls else server.endpoint_url
    keys = {**KEYS, "verify": str(server.ca)} if tls else KEYS
    target = apyfal.empty((count, size), np.uint8)
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
            connection = state.connection = (
                http.client.HTTPSConnection(host, port, context=ssl.create_default_context(cafile=server.ca))
                if tls
                else http.client.HTTPConnection(host, port)
            )
        connection.request("GET", f"/b/{number}")
        response = connection.getresponse()
        if response.readinto(rows[number]) != size or response.read():
            raise AssertionError("wrong length")

    handler = S3Handler(endpoint_url=url, **keys)
    ways["http.client, not signed (readinto)"] = unsigned
    ways["apyfal download"] = lambda number: download(handler, f"b/{number}", rows[number])
    if installed("obstore"):
        import obstore

        store = obstore_store(url)

        def obstore_get(number: int) -> None:
            rows[number][:] = memoryview(obstore.get(store, str(number)).bytes())

        ways["obstore get"] = obstore_get
    if installed("boto3"):
        client = boto3_client(url, server.ca if tls else None)

        def boto3_get(number: int) -> None:
            rows[number][:] = client.get_object(Bucket="b", Key=str(number))["Body"].read()

        ways["boto3 get_object"] = boto3_get
    if installed("pyarrow"):
        from pyarrow import fs

        filesystem = fs.S3FileSystem(
            access_key=KEYS["client_id"],
            secret_key=KEYS["secret_id"],
            region="us-east-1",
            scheme=url.partition("://")[0],
            endpoint_override=f"{host}:{port}",
            **({"tls_ca_file_path": str(server.ca)} if tls else {}),
        )

        def pyarrow_read(number: int) -> None:
            with filesystem.open_input_file(f"b/{number}") as file:
                rows[number][:] = memoryview(file.read_at(size, 0))

        ways["pyarrow open_input_file"] = pyarrow_read

    made = []
    for threads in widths:
        over = " over TLS" if tls else ""
        bench = Bench(
            f"{count} objects of {size >> 10} KiB{over}, {threads} at once: us an object", unit="us", scale=1e6
        )
        mount = f"s3.{'secure' if tls else 'at'}{threads}"
        storage.mount(mount, endpoint_url=url, max_concurrency=threads, replace=True, **keys)
        urls = [f"{mount}://b/{number}" for number in range(count)]
        bench.add("apyfal load_many", partial(storage.load_many, urls, target), check, repeats=count)
        for name, get in ways.items():
            pool = ThreadPoolExecutor(threads)
            bench.add(name, all_of(pool, get, count), check, repeats=count, limit=name.startswith("http.client"))
        made.append(with_rates(bench))
    return made


def writes(count: int, threads: int) -> Bench:
    """Return the table of writes to an endpoint that takes them and forgets them."""
    data = np.frombuffer(np.random.default_rng(1).bytes(count * SIZE), np.uint8).reshape(count, SIZE)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    url = stack.enter_context(discard())
    bench = Bench(f"{count} objects of 64 KiB written, {threads} at once: microseconds an object", unit="us", scale=1e6)
    storage.mount("s3.to", endpoint_url=url, max_concurrency=threads, replace=True, **KEYS)
    urls, rows = [f"s3.to://b/{number}" for number in range(count)], list(data)
    bench.add("apyfal save_many", lambda: storage.save_many(urls, rows), repeats=count)
    handler = S3Handler(endpoint_url=url, **KEYS)
    ways: dict[str, Callable[[int], Any]] = {
        "apyfal upload": lambda number: upload(handler, f"b/{number}", memoryview(rows[number]))
    }
    if installed("obstore"):
        import obstore

        store = obstore_store(url)
        ways["obstore put"] = lambda number: obstore.put(store, str(number), memoryview(rows[number]))
    if installed("boto3"):
        client = boto3_client(url)
        ways["boto3 put_object"] = lambda number: client.put_object(
            Bucket="b", Key=str(number), Body=rows[number].tobytes()
        )
    for name, put in ways.items():
        bench.add(name, all_of(ThreadPoolExecutor(threads), put, count), repeats=count)
    return with_rates(bench)


def with_rates(bench: Bench) -> Bench:
    """Return a bench that tells objects a second, too."""
    for way in bench.ways:
        way.note = lambda way=way: f"{1 / np.median(way.seconds):,.0f} objects/s"
    return bench


def all_of(pool: ThreadPoolExecutor, get: Callable[[int], Any], count: int) -> Callable[[], None]:
    """Return what gets every object once."""

    def run() -> None:
        for _ in pool.map(get, range(count)):
            pass

    return run


if __name__ == "__main__":
    main(benches, rounds=7)
