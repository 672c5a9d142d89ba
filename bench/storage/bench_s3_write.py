"""One large array to an S3 endpoint that takes it and forgets it: how near to a bare `sendall`, and who else?"""

from __future__ import annotations

import atexit
import contextlib
import io
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
from support.common import Bench, main
from support.discard import discard
from support.peers import KEYS, PeakMemory, address, boto3_client, installed, obstore_store

import apyfal
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import MultipartWriter, TransferOptions, upload


def benches(quick: bool) -> list[Bench]:
    """1 GiB (64 MiB in a smoke run)."""
    nbytes = (64 << 20) if quick else (1 << 30)
    data = apyfal.empty(nbytes, np.uint8)
    data[...] = np.frombuffer(np.random.default_rng(1).bytes(1 << 20), np.uint8).repeat(nbytes >> 20)
    view = memoryview(data).toreadonly()
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    url = stack.enter_context(discard())

    def sendall() -> None:
        with socket.create_connection(address(url)) as sock:
            sock.sendall(f"PUT /b/object HTTP/1.1\r\nHost: x\r\nContent-Length: {nbytes}\r\n\r\n".encode())
            sock.sendall(view)
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise AssertionError("not taken")

    bench = Bench(f"{nbytes >> 20} MiB from an array to an S3 endpoint", nbytes)

    def add(name: str, run: Callable[[], Any], **keywords: Any) -> None:
        peak = PeakMemory()
        bench.add(name, lambda: peak(run), note=peak.note, **keywords)

    handler = S3Handler(endpoint_url=url, **KEYS)
    checked = S3Handler(endpoint_url=url, checksum="crc64nvme", **KEYS)
    one = TransferOptions(concurrency=1)
    add("limit: one PUT, sendall", sendall, limit=True)
    add("apyfal upload", lambda: upload(handler, "b/object", view))
    add("apyfal upload, with CRC-64/NVME", lambda: upload(checked, "b/object", view))
    add("apyfal upload, 1 connection", lambda: upload(handler, "b/object", view, options=one))
    add("apyfal UploadStream, pieces of 1 MiB", lambda: pieces(handler, view))
    if installed("obstore"):
        import obstore

        store = obstore_store(url)
        add("obstore put (multipart)", lambda: obstore.put(store, "object", view))
    if installed("boto3"):
        client = boto3_client(url)
        add("boto3 upload_fileobj", lambda: client.upload_fileobj(io.BytesIO(view), "b", "object"))
    return [bench]


def pieces(handler: S3Handler, view: memoryview) -> None:
    """Write as somebody does who does not know how long it will be."""
    with MultipartWriter(handler, "b/object") as writing:
        for start in range(0, len(view), 1 << 20):
            writing.write(view[start : start + (1 << 20)])
        writing.commit()


if __name__ == "__main__":
    main(benches, rounds=7)
