"""One large object from place to place: between two S3 endpoints, from one to a file, from file to file; and a tree.

The destination endpoint takes every byte and forgets it, so that its speed does not count; that what arrives is right
is checked on the way to a file, which is the same code. A tree is also copied to a store that keeps it, before the
times are taken; after each run its destination has been sent every name. Memory is how far this process grows (another
program: all of it).
"""

from __future__ import annotations

import atexit
import contextlib
import filecmp
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from servers.web.hostile import hostile
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
from apyfal.storage.batch.native import path_counts


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
    return [stores, to_file, files, tree(100 if quick else 5000)]


def tree(count: int) -> Bench:
    """Return the table of a tree of small objects from one endpoint to another, which takes and forgets them.

    s5cmd knows one endpoint at a time: it copies to a directory in memory, and from there.
    """
    size = 16 << 10
    data = np.frombuffer(np.random.default_rng(1).bytes(count * size), np.uint8).reshape(count, size)
    source, sink = serve({}), serve({})
    folder = source.root / "listed"
    folder.mkdir(parents=True)
    for number in range(count):
        data[number].tofile(folder / f"{number:06}")
    entries = "".join(
        f'<Contents><Key>{number:06}</Key><Size>{size}</Size><ETag>"x"</ETag>'
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for number in range(count)
    )
    (source.root / "listing.xml").write_text(
        f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>{entries}</ListBucketResult>"
    )
    for path in (folder, *folder.iterdir(), source.root / "listing.xml"):
        path.chmod(0o755)
    url, other = source.endpoint_url, sink.endpoint_url
    storage.mount("s3.tree", endpoint_url=url, config={}, **KEYS)
    storage.mount("s3.sink", endpoint_url=other, config={}, **KEYS)
    bench = Bench(f"a tree of {count} objects of 16 KiB between two S3 endpoints: microseconds an object", unit="us")
    bench.scale = 1e6
    environment = rclone_environment(url) | {
        name.replace("_BENCH_", "_OTHER_"): value
        for name, value in rclone_environment(other).items()
        if "_BENCH_" in name
    }

    with hostile() as kept:
        storage.mount("s3.kept", endpoint_url=kept.endpoint_url, config={}, **KEYS)
        copy_tree("s3.kept://b/")
        storage.unmount("s3.kept")
        found = {path: stored.data for path, stored in kept.objects.items()}
        if found != {f"b/{number:06}": data[number].tobytes() for number in range(count)}:
            raise AssertionError("the copy is not the original")
    path_counts.take()
    logs = [server.root.parent / "access.log" for server in (source, sink)]
    seen = [0, 0]

    def check(_: object) -> None:
        names: list[str] = []
        for place, log in enumerate(logs):
            lines = log.read_text().splitlines()
            names += re.findall(r'"PUT /sink/(\d+)\S* HTTP/1\.1" 200 ', "\n".join(lines[seen[place] :]))
            seen[place] = len(lines)
        if sorted(names) != [f"{number:06}" for number in range(count)]:
            raise AssertionError(f"{len(names)} objects were sent, {len(set(names))} of {count} names")

    def check_native(_: object) -> None:
        check(_)
        if (took := path_counts.take()) != {"native": 2 * count}:
            raise AssertionError(f"not all objects took the native transport: {took}")

    bench.add("apyfal copy -r", lambda: copy_tree("s3.sink://sink/"), check_native, repeats=count)
    if shutil.which("rclone"):
        for transfers in (8, 32):
            options = ["--transfers", str(transfers), "--checkers", "8", "--s3-no-head", "--ignore-checksum"]
            run = PeakOfProgram(
                ["rclone", "copy", "--no-check-dest", *options, "bench:listed", "other:sink"], environment
            )
            bench.add(f"rclone, {transfers} at once (another process)", run, check, note=run.note, repeats=count)
    if shutil.which("s5cmd"):
        keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1"}

        def s5cmd() -> None:
            with tempfile.TemporaryDirectory(dir="/dev/shm") as between:
                for start, end, endpoint in (
                    ("s3://listed/*", f"{between}/", url),
                    (f"{between}/*", "s3://sink/", other),
                ):
                    subprocess.run(
                        ["s5cmd", "--endpoint-url", endpoint, "cp", start, end],
                        env={**os.environ, **keys},
                        stdout=subprocess.DEVNULL,
                        check=True,
                    )

        bench.add("s5cmd, to memory and from there", s5cmd, check, repeats=count)
    for way in bench.ways:
        rate = lambda way=way: f"{1 / np.median(way.seconds):,.0f} objects/s"  # noqa: E731
        way.note = rate
    return bench


def copy_tree(destination: str) -> None:
    """Run the command of apyfal in this process."""
    from apyfal.cli import main as apyfal_main

    if status := apyfal_main(["copy", "-q", "-r", "s3.tree://listed", destination]):
        raise AssertionError(f"copy ended with {status}")


def cp(source: Path, destination: Path) -> None:
    """Copy as the shell does, and wait until it is on disk."""
    subprocess.run(["cp", str(source), str(destination)], check=True)
    with destination.open("rb+") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(benches, rounds=5)
