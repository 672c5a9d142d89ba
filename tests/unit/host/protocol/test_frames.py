"""Frames: the same whatever the pieces in which they arrive, and each malformed one refused by a line of its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apyfal.host.protocol.frame_reader import SCRATCH, FrameReader
from apyfal.host.protocol.frames import (
    EARLY,
    FROM_CLIENT,
    FROM_SERVER,
    HEADER_NBYTES,
    MAX_DATA,
    MAX_JOB,
    MAX_RESULT,
    OFFERED,
    PROTOCOLS,
    FrameError,
    FrameHeader,
    FrameType,
    chosen_protocol,
    credit_frame,
    data_header,
    error_frame,
    job_frame,
    parse_credit,
    parse_error,
    parse_header,
    parse_job,
    parse_output,
    parse_result,
    ping_frame,
    release_frame,
    result_frame,
)


class Recorder:
    """Writes down all frames; keeps the bodies of streams of even number, which it knows the sizes of."""

    def __init__(self) -> None:
        self.frames: list[tuple[object, ...]] = []
        self.bodies: dict[int, bytearray] = {}
        self._done: dict[int, int] = {}
        self.arrived: dict[int, int] = {}
        self.hold_after: int | None = None
        self.reader: FrameReader | None = None

    def on_frame(self, header: FrameHeader, payload: bytes) -> None:
        self.frames.append((header, payload))
        if self.reader is not None and self.hold_after is not None and len(self.frames) % self.hold_after == 0:
            self.reader.held = True

    def place(self, stream: int, nbytes: int) -> memoryview | None:
        self.frames.append((stream, nbytes))
        if stream % 2:
            return None
        body = self.bodies.setdefault(stream, bytearray(1 << 20))
        start = self._done.get(stream, 0)
        self._done[stream] = start + nbytes
        return memoryview(body)[start : start + nbytes]

    def on_data(self, stream: int, nbytes: int) -> None:
        self.arrived[stream] = self.arrived.get(stream, 0) + nbytes


def feed(reader: FrameReader, data: bytes, sizes: Iterator[int] | Sequence[int]) -> None:
    """Give a reader the data, in pieces of these sizes and then all that fits."""
    left, pieces = memoryview(data), iter(sizes)
    while left:
        room = reader.get_buffer()
        count = min(next(pieces, SCRATCH), len(room), len(left))
        room[:count] = left[:count]
        reader.received(count)
        left = left[count:]


def recorded(data: bytes, sizes: Sequence[int] = (), known: object = FROM_CLIENT, hold: int | None = None) -> Recorder:
    recorder = Recorder()
    reader = FrameReader(known, recorder, bytearray(SCRATCH))  # type: ignore[arg-type]  # one of the two tables
    recorder.reader, recorder.hold_after = reader, hold
    feed(reader, data, sizes)
    while reader.held:
        reader.held = False
        reader.resume()
    assert not reader.is_mid_frame
    return recorder


def a_job(stream: int = 1, nbytes: int = 0) -> bytes:
    frame = job_frame(stream, "key", "5" * 32, '{"src":{"body":true}}', nbytes)
    assert frame is not None
    return frame


_FRAMES = st.one_of(
    st.builds(lambda stream: a_job(stream), st.integers(1, 9)),
    st.builds(lambda stream, body: data_header(stream, len(body)) + body, st.integers(1, 9), st.binary(min_size=1)),
    st.builds(credit_frame, st.integers(1, 9), st.integers(1, 1 << 40)),
    st.builds(release_frame, st.integers(1, 9)),
    st.just(ping_frame()),
)


@settings(deadline=None)  # the machine has other work
@given(st.lists(_FRAMES, max_size=20), st.lists(st.integers(1, 200), max_size=50), st.integers(1, 5) | st.none())
def test_pieces_make_no_difference(frames: list[bytes], sizes: list[int], hold: int | None) -> None:
    whole, pieces = recorded(b"".join(frames)), recorded(b"".join(frames), sizes, hold=hold)
    assert pieces.frames == whole.frames
    assert pieces.bodies == whole.bodies
    assert pieces.arrived == whole.arrived


def test_a_header_is_cut_at_each_byte() -> None:
    stream = a_job(2, 70_000) + data_header(2, 70_000) + bytes(range(250)) * 280 + credit_frame(2, 7)
    expected = recorded(stream)
    for cut in [*range(1, 200), len(stream) - 21, len(stream) - 20, len(stream) - 1]:
        assert recorded(stream, [cut]).frames == expected.frames
    assert recorded(stream, [1] * len(stream)).bodies == expected.bodies
    assert bytes(expected.bodies[2][:70_000]) == bytes(range(250)) * 280


def test_large_bodies_are_received_at_their_place() -> None:
    recorder = Recorder()
    reader = FrameReader(FROM_CLIENT, recorder, bytearray(SCRATCH))
    feed(reader, data_header(2, 500_000), [])
    buffer = reader.get_buffer()
    assert buffer.obj is recorder.bodies[2]
    assert len(buffer) == 500_000
    buffer[:3] = b"abc"
    reader.received(3)
    assert recorder.bodies[2][:3] == b"abc"
    assert len(reader.get_buffer()) == 499_997


def test_payloads_there_and_back() -> None:
    assert parse_job(a_job(7, 3)[HEADER_NBYTES:]) == ("key", "5" * 32, '{"src":{"body":true}}', 3)
    for nbytes in (None, 0, 5):
        frame = result_frame(1, '{"state": "done"}', nbytes)
        assert frame is not None
        assert parse_result(frame[HEADER_NBYTES:]) == ({"state": "done"}, nbytes is not None, nbytes or 0)
    refused = parse_error(error_frame(1, 429, {"error": {}}, 2.6)[HEADER_NBYTES:])
    assert (refused.status, refused.retry_after, refused.document) == (429, 3, {"error": {}})
    assert parse_credit(credit_frame(1, 1 << 40)[HEADER_NBYTES:]) == 1 << 40


def test_what_does_not_fit_is_not_sent() -> None:
    assert job_frame(1, "k", "s", "x" * MAX_JOB, 0) is None
    assert result_frame(1, json.dumps({"x": "x" * MAX_RESULT}), None) is None
    longest = error_frame(1, 500, {"error": {"type": "HostError", "message": "\U0001f600" * 2000}})
    assert parse_header(longest, FROM_SERVER).nbytes == len(longest) - HEADER_NBYTES


def raw(kind: int, stream: int = 1, nbytes: int = 0, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("!BBHII", kind, flags, reserved, stream, nbytes)


@pytest.mark.parametrize(
    ("data", "known", "line"),
    [
        (raw(0), FROM_CLIENT, "a frame of type 0: expected JOB 1, DATA 2, CREDIT 3, RELEASE 6, PING 7"),
        (raw(255), FROM_SERVER, "a frame of type 255: expected DATA 2, CREDIT 3, RESULT 4, ERROR 5, PING 7, OUTPUT 8"),
        (raw(FrameType.RESULT, nbytes=9), FROM_CLIENT, "a frame of type 4: expected JOB 1"),
        (raw(FrameType.ERROR, nbytes=4), FROM_CLIENT, "a frame of type 5: expected JOB 1"),
        (raw(FrameType.JOB, nbytes=20), FROM_SERVER, "a frame of type 1: expected DATA 2"),
        (raw(FrameType.RELEASE), FROM_SERVER, "a frame of type 6: expected DATA 2"),
        (
            raw(FrameType.JOB, nbytes=20, flags=4),
            FROM_CLIENT,
            "JOB: flags 4 and reserved field 0: expected 0 to 3, and 0",
        ),
        (
            raw(FrameType.JOB, nbytes=20, flags=EARLY),
            PROTOCOLS["apyfal-channel/1"].from_client,
            "JOB: flags 2 and reserved field 0: expected 0 to 1, and 0",
        ),
        (
            raw(FrameType.OUTPUT, nbytes=8),
            PROTOCOLS["apyfal-channel/1"].from_server,
            "a frame of type 8: expected DATA 2, CREDIT 3, RESULT 4, ERROR 5, PING 7",
        ),
        (raw(FrameType.OUTPUT, nbytes=8), FROM_CLIENT, "a frame of type 8: expected JOB 1"),
        (raw(FrameType.OUTPUT, nbytes=7), FROM_SERVER, "OUTPUT of 7 bytes: expected 8"),
        (raw(FrameType.OUTPUT, stream=0, nbytes=8), FROM_SERVER, "OUTPUT on stream 0: expected 1 or more"),
        (raw(FrameType.OUTPUT, nbytes=8, flags=1), FROM_SERVER, "OUTPUT: flags 1 and reserved field 0: expected 0"),
        (raw(FrameType.DATA, nbytes=1, reserved=9), FROM_CLIENT, "DATA: flags 0 and reserved field 9: expected 0"),
        (raw(FrameType.JOB, stream=0, nbytes=20), FROM_CLIENT, "JOB on stream 0: expected 1 or more"),
        (raw(FrameType.DATA, stream=0, nbytes=1), FROM_SERVER, "DATA on stream 0: expected 1 or more"),
        (raw(FrameType.RELEASE, stream=0), FROM_CLIENT, "RELEASE on stream 0: expected 1 or more"),
        (raw(FrameType.CREDIT, stream=0, nbytes=8), FROM_CLIENT, "CREDIT on stream 0: expected 1 or more"),
        (raw(FrameType.RESULT, stream=0, nbytes=9), FROM_SERVER, "RESULT on stream 0: expected 1 or more"),
        (raw(FrameType.PING, stream=1), FROM_CLIENT, "PING on stream 1: expected 0"),
        (raw(FrameType.JOB, nbytes=9), FROM_CLIENT, f"JOB of 9 bytes: expected 10 to {MAX_JOB}"),
        (raw(FrameType.JOB, nbytes=MAX_JOB + 1), FROM_CLIENT, f"JOB of {MAX_JOB + 1} bytes: expected 10 to"),
        (raw(FrameType.DATA), FROM_CLIENT, f"DATA of 0 bytes: expected 1 to {MAX_DATA}"),
        (raw(FrameType.DATA, nbytes=MAX_DATA + 1), FROM_SERVER, f"DATA of {MAX_DATA + 1} bytes: expected 1 to"),
        (raw(FrameType.CREDIT, nbytes=7), FROM_CLIENT, "CREDIT of 7 bytes: expected 8"),
        (raw(FrameType.RELEASE, nbytes=1), FROM_CLIENT, "RELEASE of 1 bytes: expected 0"),
        (raw(FrameType.PING, stream=0, nbytes=1), FROM_SERVER, "PING of 1 bytes: expected 0"),
        (raw(FrameType.RESULT, nbytes=8), FROM_SERVER, f"RESULT of 8 bytes: expected 9 to {MAX_RESULT}"),
        (raw(FrameType.ERROR, nbytes=1 << 31), FROM_SERVER, "ERROR of 2147483648 bytes: expected 4 to"),
    ],
)
def test_a_malformed_header_is_refused_before_its_payload_arrives(data: bytes, known: object, line: str) -> None:
    with pytest.raises(FrameError, match="^" + line.replace("(", r"\(")):
        recorded(data, known=known)


@pytest.mark.parametrize(
    ("parse", "payload", "line"),
    [
        (parse_job, struct.pack("!QBB", 1 << 62, 0, 0), "a body of 4611686018427387904 bytes"),
        (parse_job, struct.pack("!QBB", 0, 200, 100) + b"k", "names of 200 and 100 in 11"),
        (parse_job, struct.pack("!QBB", 0, 1, 0) + b"\xff{}", "expected a key and a session in ASCII"),
        (parse_job, struct.pack("!QBB", 0, 0, 1) + b"\xff{}", "expected a key and a session in ASCII"),
        (parse_job, struct.pack("!QBB", 0, 1, 1) + b"ks\xff", "a job in UTF-8"),
        (parse_result, struct.pack("!QB", 5, 0) + b"{}", "RESULT: 5 bytes, and 0"),
        (parse_result, struct.pack("!QB", 0, 2) + b"{}", "RESULT: 0 bytes, and 2"),
        (parse_result, struct.pack("!QB", 1 << 63, 1) + b"{}", "RESULT: 9223372036854775808 bytes"),
        (parse_result, struct.pack("!QB", 0, 0) + b"[]", "RESULT: expected a JSON object"),
        (parse_result, struct.pack("!QB", 0, 0) + b"[" * 100_000, "RESULT: expected a JSON object"),
        (parse_error, struct.pack("!HH", 399, 0) + b"{}", "status 399: expected 400 to 599"),
        (parse_error, struct.pack("!HH", 600, 0) + b"{}", "status 600: expected 400 to 599"),
        (parse_error, struct.pack("!HH", 400, 0) + b"{", "ERROR: expected a JSON object"),
        (parse_credit, bytes(8), "CREDIT of 0 bytes: expected 1 or more"),
        (parse_credit, b"\xff" * 8, "CREDIT of 18446744073709551615 bytes"),
        (parse_output, bytes(8), "OUTPUT of 0 bytes: expected 1 or more"),
        (parse_output, b"\xff" * 8, "OUTPUT of 18446744073709551615 bytes"),
    ],
)
def test_a_malformed_payload_is_refused(parse: object, payload: bytes, line: str) -> None:
    with pytest.raises(FrameError, match=line):
        parse(payload)  # type: ignore[operator]  # one of the parsers


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("apyfal-channel/1", "apyfal-channel/1"),
        ("apyfal-channel/3, Apyfal-Channel/1", "apyfal-channel/1"),
        ("apyfal-channel/1, Apyfal-Channel/2", "apyfal-channel/2"),
        (OFFERED, "apyfal-channel/2"),
        ("apyfal-channel/3", None),
        ("websocket", None),
        ("apyfal-channel", None),
        ("", None),
    ],
)
def test_the_version_is_agreed_upon(offered: str, chosen: str | None) -> None:
    protocol = chosen_protocol(offered)
    assert (None if protocol is None else protocol.name) == chosen


_ANSWER = {
    "id": "0005f0-a1", "state": "done", "ran": True, "info": {}, "result": None,
    "output": {"nbytes": 4, "region": None, "dtype": "|u1", "shape": [4]},
    "progress": {"done": 4, "total": 4}, "error": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"id": "0005f1-b2"}, {"id": 'a"b'}, {"id": "a\\b"}, {"id": ""}, {"id": 7}, {"state": "failed"},
        {"ran": False}, {"info": {"seconds": {}}}, {"result": {"sum": 1}}, {"error": {"type": "HostError"}},
        {"output": None}, {"output": {"nbytes": 5}}, {"batch": []}, {"text": "x" * 2000},
    ],
    ids=str,
)  # fmt: skip
def test_results_that_are_alike_are_parsed_as_any_other(changes: dict[str, object]) -> None:
    for document in (_ANSWER, {**_ANSWER, **changes}, _ANSWER):
        text = json.dumps(document)
        frame = result_frame(1, text, 4)
        assert frame is not None
        assert parse_result(frame[HEADER_NBYTES:]).document == document


@pytest.mark.parametrize(
    "more",
    ['"info": {"a": []}', '"result": [1]', '"id": "other"', '"batch": []', '"error": {"type": "HostError"}'],
)
def test_a_result_that_says_something_twice_is_read_as_json_and_is_the_caller_s(more: str) -> None:
    text = json.dumps(_ANSWER)[:-1] + f", {more}" + "}"
    frame = result_frame(1, text, 4)
    assert frame is not None
    first, second = (parse_result(frame[HEADER_NBYTES:]).document for _ in range(2))
    assert first == second == json.loads(text)
    for name in ("info", "result"):
        if first[name]:
            assert first[name] is not second[name]


@pytest.mark.parametrize("end", ["", ", ", "}}", "]"])
def test_a_result_that_is_no_json_is_refused_however_it_begins(end: str) -> None:
    frame = result_frame(1, json.dumps(_ANSWER)[:-1] + end, 4)
    assert frame is not None
    with pytest.raises(FrameError, match="expected a JSON object"):
        parse_result(frame[HEADER_NBYTES:])
