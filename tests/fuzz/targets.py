"""One function for each parser of what somebody else writes: it takes bytes, and raises only what it may raise."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from fuzz.handlers import channels, handlers
from fuzz.kernels import definition_parts, verilog
from fuzz.sessions import sessions, shared_memory
from fuzz.stores import stores

from apyfal.config import ini
from apyfal.definition.expressions import parse_expressions
from apyfal.definition.resolve import resolve
from apyfal.exceptions import AcceleratorException
from apyfal.host.protocol.address import parse_address
from apyfal.host.protocol.frame_reader import SCRATCH, FrameReader
from apyfal.host.protocol.frames import (
    PROTOCOLS,
    FrameError,
    FrameHeader,
    FrameType,
    parse_credit,
    parse_error,
    parse_job,
    parse_output,
    parse_result,
)
from apyfal.host.protocol.messages import JobSpec, error_from
from apyfal.host.protocol.proof import Challenge
from apyfal.host.server.policy.allowed_directories import host_path
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.transport.request import parse_json
from apyfal.storage.http.connection import Connection
from apyfal.storage.stores.s3 import xml
from apyfal.storage.url import parse, redact

__all__ = ["TARGETS"]

_MAX = 1 << 16


def http_answer(data: bytes) -> None:
    """The head of an answer, and its body by length, in chunks or to the end of the connection."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.sendall(data[:_MAX])
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(ours, "fuzz", 5.0)
        try:
            response = connection.read_response("GET")
            response.on_release(lambda usable: None)
            out = memoryview(bytearray(1000))
            while response.readinto(out):
                pass
        except AcceleratorException:
            pass
        finally:
            connection.close()


def s3_xml(data: bytes) -> None:
    """What a store says: errors, listings, buckets."""
    for read in (xml.parse_error, xml.parse_listing, xml.parse_buckets):
        with contextlib.suppress(AcceleratorException):
            read(data)


def configuration(data: bytes) -> None:
    """A configuration file."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(AcceleratorException):
        ini.parse(text, Path("/fuzz.conf"), ("accelerator", "host", "storage", "security", "process"))


def urls(data: bytes) -> None:
    """Storage URLs, the host's paths, endpoints and hosts."""
    text = data.decode("utf-8", "surrogateescape")
    gate = EgressPolicy(resolver=lambda host, port: [])
    for read in (parse, host_path, gate.check_url, gate.check_host, parse_address):
        with contextlib.suppress(AcceleratorException):
            read(text)
    redact(text)


def jobs(data: bytes) -> None:
    """A job as a client asks for it; what is taken comes back the same from its own text."""
    try:
        spec = JobSpec.parse(parse_json(data))
    except AcceleratorException:
        return
    assert JobSpec.parse(json.loads(spec.text)).text == spec.text


def answers_of_a_host(data: bytes) -> None:
    """An error as a daemon describes it to its client."""
    with contextlib.suppress(AcceleratorException):
        assert isinstance(error_from(parse_json(data)), AcceleratorException)


def journal(data: bytes) -> None:
    """A journal that something else has written into, and ids of jobs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "jobs"
        if data[:1] == b"\0":
            path.write_bytes(data[1:])
        with contextlib.suppress(AcceleratorException, sqlite3.Error), contextlib.closing(Journal(path)) as opened:
            opened.get(data.decode("latin-1"))
            opened.find(data.decode("latin-1"), data.decode("latin-1"))
            opened.recover()


def tokens(data: bytes) -> None:
    """The file of tokens, and what is presented as one."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tokens.json"
        if data[:1] in (b"[", b"{"):
            path.write_bytes(data)
        store = TokenStore(path)
        text = data.decode("utf-8", "surrogateescape")
        with contextlib.suppress(AcceleratorException):
            assert store.authenticate(text) is None
    match: re.Match[str] | None = Challenge.fullmatch(text)
    assert match is None or len(match["nonce"]) == 32


def definitions(data: bytes) -> None:
    """A section of an accelerator, a key a line, and the value of its expressions."""
    text = data.decode("utf-8", "surrogateescape")
    section = {
        "driver": "opencl",
        "program": "x.cl",
        "arguments": "x, y, n",
        "inputs": "x: int32",
        "outputs": "y: int32",
    }
    section["parameters"] = "n: int32"
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            section[key.strip()] = value.strip()
    values = {"n": 3, "count": 640, "width": 32, "height": 20, "zero": 0}
    with contextlib.suppress(AcceleratorException):
        for expression in parse_expressions(text):
            assert abs(expression.evaluate(values)) < 2**63
    with contextlib.suppress(AcceleratorException):
        resolve("t", {"accelerator.t": section})


class _Payloads:
    """Parses the payload of every frame, and keeps what came of it."""

    _PARSERS: ClassVar[dict[int, Callable[[bytes], object]]] = {
        FrameType.JOB: parse_job,
        FrameType.RESULT: parse_result,
        FrameType.ERROR: parse_error,
        FrameType.CREDIT: parse_credit,
        FrameType.OUTPUT: parse_output,
    }

    def __init__(self) -> None:
        self.found: list[object] = []
        self.body = bytearray()

    def on_frame(self, header: FrameHeader, payload: bytes) -> None:
        self.found.append((header, repr(self._PARSERS.get(header.type, bytes)(payload))))

    def place(self, stream: int, nbytes: int) -> memoryview | None:
        self.found.append((stream, nbytes))
        if stream % 2:
            return None
        start = len(self.body)
        self.body = self.body + bytes(min(nbytes, _MAX))  # a new one: views of the old one are in use
        return memoryview(self.body)[start:] if nbytes <= _MAX else None

    def on_data(self, stream: int, nbytes: int) -> None:
        assert nbytes > 0


def frames(data: bytes) -> None:
    """What each side of a channel sends, in pieces of any size: the same frames come of it."""
    width = 1 + data[0] if data else 1
    for known in [side for protocol in PROTOCOLS.values() for side in (protocol.from_client, protocol.from_server)]:
        outcomes = []
        for step in (width, SCRATCH):
            handler = _Payloads()
            reader = FrameReader(known, handler, bytearray(SCRATCH))
            left = memoryview(data[1:_MAX])
            try:
                while left:
                    room = reader.get_buffer()
                    count = min(step, len(room), len(left))
                    room[:count] = left[:count]
                    reader.received(count)
                    left = left[count:]
                handler.found.append(reader.is_mid_frame)
            except FrameError as error:
                handler.found.append(str(error))
            outcomes.append(handler.found)
        assert outcomes[0] == outcomes[1]


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        *(http_answer, s3_xml, configuration, urls, jobs, answers_of_a_host, journal, tokens, frames),
        *(stores, definitions, definition_parts, verilog, sessions, shared_memory),
        *(handlers, channels),
    )
}
