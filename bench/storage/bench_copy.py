"""One large object from place to place: between two S3 endpoints, from one to a file, from a file to a file.

The destination endpoint takes every byte and forgets it, so that its speed does not count; that what arrives is right
is checked on the way to a file, which is the same code. Memory is how far this process grows (another program: all of
it).
"""

from __future__ import annotations

import atexit
import contextlib
import filecmp
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from support.common import Bench, main
from support.discard import discard
from support.peers import (
    KEYS,
    PeakMemory,
    PeakOfProgram,
    boto3_client,
    installed,
    obstore_store,
    rclone_environment,
    serve,
)

from apyfal import storage


def benches(quick: bool) -> list[Bench]:
    """1 GiB (64 MiB in a smoke run)."""
    nbytes = (64 << 20) if quick else (1 << 30)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    data = np.frombuffer(np.random.default_rng(1).bytes(nbytes), np.uint8)
    original = folder / "original"
    data.tofile(original)
    server = serve({"object": data})
    url, other = server.endpoint_url, stack.enter_context(discard())
    storage.mount("s3.from", endpoint_url=url, config={}, **KEYS)
    storage.mount("s3.to", endpoint_url=other, config={}, **KEYS)
    environment = rclone_environment(url) | {
        name.replace("_BENCH_", "_OTHER_"): value
        for name, value in rclone_environment(other).items()
        if "_BENCH_" in name
    }
    copied = folder / "copied"

    def check(_: object) -> None:
        if not filecmp.cmp(original, copied, shallow=False):
            raise AssertionError("the copy is not the original")
        copied.unlink()

    def add_rclone(bench: Bench, destination: str, *options: str, **keywords: Any) -> None:
        run = PeakOfProgram(["rclone", "copyto", "bench:b/object", destination, *options], environment)
        bench.add("rclone, 8 streams (another process)", run, note=run.note, **keywords)

    stores = Bench(f"{nbytes >> 20} MiB between two S3 endpoints", nbytes)
    to_file = Bench(f"{nbytes >> 20} MiB from an S3 endpoint to a file on disk", nbytes)
    files = Bench(f"{nbytes >> 20} MiB from file to file on one disk", nbytes)

    def add(bench: Bench, name: str, run: Callable[[], Any], **keywords: Any) -> None:
        peak = PeakMemory()
        bench.add(name, lambda: peak(run), None if bench is stores else check, note=peak.note, **keywords)

    add(stores, "apyfal.storage.copy", lambda: storage.copy("s3.from://b/object", "s3.to://b/object"))
    add(to_file, "apyfal.storage.copy, with fsync", lambda: storage.copy("s3.from://b/object", copied))
    if shutil.which("rclone"):
        streams = ("--s3-upload-concurrency", "8", "--s3-no-head", "--ignore-size", "--ignore-checksum")
        add_rclone(stores, "other:b/object", *streams)
        many = ("--multi-thread-streams", "8", "--multi-thread-cutoff", "32M")
        add_rclone(to_file, str(copied), *many, check=check)
    if installed("boto3"):
        source, target = boto3_client(url), boto3_client(other)
        add(
            stores,
            "boto3 upload_fileobj of get_object's body",
            lambda: target.upload_fileobj(source.get_object(Bucket="b", Key="object")["Body"], "b", "object"),
        )
        add(to_file, "boto3 download_file", lambda: source.download_file("b", "object", str(copied)))
    if installed("obstore"):
        import obstore

        reading, writing = obstore_store(url), obstore_store(other)
        add(
            stores,
            "obstore put of get().bytes()",
            lambda: obstore.put(writing, "object", obstore.get(reading, "object").bytes()),
        )
    add(files, "limit: cp, then sync of the file", lambda: cp(original, copied), limit=True)
    add(files, "apyfal.storage.copy, with fsync", lambda: storage.copy(original, copied))
    add(files, "shutil.copy, without", lambda: shutil.copy(original, copied))
    return [stores, to_file, files]


def cp(source: Path, destination: Path) -> None:
    """Copy as the shell does, and wait until it is on disk."""
    subprocess.run(["cp", str(source), str(destination)], check=True)
    with destination.open("rb+") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(benches, rounds=5)
