"""One large object from an S3 endpoint on loopback into prepared memory: how near to a bare socket, and who else?

Also over TLS against curl, and cold: the first call of a process into memory that was never touched, imports included.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.common import Bench, main
from support.peers import KEYS, Fill, PeakMemory, bare, peers, rclone, serve

import apyfal
from apyfal.storage.checksums import crc_function
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import TransferOptions, download


def benches(quick: bool) -> list[Bench]:
    """1 GiB (64 MiB in a smoke run)."""
    nbytes = (64 << 20) if quick else (1 << 30)
    data = np.frombuffer(np.random.default_rng(1).bytes(nbytes), np.uint8)
    server = serve({"object": data})
    target = apyfal.empty(nbytes, np.uint8)
    target[...] = 0
    out = memoryview(target)

    def check(_: object) -> None:
        if not np.array_equal(target, data):
            raise AssertionError("wrong data")
        target[...] = 0

    def add(bench: Bench, name: str, fill: Fill, **keywords: Any) -> None:
        peak = PeakMemory()
        bench.add(name, lambda: peak(lambda: fill(out)), check, note=peak.note, **keywords)

    url = server.endpoint_url
    handler = S3Handler(endpoint_url=url, **KEYS)
    info = handler.describe("b/object")
    crc = crc_function("crc64nvme")
    stated = replace(info, checksums={"crc64nvme": crc(memoryview(data), 0).to_bytes(8, "big")}) if crc else info

    warm = Bench(f"{nbytes >> 20} MiB over http into prepared memory", nbytes)
    add(warm, "limit: recv_into, 4 connections", bare(url, "b/object", 4), limit=True)
    add(warm, "limit: recv_into, 1 connection", bare(url, "b/object", 1))
    add(warm, "apyfal", lambda view: download(handler, "b/object", view))
    add(warm, "apyfal, verified (CRC-64/NVME)", lambda view: download(handler, "b/object", view, info=stated))
    one = TransferOptions(concurrency=1)
    add(warm, "apyfal, 1 connection", lambda view: download(handler, "b/object", view, options=one))
    for name, make in peers(url).items():
        add(warm, name, make("object"))
    if shutil.which("rclone"):
        copied = server.root.parent / "copied"
        options = ("--multi-thread-streams", "8", "--multi-thread-cutoff", "32M")
        warm.add(
            "rclone copyto, 8 streams, to a file in memory",
            lambda: rclone(url, "copyto", "bench:b/object", str(copied), *options),
            lambda _: check(target.__setitem__(..., np.fromfile(copied, np.uint8)) or copied.unlink()),
        )

    secure = Bench(f"{nbytes >> 20} MiB over https", nbytes)
    if shutil.which("curl"):
        secure.add("limit: curl --output /dev/null", lambda: curl(server.tls_url, server.ca), limit=True)
    private = S3Handler(endpoint_url=server.tls_url, verify=str(server.ca), **KEYS)
    add(secure, "apyfal", lambda view: download(private, "b/object", view))
    add(secure, "apyfal, 1 connection", lambda view: download(private, "b/object", view, options=one))

    cold = Bench(f"{nbytes >> 20} MiB, cold: a new process, its imports, memory never touched", nbytes)
    for name, (module, text) in COLD.items():
        if importlib.util.find_spec(module) is not None:
            cold.add(name, in_new_process(text, url, nbytes))
    return [warm, secure, cold]


def curl(url: str, ca: Path) -> None:
    """Let curl receive the object and forget it."""
    subprocess.run(["curl", "-sf", "--cacert", str(ca), "-o", "/dev/null", f"{url}/b/object"], check=True)


_APYFAL = """
import apyfal
from apyfal.storage import transfer
from apyfal.storage.stores.s3.handler import S3Handler

def allocate(nbytes):
    global view
    view = apyfal.empty(nbytes, "uint8")
    return memoryview(view)

handler = S3Handler(endpoint_url=URL, client_id="bench", secret_id="bench")
transfer.download(handler, "b/object", None, allocate=allocate)
"""
_BOTO3 = """
from support.peers import boto3_client
view = boto3_client(URL).get_object(Bucket="b", Key="object")["Body"].read()
"""
_OBSTORE = """
import obstore
from support.peers import obstore_store
view = obstore.get(obstore_store(URL), "object").bytes()
"""
_PYARROW = """
import numpy
from support.peers import peers
view = numpy.empty(SIZE, "uint8")
peers(URL, "pyarrow")["pyarrow read_at, 8 x 16 MiB"]("object")(memoryview(view))
"""
#: Name to the module that it needs, and a program that ends with `view`, the object's bytes.
COLD = {
    "apyfal": ("apyfal", _APYFAL),
    "boto3 get_object().read()": ("boto3", _BOTO3),
    "obstore get().bytes()": ("obstore", _OBSTORE),
    "pyarrow read_at, 8 x 16 MiB": ("pyarrow", _PYARROW),
}


def in_new_process(text: str, url: str, nbytes: int) -> Callable[[], None]:
    """Return what runs a program with URL and SIZE set, and checks that its `view` has that many bytes."""
    program = f"URL={url!r}; SIZE={nbytes}\n{text}\n"
    program += "assert memoryview(view).nbytes == SIZE, memoryview(view).nbytes\nimport os; os._exit(0)\n"

    def run() -> None:
        subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})

    return run


if __name__ == "__main__":
    main(benches, rounds=5)
