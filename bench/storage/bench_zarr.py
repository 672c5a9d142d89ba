"""A whole array of zarr in 2,000 chunks of 64 KiB from an S3 endpoint: how long, with which store of zarr?

What zarr itself needs for each chunk is the limit: the same array from its store in memory.
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from support.common import Bench, main
from support.peers import KEYS, installed, obstore_store, serve
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from apyfal import storage

CHUNK = 64 << 10


def benches(quick: bool) -> list[Bench]:
    """2,000 chunks (100 in a smoke run), as many at once as zarr asks for by default, and 64."""
    count = 100 if quick else 2000
    data = np.frombuffer(np.random.default_rng(1).bytes(count * CHUNK), np.uint8)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    fill(LocalStore(folder), data)
    files = {
        path.relative_to(folder).as_posix(): np.fromfile(path, np.uint8)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    }
    documents = {"zarr.json": np.fromfile(folder / "zarr.json", np.uint8)}
    server = serve({})
    for name, content in {**files, **documents}.items():
        place = server.root / "b" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        content.tofile(place)
    for place in [*(server.root / "b").rglob("*")]:
        place.chmod(0o755)
    url = server.endpoint_url
    memory = MemoryStore()
    fill(memory, data)
    storage.mount("s3.zarr", endpoint_url=url, config={}, replace=True, **KEYS)
    stores: dict[str, Callable[[], Any]] = {
        "limit: zarr's own work, chunks in memory": lambda: memory,
        "apyfal zarr_store": lambda: storage.zarr_store("s3.zarr://b", read_only=True),
        "FsspecStore of apyfal's filesystem": lambda: FsspecStore(
            storage.filesystem(asynchronous=True), path="s3.zarr://b", read_only=True
        ),
    }
    if installed("obstore"):
        from zarr.storage import ObjectStore

        stores["ObjectStore of obstore"] = lambda: ObjectStore(obstore_store(url), read_only=True)
    return [compare(stores, data, count, concurrency) for concurrency in (10, 64)]


def fill(store: Any, data: np.ndarray) -> None:
    """Store the array."""
    array = zarr.create_array(store, shape=data.shape, chunks=(CHUNK,), dtype="uint8", compressors=None)
    array[:] = data


def compare(stores: dict[str, Callable[[], Any]], data: np.ndarray, count: int, concurrency: int) -> Bench:
    """Return the table for a number of chunks that zarr asks for at once."""
    bench = Bench(f"a zarr array of {count} chunks of 64 KiB, {concurrency} at once: seconds", data.nbytes)

    def check(found: np.ndarray) -> None:
        if not np.array_equal(found, data):
            raise AssertionError("wrong data")

    for name, make in stores.items():
        opened = zarr.open_array(make(), mode="r")

        def run(opened: Any = opened) -> np.ndarray:
            with zarr.config.set({"async.concurrency": concurrency}):
                return np.asarray(opened[:])

        bench.add(name, run, check, limit=name.startswith("limit"))
    theirs = bench.ways[-1]
    for way in bench.ways[1:-1]:
        way.note = lambda way=way: f"{np.median(way.seconds) / np.median(theirs.seconds):.2f}x the last"
    return bench


if __name__ == "__main__":
    main(benches, rounds=5)
