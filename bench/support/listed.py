"""A store that makes its objects and its listings as they are asked for, S3's way, and forgets what is written.

``python -m support.listed BYTES SECOND`` prints its port, and serves until its standard input ends; the second of a
minute is
when its objects were written. The bucket ``b`` has the folders
``1000``, ``10000``, ...: as many objects as the name says, 1,000 a folder, each of so many bytes. Every other folder is
empty. A folder whose last object is removed is empty when it is looked at for the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

from support.store_process import in_own_process, serve

PAGE = 1000


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, nbytes: int, second: int, emptied: set[str]) -> None:
        self.nbytes = nbytes
        self.second = second
        self.emptied = emptied
        self.received = bytearray()
        self.length = -1  # of a request that has not come as a whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a request is there."""
        self.received += data
        if self.length < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            stated = re.search(rb"(?i)\ncontent-length: *(\d+)", self.received[:end])
            self.length = end + 4 + (int(stated[1]) if stated else 0)
            if re.search(rb"(?i)expect: *100-continue", self.received[:end]):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self.received) < self.length:
            return
        head, _, body = bytes(self.received[: self.length]).partition(b"\r\n\r\n")
        del self.received[: self.length]
        self.length = -1
        method, target, _ = head.decode().split(" ", 2)
        self.transport.write(self.answer(method, target, body))

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """Make the answer to one request."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        key = unquote(url.path).removeprefix("/b").lstrip("/")
        if method == "POST":
            keys = re.findall(rb"<Key>[^<]*</Key>", body)
            self.emptied.update(folder for folder in (_emptied(key) for key in keys) if folder)
            return _head(200, b"<DeleteResult>%b</DeleteResult>" % b"".join(b"<Deleted>%b</Deleted>" % k for k in keys))
        if method in ("PUT", "DELETE"):
            return _head(200 if method == "PUT" else 204, b"", _etag(key))
        if not key:
            folder = query.get("prefix", "").strip("/")
            if folder in self.emptied and "delimiter" in query:
                self.emptied.remove(folder)
                query["prefix"] = "none/"
            return _head(200, listing(query, self.nbytes, self.second))
        if not re.fullmatch(r"\d+/\d+/\d+", key):
            return _head(404, b"<Error><Code>NoSuchKey</Code></Error>")
        content = b"" if method == "HEAD" else key[-1].encode() * self.nbytes
        when = f"Last-Modified: Sun, 22 Nov 2026 00:00:{self.second:02} GMT\r\n"
        return _head(200, content, _etag(key) + when, self.nbytes)


def listing(query: dict[str, str], nbytes: int, second: int) -> bytes:
    """Make one page of a listing."""
    prefix = query.get("prefix", "")
    folder, _, rest = prefix.partition("/")
    count = 0 if rest or not folder.isdigit() else int(folder)
    begin = int(query.get("continuation-token", "0"))
    end = min(count, begin + int(query.get("max-keys", PAGE)))
    lines = ["<ListBucketResult><EncodingType>url</EncodingType>"]
    if "delimiter" in query:  # only whether there is any is asked in this way
        lines += ["<CommonPrefixes><Prefix>", f"{folder}/000000/", "</Prefix></CommonPrefixes>"] if count else []
    else:
        for number in range(begin, end):
            key = f"{folder}/{number // 1000:06}/{number:09}"
            etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
            lines.append(
                f"<Contents><Key>{key}</Key><LastModified>2026-11-22T00:00:{second:02}.000Z</LastModified>"
                f"<ETag>&quot;{etag}&quot;</ETag><Size>{nbytes}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
    more = end < count and "delimiter" not in query
    lines.append(f"<IsTruncated>{str(more).lower()}</IsTruncated>")
    if more:
        lines.append(f"<NextContinuationToken>{end}</NextContinuationToken>")
    return "".join([*lines, "</ListBucketResult>"]).encode()


def _emptied(element: bytes) -> str:
    """Return the folder of which this is the last object; empty if it is not."""
    folder, _, name = element[5:-6].decode().partition("/")
    return folder if folder.isdigit() and name.endswith(f"/{int(folder) - 1:09}") else ""


def _etag(key: str) -> str:
    return f'ETag: "{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"\r\n'


def _head(status: int, body: bytes, more: str = "", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\n{more}\r\n".encode() + body


@contextlib.contextmanager
def listed(nbytes: int, second: int) -> Iterator[str]:
    """Run the store in a process of its own; yields its URL."""
    with in_own_process("support.listed", nbytes, second) as url:
        yield url


if __name__ == "__main__":
    _emptied_folders: set[str] = set()
    asyncio.run(serve(lambda: Connection(int(sys.argv[1]), int(sys.argv[2]), _emptied_folders)))
