"""An S3 store in this process that can go wrong at any byte of any request.

It is a correct little store (objects, ranges, conditions, multipart uploads, copies, listings) until a `Fault` is put
into `Hostile.faults`: each says which requests it hits and what happens to them. All state is open to the test.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape

__all__ = ["Answer", "Fault", "Hostile", "Request", "hostile"]


@dataclass
class Request:
    """One request as it came.

    Attributes
    ----------
    number
        Counted over all requests of the server, from 0.
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def start(self) -> int | None:
        """First byte of the range asked for, or ``None``."""
        found = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else None

    @property
    def part(self) -> int:
        """Part number of an upload, or 0."""
        return int(self.query.get("partNumber", 0))


@dataclass
class Answer:
    """What will be sent, unless a fault changes it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Fault:
    """What goes wrong.

    Attributes
    ----------
    kind
        ``cut``, ``reset``, ``stall``, ``drip``: after `at` bytes of the answer's body (negative: of its head, from its
        end). ``cut-request``: after `at` bytes of the request's body. ``lose``: do all that was asked and close without
        an answer. ``flip``: one bit at `at` of the body. ``shorten``: send `at` bytes as if they were all. ``chunked``:
        chunked framing, cut after `at` bytes. ``change``: `act` decides what to answer.
    when
        Which requests it hits.
    times
        How often; -1 for ever.
    seconds
        For ``stall`` and ``drip``: how long it is silent, or sends a byte now and then, before it closes the
        connection, unless the client does so before. It is longer than any test waits: what waits for its end
        is not prompt.
    act
        For ``change``: called before the request is carried out; an `Answer` is sent instead of doing what was asked,
        ``None`` lets it be done.
    edit
        For ``change``: called with the answer to alter it.
    """

    kind: str
    when: Callable[[Request], bool] = lambda request: True
    at: int = 0
    times: int = 1
    seconds: float = 60.0
    act: Callable[[Request], Answer | None] | None = None
    edit: Callable[[Request, Answer], None] | None = None


@dataclass
class Stored:
    """One object."""

    data: bytes
    etag: str
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str = "said the hostile server", **headers: str) -> Answer:
    """Make an S3 error document."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>REQ-{code}</RequestId></Error>"
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode())


