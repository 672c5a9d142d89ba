"""The frames of the data channel: their headers, their payloads, and the limits of each type.

A channel is an HTTP/1.1 connection after ``Upgrade: apyfal-channel/2`` (RFC 9110, section 7.8). From then on, both
sides send frames: a header of 12 bytes in network byte order (type, flags, reserved, stream, size), and a payload.
``apyfal-channel/1`` is the same without `EARLY` and OUTPUT.
"""

from __future__ import annotations

import functools
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

__all__ = [
    "EARLY",
    "FROM_CLIENT",
    "FROM_SERVER",
    "HEADER_NBYTES",
    "MAX_DATA",
    "MAX_JOB",
    "MAX_RESULT",
    "NO_INFO",
    "OFFERED",
    "PROTOCOLS",
    "STREAMS",
    "WINDOW",
    "ErrorFrame",
    "FrameError",
    "FrameHeader",
    "FrameLimits",
    "FrameType",
    "JobFrame",
    "Protocol",
    "ResultFrame",
    "chosen_protocol",
    "credit_frame",
    "data_header",
    "error_frame",
    "job_frame",
    "output_frame",
    "parse_credit",
    "parse_error",
    "parse_header",
    "parse_job",
    "parse_output",
    "parse_result",
    "ping_frame",
    "release_frame",
    "result_frame",
]

#: bytes of a body that follows its JOB or RESULT at once; a larger one waits for CREDIT
WINDOW: Final = 1 << 20
#: streams that can be open on one channel
STREAMS: Final = 256
#: largest payloads in bytes
MAX_JOB: Final = 32 << 10
MAX_DATA: Final = 16 << 20
MAX_RESULT: Final = 1 << 20
_MAX_ERROR: Final = 32 << 10
#: bytes of a body: as for the counts in messages
_MAX_BODY = 1 << 62

#: flags of a JOB: its result need not have `info`; its output may come while it still runs, after an OUTPUT
NO_INFO: Final = 1
EARLY: Final = 2

#: the beginning of a job's JSON that says nothing but its id, its state and its output: such results of small jobs
#: differ in their ids only, and are parsed once
_PLAIN = re.compile(rb'\{"id": "([0-9a-f-]{1,64})", (?="state": "done", "ran": true, "info": \{\}, "result": null, )')
_PLAIN_MOST = 1024

_HEADER = struct.Struct("!BBHII")
_JOB = struct.Struct("!QBB")
_RESULT = struct.Struct("!QB")
_ERROR = struct.Struct("!HH")
_CREDIT = struct.Struct("!Q")
_OUTPUT = struct.Struct("!Q")

HEADER_NBYTES: Final = _HEADER.size


class FrameError(Exception):
    """The peer broke the protocol. The connection ends, because what follows cannot be understood."""


class FrameType(IntEnum):
    """What a frame is."""

    JOB = 1
    DATA = 2
    CREDIT = 3
    RESULT = 4
    ERROR = 5
    RELEASE = 6
    PING = 7
    OUTPUT = 8


class FrameLimits(NamedTuple):
    """Smallest and largest payload of one type of frame, whether its stream is 0, not 0, or either (``None``), and the
    flags that it may have.
    """

    least: int
    most: int
    on_stream: bool | None = True
    flags: int = 0


_BOTH: Mapping[int, FrameLimits] = {
    FrameType.DATA: FrameLimits(1, MAX_DATA),
    FrameType.CREDIT: FrameLimits(_CREDIT.size, _CREDIT.size),
    FrameType.PING: FrameLimits(0, 0, False),
}
_FROM_CLIENT_1: Mapping[int, FrameLimits] = {
    **_BOTH,
    FrameType.JOB: FrameLimits(_JOB.size, MAX_JOB, flags=NO_INFO),
    FrameType.RELEASE: FrameLimits(0, 0),
}
_FROM_SERVER_1: Mapping[int, FrameLimits] = {
    **_BOTH,
    FrameType.RESULT: FrameLimits(_RESULT.size, MAX_RESULT),
    FrameType.ERROR: FrameLimits(_ERROR.size, _MAX_ERROR, None),
}
#: the frames that each side may send, in the newest protocol
FROM_CLIENT: Mapping[int, FrameLimits] = {
    **_FROM_CLIENT_1,
    FrameType.JOB: FrameLimits(_JOB.size, MAX_JOB, flags=NO_INFO | EARLY),
}
FROM_SERVER: Mapping[int, FrameLimits] = {
    **_FROM_SERVER_1,
    FrameType.OUTPUT: FrameLimits(_OUTPUT.size, _OUTPUT.size),
}


class Protocol(NamedTuple):
    """A version of the protocol: its name in the ``Upgrade`` field of HTTP, and the frames that each side may send."""

    name: str
    from_client: Mapping[int, FrameLimits]
    from_server: Mapping[int, FrameLimits]

    @property
    def has_early_output(self) -> bool:
        """Return whether jobs can have the flag `EARLY`."""
        return FrameType.OUTPUT in self.from_server


#: by name, the newest first
PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one
    for one in (
        Protocol("apyfal-channel/2", FROM_CLIENT, FROM_SERVER),
        Protocol("apyfal-channel/1", _FROM_CLIENT_1, _FROM_SERVER_1),
    )
}
#: the names, as a client offers them
OFFERED: Final = ", ".join(PROTOCOLS)


class FrameHeader(NamedTuple):
    """Type, stream, payload size and flags of a frame."""

    type: int
    stream: int
    nbytes: int
    flags: int = 0


class JobFrame(NamedTuple):
    """A job: its idempotency key, its session, its description as JSON, and the bytes of its body."""

    key: str
    session: str
    text: str
    nbytes: int


class ResultFrame(NamedTuple):
    """The end of a job: the job as JSON, whether an output follows, and the bytes of it."""

    document: dict[str, Any]
    has_output: bool
    nbytes: int


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """Why a job was refused, or on stream 0 why the connection ends.

    Attributes
    ----------
    status
        The HTTP status that the same refusal has there; 421: this job goes by HTTP.
    retry_after
        Seconds after which to try again; 0: not stated.
    document
        The body of that HTTP response.
    """

    status: int
    retry_after: int
    document: dict[str, Any]


def chosen_protocol(offered: str) -> Protocol | None:
    """Return the newest protocol of those in an ``Upgrade`` field; ``None``: none is known here."""
    names = [one.strip().lower() for one in offered.split(",")]
    return next((protocol for name, protocol in PROTOCOLS.items() if name in names), None)


# -- headers -----------------------------------------------------------------------------------------------------------
def parse_header(
    data: bytes | bytearray | memoryview, known: Mapping[int, FrameLimits], offset: int = 0
) -> FrameHeader:
    """Parse and check the header of a frame.

    Parameters
    ----------
    data, offset
        The header, at this offset.
    known
        The frames that the peer may send: see `Protocol`.

    Raises
    ------
    FrameError
        The type is unknown or not the peer's to send, a reserved field is not 0, or the stream or the size is not one
        that the type allows.
    """
    kind, flags, reserved, stream, nbytes = _HEADER.unpack_from(data, offset)
    limits = known.get(kind)
    if limits is not None:
        least, most, on_stream, allowed = limits
        is_framed = not (flags & ~allowed or reserved) and (on_stream is None or on_stream == bool(stream))
        if is_framed and least <= nbytes <= most:
            return FrameHeader(kind, stream, nbytes, flags)
    if limits is None:
        expected = ", ".join(f"{FrameType(one).name} {one:d}" for one in sorted(known))
        raise FrameError(f"a frame of type {kind}: expected {expected}")
    name = FrameType(kind).name
    if flags & ~limits.flags or reserved:
        expected = f"0 to {limits.flags}, and 0" if limits.flags else "0"
        raise FrameError(f"{name}: flags {flags} and reserved field {reserved}: expected {expected}")
    if limits.on_stream is not None and limits.on_stream != bool(stream):
        raise FrameError(f"{name} on stream {stream}: expected {'1 or more' if limits.on_stream else '0'}")
    expected = f"{limits.least}" if limits.least == limits.most else f"{limits.least} to {limits.most}"
    raise FrameError(f"{name} of {nbytes} bytes: expected {expected}")