class Hostile:
    """The store.

    Parameters
    ----------
    tls
        Of the server; what is cut then ends without TLS's farewell.

    Attributes
    ----------
    objects
        ``bucket/key`` to what is stored.
    uploads
        Ids of multipart uploads that are neither completed nor aborted: path and parts.
    faults
        Tried in order; the first that hits is used up.
    requests
        All requests so far, without their bodies.
    hit
        The faults that have happened, by kind.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.objects: dict[str, Stored] = {}
        self._generation = 0  # connections of before a reset are nobody's
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.hit: list[str] = []
        self._lock = threading.RLock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._accepted: set[int] = set()  # ports of clients
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="hostile", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port``."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def endpoint_url(self) -> str:
        """Where it is."""
        return f"{'http' if self._tls is None else 'https'}://{self.address}"

    def put(self, path: str, data: bytes, **headers: str) -> Stored:
        """Store an object behind the protocol's back."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        stored = Stored(data, f'"{hashlib.md5(data).hexdigest()}"', names)
        self.objects[path] = stored
        return stored

    def reset(self) -> None:
        """Forget everything, the connections included: what an earlier test's transfer still asks does not count."""
        # connections are accepted in their order: before this one, all that an earlier test's transfer has begun
        with socket.create_connection(self._listener.getsockname()[:2]) as last:
            port, deadline = last.getsockname()[1], time.monotonic() + 10
            while port not in self._accepted and time.monotonic() < deadline:
                time.sleep(0.0005)
        self._accepted.clear()
        with self._lock:
            self._generation += 1
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self.objects.clear()
            self.uploads.clear()
            self.faults.clear()
            self.requests.clear()
            self.hit.clear()

    def close(self) -> None:
        """End all connections and threads."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    # -- connections --------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError:
                return
            self._accepted.add(address[1])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
                generation = self._generation
            threading.Thread(
                target=self._serve, args=(sock, generation), name="hostile-connection", daemon=True
            ).start()

    def _serve(self, sock: socket.socket, generation: int) -> None:
        try:
            if self._tls is not None:
                with self._lock:
                    self._open.discard(sock)
                sock.settimeout(10)
                sock = self._tls.wrap_socket(sock, server_side=True)
                sock.settimeout(None)
                with self._lock:
                    self._open.add(sock)
            with sock.makefile("rb", 65536) as stream:
                while self._one(sock, stream, generation):
                    pass
        except OSError:
            pass  # the client went away, or the test ended
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _one(self, sock: socket.socket, stream: object, generation: int) -> bool:
        """Serve one request; ``False`` ends the connection."""
        line = stream.readline()
        if not line:
            return False
        method, target, _ = line.decode("latin-1").split()
        headers: dict[str, str] = {}
        while (text := stream.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        raw_path, _, query = target.partition("?")
        with self._lock:
            if generation != self._generation:
                return False
            request = Request(
                len(self.requests),
                method,
                unquote(raw_path).lstrip("/"),
                dict(parse_qsl(query, keep_blank_values=True)),
                headers,
            )
            self.requests.append(request)
            fault = self._choose(request)
        length = int(headers.get("content-length", 0))
        if fault is not None and fault.kind == "cut-request":
            stream.read(max(0, min(fault.at, length)))
            _reset(sock)
            return False
        body = stream.read(length)
        if len(body) < length:
            return False
        with self._lock:
            answer = fault.act(request) if fault is not None and fault.act is not None else None
            if answer is None:
                answer = self._do(request, body)
            if fault is not None and fault.edit is not None:
                fault.edit(request, answer)
        return self._send(sock, request, answer, fault)

    def _choose(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.when(request):
                fault.times -= 1
                self.hit.append(fault.kind)
                return fault
        return None

    def _send(self, sock: socket.socket, request: Request, answer: Answer, fault: Fault | None) -> bool:
        kind = fault.kind if fault is not None else ""
        at = fault.at if fault is not None else 0
        body = b"" if request.method == "HEAD" else answer.body
        headers = {"date": email.utils.formatdate(usegmt=True), "x-amz-request-id": f"R{request.number}"}
        headers |= {"content-length": str(len(answer.body)), **answer.headers}
        if kind == "lose":
            return False
        if kind == "flip" and at < len(body):
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        if kind == "shorten":
            body = body[:at]
            headers["content-length"] = str(len(body))
        if kind == "chunked":
            del headers["content-length"]
            headers["transfer-encoding"] = "chunked"
        head = f"HTTP/1.1 {answer.status} Whatever\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n"
        whole = head.encode() + body
        end = max(0, len(head) + at)
        if kind == "chunked":
            sock.sendall(head.encode() + b"%x\r\n" % len(body) + body[:at])
            return False
        if kind == "cut":
            sock.sendall(whole[:end])
            return False
        if kind == "reset":
            sock.sendall(whole[:end])
            _reset(sock)
            return False
        if kind == "stall":
            sock.sendall(whole[:end])
            _wait_for_end(sock, fault.seconds)
            return False
        if kind == "drip":
            sock.sendall(whole[:end])
            for index in range(end, min(end + int(fault.seconds / 0.03), len(whole))):
                if self._ended.wait(0.03):
                    break
                sock.sendall(whole[index : index + 1])
            return False
        sock.sendall(whole)
        return headers.get("connection") != "close"

    # -- the store ----------------------------------------------------------------------------------------------------
    def _do(self, request: Request, body: bytes) -> Answer:
        query = request.query
        if request.method == "POST" and "uploads" in query:
            upload_id = f"upload-{request.number}"
            self.uploads[upload_id] = (request.path, {})
            return _xml("InitiateMultipartUploadResult", UploadId=upload_id)
        if "uploadId" in query:
            return self._do_upload(request, body)
        if request.method in ("GET", "HEAD"):
            if "list-type" in query:
                return self._list(request)
            return self._get(request)
        if request.method == "PUT":
            if request.headers.get("if-none-match") == "*" and request.path in self.objects:
                return error(412, "PreconditionFailed")
            if "x-amz-copy-source" in request.headers:
                source = self._source(request)
                if isinstance(source, Answer):
                    return source
                return _xml("CopyObjectResult", ETag=self.put(request.path, source).etag)
            stored = self.put(request.path, body, **_checksums(request.headers))
            return Answer(200, {"etag": stored.etag})
        if request.method == "POST" and "delete" in query:
            keys = [item.text or "" for item in fromstring(body).iter() if item.tag.endswith("Key")]
            for key in keys:
                self.objects.pop(f"{request.path}/{key}", None)
            names = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return Answer(200, {}, f'<DeleteResult xmlns="urn:s3">{names}</DeleteResult>'.encode())
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return Answer(204, {})
        return error(405, "MethodNotAllowed")

    def _list(self, request: Request) -> Answer:
        top = f"{request.path.rstrip('/')}/"
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter")
        prefixes: dict[str, None] = {}
        names = ""
        for path, stored in sorted(self.objects.items()):
            key = path.removeprefix(top)
            if not path.startswith(top) or not key.startswith(prefix):
                continue
            folder, found, _ = key[len(prefix) :].partition(delimiter or "/")
            if delimiter and found:
                prefixes[f"{prefix}{folder}{delimiter}"] = None
            else:
                names += f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.data)}</Size></Contents>"
        names += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in prefixes)
        names += "<IsTruncated>false</IsTruncated>"
        return Answer(200, {}, f"<ListBucketResult>{names}</ListBucketResult>".encode())

    def _source(self, request: Request) -> bytes | Answer:
        stored = self.objects.get(unquote(request.headers["x-amz-copy-source"].partition("?")[0]).lstrip("/"))
        if stored is None:
            return error(404, "NoSuchKey")
        if request.headers.get("x-amz-copy-source-if-match", stored.etag) != stored.etag:
            return error(412, "PreconditionFailed")
        return stored.data

    def _get(self, request: Request) -> Answer:
        stored = self.objects.get(request.path)
        if stored is None:
            return error(404, "NoSuchKey")
        if request.headers.get("if-match", stored.etag) != stored.etag:
            return error(412, "PreconditionFailed")
        headers = {"etag": stored.etag, "accept-ranges": "bytes", **stored.headers}
        headers["last-modified"] = "Sun, 06 Nov 1994 08:49:37 GMT"
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if found is None:
            return Answer(200, headers, stored.data)
        size = len(stored.data)
        start, stop = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
        if start >= size:
            return error(416, "InvalidRange", content_range=f"bytes */{size}")
        headers = {name: value for name, value in headers.items() if "checksum" not in name}
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        return Answer(206, headers, stored.data[start:stop])

    def _do_upload(self, request: Request, body: bytes) -> Answer:
        found = self.uploads.get(request.query["uploadId"])
        if found is None:
            return error(404, "NoSuchUpload")
        path, parts = found
        if request.method == "PUT":
            if "x-amz-copy-source" in request.headers:
                source = self._source(request)
                if isinstance(source, Answer):
                    return source
                first, last = map(int, request.headers["x-amz-copy-source-range"].removeprefix("bytes=").split("-"))
                parts[request.part] = source[first : last + 1]
                return _xml("CopyPartResult", ETag=f'"{hashlib.md5(parts[request.part]).hexdigest()}"')
            parts[request.part] = body
            return Answer(200, {"etag": f'"{hashlib.md5(body).hexdigest()}"'})
        if request.method == "DELETE":
            del self.uploads[request.query["uploadId"]]
            return Answer(204, {})
        if request.headers.get("if-none-match") == "*" and path in self.objects:
            return error(412, "PreconditionFailed")
        named = [int(item.findtext("PartNumber") or 0) for item in fromstring(body).iter("Part")]
        if named != sorted(named) or any(number not in parts for number in named):
            return error(400, "InvalidPart")
        stored = self.put(path, b"".join(parts[number] for number in named), **_checksums(request.headers))
        digest = hashlib.md5(b"".join(hashlib.md5(parts[number]).digest() for number in named))
        stored.etag = f'"{digest.hexdigest()}-{len(named)}"'
        del self.uploads[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", ETag=stored.etag)


def _checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep what was stated about an object's content, as S3 does."""
    return {
        name.replace("-", "_"): value
        for name, value in headers.items()
        if name.startswith("x-amz-checksum-crc") or name == "x-amz-checksum-type"
    }


def _xml(root: str, **children: str) -> Answer:
    inner = "".join(f"<{name}>{text.replace(chr(34), '&quot;')}</{name}>" for name, text in children.items())
    return Answer(200, {}, f'<?xml version="1.0"?>\n<{root} xmlns="urn:s3">{inner}</{root}>'.encode())


def _wait_for_end(sock: socket.socket, seconds: float) -> None:
    """Wait until a connection ends, by the client or by `Hostile.reset` and `Hostile.close`, but not for ever."""
    poll = select.poll()
    poll.register(sock, getattr(select, "POLLRDHUP", 0))
    poll.poll(seconds * 1000)


def _reset(sock: socket.socket) -> None:
    """Close with a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    sock.close()


@contextlib.contextmanager
def hostile(tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Run the store, over TLS with a context; all its threads have been told to end afterwards."""
    server = Hostile(tls)
    try:
        yield server
    finally:
        server.close()
        deadline = time.monotonic() + 5
        while server._open and time.monotonic() < deadline:
            time.sleep(0.01)