def _frame(kind: FrameType, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return _HEADER.pack(kind, flags, 0, stream, len(payload)) + payload


def data_header(stream: int, nbytes: int) -> bytes:
    """Return the header of a DATA frame; its payload of `nbytes` follows."""
    return _HEADER.pack(FrameType.DATA, 0, 0, stream, nbytes)


def ping_frame() -> bytes:
    """Return a frame that only shows that its sender is alive."""
    return _frame(FrameType.PING, 0)


def release_frame(stream: int) -> bytes:
    """Return the frame by which a client says that it has the output of a stream."""
    return _frame(FrameType.RELEASE, stream)


# -- jobs --------------------------------------------------------------------------------------------------------------
def job_frame(stream: int, key: str, session: str, text: str, nbytes: int, flags: int = 0) -> bytes | None:
    """Return a JOB frame, whose body of `nbytes` follows in DATA frames; ``None``: longer than `MAX_JOB`."""
    names = (key.encode("ascii"), session.encode("ascii"))
    payload = b"".join([_JOB.pack(nbytes, len(names[0]), len(names[1])), *names, text.encode()])
    return _frame(FrameType.JOB, stream, payload, flags) if len(payload) <= MAX_JOB else None


def parse_job(payload: bytes) -> JobFrame:
    """Parse the payload of a JOB frame. Raises `FrameError`; what the JSON says is not checked here."""
    nbytes, key, session = _JOB.unpack_from(payload)
    begin, end = _JOB.size + key, _JOB.size + key + session
    if nbytes >= _MAX_BODY or end > len(payload):
        raise FrameError(f"JOB: a body of {nbytes} bytes, and names of {key} and {session} in {len(payload)}")
    try:
        return JobFrame(
            payload[_JOB.size : begin].decode("ascii"),
            payload[begin:end].decode("ascii"),
            payload[end:].decode(),
            nbytes,
        )
    except UnicodeDecodeError:
        raise FrameError("JOB: expected a key and a session in ASCII, and a job in UTF-8") from None


# -- results and errors ------------------------------------------------------------------------------------------------
def result_frame(stream: int, text: str, nbytes: int | None) -> bytes | None:
    """Return a RESULT frame; ``None``: it would be longer than `MAX_RESULT`.

    Parameters
    ----------
    stream
        The stream of the job.
    text
        The job as JSON.
    nbytes
        Bytes of the output, which follows in DATA frames; ``None``: there is none.
    """
    payload = _RESULT.pack(nbytes or 0, nbytes is not None) + text.encode()
    return _frame(FrameType.RESULT, stream, payload) if len(payload) <= MAX_RESULT else None


def parse_result(payload: bytes) -> ResultFrame:
    """Parse the payload of a RESULT frame. Raises `FrameError`."""
    nbytes, has_output = _RESULT.unpack_from(payload)
    if nbytes >= _MAX_BODY or has_output > 1 or (nbytes and not has_output):
        raise FrameError(f"RESULT: {nbytes} bytes, and {has_output} for whether there are any")
    found = _PLAIN.match(payload, _RESULT.size) if len(payload) <= _PLAIN_MOST else None
    rest = None if found is None else _plain(payload[found.end() :])
    if found is None or rest is None:
        return ResultFrame(_document("RESULT", payload[_RESULT.size :]), bool(has_output), nbytes)
    return ResultFrame({"id": found[1].decode(), **rest}, bool(has_output), nbytes)


def error_frame(stream: int, status: int, document: Mapping[str, object], retry_after: float = 0.0) -> bytes:
    """Return an ERROR frame; see `ErrorFrame`."""
    text = json.dumps(document).encode()
    return _frame(FrameType.ERROR, stream, _ERROR.pack(status, min(round(retry_after), 0xFFFF)) + text)


def parse_error(payload: bytes) -> ErrorFrame:
    """Parse the payload of an ERROR frame. Raises `FrameError`."""
    status, retry_after = _ERROR.unpack_from(payload)
    if not 400 <= status <= 599:
        raise FrameError(f"ERROR: status {status}: expected 400 to 599")
    return ErrorFrame(status, retry_after, _document("ERROR", payload[_ERROR.size :]))


def credit_frame(stream: int, nbytes: int) -> bytes:
    """Return the frame that lets the peer send `nbytes` more of the body of a stream."""
    return _frame(FrameType.CREDIT, stream, _CREDIT.pack(nbytes))


def parse_credit(payload: bytes) -> int:
    """Return the bytes that a CREDIT frame grants. Raises `FrameError`."""
    (nbytes,) = _CREDIT.unpack(payload)
    if not 0 < nbytes < _MAX_BODY:
        raise FrameError(f"CREDIT of {nbytes} bytes: expected 1 or more")
    return int(nbytes)


def output_frame(stream: int, nbytes: int) -> bytes:
    """Return the frame that announces an output of `nbytes`, which comes while its job still runs."""
    return _frame(FrameType.OUTPUT, stream, _OUTPUT.pack(nbytes))


def parse_output(payload: bytes) -> int:
    """Return the size of the output that an OUTPUT frame announces. Raises `FrameError`."""
    (nbytes,) = _OUTPUT.unpack(payload)
    if not 0 < nbytes < _MAX_BODY:
        raise FrameError(f"OUTPUT of {nbytes} bytes: expected 1 or more")
    return int(nbytes)


@functools.lru_cache(maxsize=64)
def _plain(text: bytes) -> Mapping[str, Any] | None:
    """Return what follows the id in a result, for all that are alike. ``None``: it has what a caller may change."""
    rest = _document("RESULT", b"{" + text)
    return None if rest.get("info") or rest.get("result") is not None or "batch" in rest else rest


def _document(name: str, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise FrameError(f"{name}: expected a JSON object")
    return document
