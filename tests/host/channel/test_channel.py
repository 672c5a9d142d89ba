"""The data channel: jobs under way at once, bodies and outputs of any size, and what each mistake is answered."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host.support.channel import RawChannel, array_job, upgrade
from host.support.daemon import RunningDaemon, in_thread, running

from apyfal.exceptions import AuthenticationError, HostError
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol import frames, tls
from apyfal.host.protocol.address import parse_address
from apyfal.host.protocol.frames import STREAMS, WINDOW, FrameType
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings
from apyfal.storage.http.connection import Connection


@pytest.fixture(scope="module")
def token(daemon: RunningDaemon) -> str:
    return daemon.token()


@pytest.fixture(scope="module")
def session(daemon: RunningDaemon, token: str) -> Iterator[str]:
    with contextlib.closing(daemon.host(token)) as host:
        made = str(host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"])
        yield made
        host.json("DELETE", f"/v1/sessions/{made}")


# -- the client --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_arrays_of_all_sizes_there_and_back(daemon: RunningDaemon, token: str, tmp_path: Path, secure: bool) -> None:
    sizes = [1, 4096, 65536, 65537, WINDOW - 1, WINDOW, WINDOW + 1, 5_000_001]
    with contextlib.ExitStack() as stack:
        if secure:
            settings = HostSettings(state_directory=tmp_path, audit_log=tmp_path / "audit")
            certificate, key = tls.ensure_certificate(tmp_path, ["127.0.0.1"])
            listener = Listener(host="127.0.0.1", tls=tls.server_context(certificate, key))
            stack.enter_context(in_thread(lambda: Daemon(settings, [listener], config={})))
            url = f"https://127.0.0.1:{listener.port}#sha256={tls.fingerprint_of(certificate)}"
            host = Host(parse_address(url), TokenStore(tmp_path / "tokens.json").create("alice"))
        else:
            host = daemon.host(token)
        card = stack.enter_context(RemoteAccelerator(host, {"accelerator": "loopback"}))
        card._pool = None
        for nbytes in sizes:
            array = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)
            info: dict[str, object] = {}
            assert np.array_equal(card.process(array, info_dict=info), array)
            assert info["host"] == str(host.address)
            target = np.zeros_like(array)
            assert card.process(array, target) is target
            assert np.array_equal(target, array)
        assert len(host._channels._idle) == 1  # every job went over the one channel
        assert len(host._idle) == 1


def test_errors_are_those_of_http(daemon: RunningDaemon, token: str) -> None:
    outcomes = []
    for frames_spoken in (True, False):
        with contextlib.closing(daemon.host(token)) as host:
            host._speaks_frames = frames_spoken
            with RemoteAccelerator(host, {"accelerator": "loopback"}) as card:
                card._pool = None
                raised = []
                for src, parameters in ((np.zeros(3, np.uint8), {"no": 1}), ("host://none", {}), ("s3x://a/b", {})):
                    with pytest.raises(Exception) as caught:  # noqa: PT011  # compared below
                        card.process(src, **parameters)
                    raised.append((type(caught.value), str(caught.value)))
                outcomes.append(raised)
    assert outcomes[0] == outcomes[1]


def test_a_host_without_channels_is_asked_by_http() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        host = Host(parse_address(f"http://127.0.0.1:{server.getsockname()[1]}"), None)
        for _ in range(2):  # the second time nothing is asked
            assert host.submit("k", "s", "{}", list, 0, lambda: None) is None
        thread.join()
    assert b"Upgrade: apyfal-channel/2, apyfal-channel/1\r\n" in asked[0]


def test_a_channel_that_the_host_closed_is_replaced(
    daemon: RunningDaemon, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(100, dtype=np.uint8)
    with RemoteAccelerator(daemon.host(token), {"accelerator": "loopback"}) as card:
        card._pool = None
        card.process(array)
        (channel,) = card._host._channels._idle
        socket.socket.shutdown(channel.connection._sock, socket.SHUT_RDWR)
        monkeypatch.setattr(Connection, "is_quiet", lambda self: True)  # as if it closed just afterwards
        assert np.array_equal(card.process(array), array)


def test_bodies_for_files_go_by_http(tmp_path: Path) -> None:
    with running(tmp_path, spool_above=1 << 16) as daemon:
        (tmp_path / "file").write_bytes(bytes(1 << 17))
        with RemoteAccelerator(daemon.host(daemon.token()), {"accelerator": "sha3"}) as card:
            large = card.process(src=str(tmp_path / "file"))
            assert large == card.process(np.zeros(1 << 17, np.uint8))


# -- several jobs ------------------------------------------------------------------------------------------------------
def test_results_come_as_jobs_end_and_a_lost_connection_runs_nothing_twice(tmp_path: Path) -> None:
    with running(tmp_path, counting=True) as daemon, contextlib.closing(daemon.host(daemon.token())) as host:
        own = host.json("POST", "/v1/sessions", {"accelerator": "x"})["id"]
        token = host._token
        assert token is not None

        def job(number: int, seconds: float) -> dict[str, object]:
            return {"parameters": {"number": number, "seconds": seconds}}

        with RawChannel(daemon, token) as channel:
            channel.job(1, own, job(1, 1.5), key="slow")
            for number in range(2, 12):
                channel.job(number, own, job(number, 0.0))
            ended = [channel.result() for _ in range(11)]
            assert ended[-1][0] == 1
            assert {stream for stream, _, _ in ended} == set(range(1, 12))
            assert all(document["result"]["number"] == stream for stream, document, _ in ended)
        with RawChannel(daemon, token) as channel:
            channel.job(1, own, job(20, 1.0), key="lost")
            while "20" not in (tmp_path / "runs.log").read_text().split():
                time.sleep(0.01)
        with RawChannel(daemon, token) as channel:
            channel.job(1, own, job(20, 1.0), key="lost")
            assert channel.error()[:2] == (1, 409)  # it still runs, and the answer says which job it is
            while host.json("GET", "/v1/jobs?key=lost")["jobs"][0]["state"] == "running":
                time.sleep(0.05)
            channel.job(2, own, job(20, 1.0), key="lost")
            assert channel.result()[1]["result"] == {"number": 20, "bytes": 0}
            channel.job(3, own, job(21, 1.0), key="lost")
            assert channel.error()[:2] == (3, 422)
            channel.job(4, own, job(1, 1.5), key="slow")
            assert channel.result()[1]["result"] == {"number": 1, "bytes": 0}
        runs = (tmp_path / "runs.log").read_text().split()
        assert sorted(map(int, runs)) == [*range(1, 12), 20]


def test_a_host_that_stops_sends_what_ends_and_tells_the_rest(tmp_path: Path) -> None:
    with running(tmp_path, counting=True, workers=1, stop_timeout=5.0) as daemon:
        token = daemon.token()
        host = daemon.host(token)
        own = host.json("POST", "/v1/sessions", {"accelerator": "x"})["id"]
        with RawChannel(daemon, token) as channel, RawChannel(daemon, token) as idle, contextlib.closing(host):
            channel.job(1, own, {"parameters": {"number": 1, "seconds": 1.0}})
            channel.job(2, own, {"parameters": {"number": 2, "seconds": 1.0}})
            while [job["state"] for job in host.json("GET", "/v1/jobs")["jobs"]] != ["running", "queued"]:
                time.sleep(0.01)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGTERM)
            told = {stream: document["state"] for stream, document, _ in (channel.result(), channel.result())}
            assert told == {1: "done", 2: "interrupted"}
            for one in (channel, idle):
                assert one.error() == (0, 503, "the host is stopping")
                assert one.is_closed()
            assert daemon.process.wait(20) == 0
            assert daemon.process.stdout is not None
            daemon.process.stdout.close()
            daemon.process = None
    assert (tmp_path / "runs.log").read_text() == "1\n"


# -- the upgrade -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("Connection: Upgrade", "Upgrade: apyfal-channel/3"), 426),
        (("Connection: Upgrade", "Upgrade: websocket"), 426),
        (("Connection: Upgrade",), 426),
        (("Upgrade: apyfal-channel/1",), 426),
        (("Connection: keep-alive, Upgrade", "Upgrade: apyfal-channel/9, apyfal-channel/1"), 101),
        (("Connection: Upgrade", "Upgrade: apyfal-channel/2"), 101),
        (("Connection: Upgrade", "Upgrade: apyfal-channel/1", "Content-Length: 5"), 400),
    ],
)
def test_the_upgrade(daemon: RunningDaemon, token: str, fields: tuple[str, ...], status: int) -> None:
    opened, head = upgrade(daemon, token, *fields)
    opened.close()
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
    if status == 426:
        assert b"Upgrade: apyfal-channel/2, apyfal-channel/1\r\n" in head


def test_who_may_open_a_channel(daemon: RunningDaemon) -> None:
    for token, status in ((None, 401), ("apf_0_0", 401), (daemon.token("carol", "storage:read"), 403)):
        opened, head = upgrade(daemon, token)
        opened.close()
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
    opened, head = upgrade(daemon, daemon.token("dave"), version="1.0")
    opened.close()
    assert head.startswith(b"HTTP/1.0 426 "), head


# -- what breaks the protocol ------------------------------------------------------------------------------------------
def _raw(kind: int, stream: int = 1, nbytes: int = 0, flags: int = 0) -> bytes:
    return struct.pack("!BBHII", kind, flags, 0, stream, nbytes)


def _job(stream: int, session: str, nbytes: int) -> bytes:
    text = json.dumps(array_job(nbytes))
    return frames.job_frame(stream, f"k{stream}-{time.monotonic_ns()}", session, text, nbytes) or b""


BROKEN = {
    "unknown type": (lambda _: _raw(99), "a frame of type 99"),
    "a type of the host": (lambda _: _raw(FrameType.RESULT, nbytes=9), "a frame of type 4"),
    "flags": (lambda _: _raw(FrameType.PING, 0, 0, 1), "PING: flags 1"),
    "too long": (lambda _: _raw(FrameType.JOB, nbytes=1 << 31), "JOB of 2147483648 bytes"),
    "too short": (lambda _: _raw(FrameType.CREDIT, nbytes=7), "CREDIT of 7 bytes"),
    "stream 0": (lambda _: _raw(FrameType.JOB, 0, 20), "JOB on stream 0"),
    "no such stream": (lambda _: _raw(FrameType.DATA, 7, 3) + b"abc", "DATA on stream 7, which has no body"),
    "a stream twice": (lambda s: _job(3, s, 9) + _job(3, s, 9), "JOB on stream 3: expected a number above 3"),
    "a stream backwards": (lambda s: _job(3, s, 9) + _job(2, s, 9), "JOB on stream 2: expected a number above 3"),
    "more than the body": (lambda s: _job(1, s, 2) + _raw(2, 1, 3) + b"abc", "DATA of 3 bytes on stream 1: 2 of"),
    "unasked": (lambda s: _job(1, s, WINDOW + 1) + _raw(2, 1, 3) + b"abc", "DATA on stream 1, which has no body"),
    "more than was dropped": (lambda _: _job(1, "0" * 32, 2) + _raw(2, 1, 3) + b"abc", "DATA of 3 bytes on stream 1"),
    "credit for nothing": (lambda _: frames.credit_frame(5, 1), "CREDIT on stream 5, which has no output"),
    "credit for a body": (lambda s: _job(1, s, 9) + frames.credit_frame(1, 1), "CREDIT of 1 bytes on stream 1"),
    "credit of 0": (lambda s: _job(1, s, 9) + _raw(3, 1, 8) + bytes(8), "CREDIT of 0 bytes"),
    "nothing to free": (lambda _: frames.release_frame(1), "RELEASE on stream 1, which has no output"),
    "names beyond the end": (lambda _: _raw(1, 1, 11) + struct.pack("!QBB", 0, 99, 9) + b"k", "names of 99 and 9"),
    "no ASCII": (lambda _: _raw(1, 1, 11) + struct.pack("!QBB", 0, 1, 0) + b"\xff", "in ASCII"),
    "streams": (
        lambda s: b"".join(_job(number, s, 9) for number in range(1, STREAMS + 2)),
        f"{STREAMS} are open, as many as a channel may have",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol_ends_one_channel(daemon: RunningDaemon, token: str, session: str, name: str) -> None:
    make, line = BROKEN[name]
    with RawChannel(daemon, token) as broken, RawChannel(daemon, token) as other:
        with contextlib.suppress(ConnectionError):
            broken.send(make(session))
        found = broken.error()
        while found[0]:  # streams that were refused before
            found = broken.error()
        assert found[:2] == (0, 400)
        assert line in found[2]
        assert broken.is_closed()
        other.job(1, session, array_job(3), b"abc")
        assert other.result()[2] == b"abc"


def test_a_job_is_cut_at_each_byte(daemon: RunningDaemon, token: str, session: str) -> None:
    with RawChannel(daemon, token) as channel:
        channel.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = _job(1, session, 3) + frames.data_header(1, 3) + b"abc"
        for stream in range(1, len(whole), 7):
            data = _job(stream, session, 3) + frames.data_header(stream, 3) + b"abc"
            channel.send(data[:stream])
            channel.send(data[stream:])
            assert channel.result()[::2] == (stream, b"abc")
        data = _job(5000, session, 3) + frames.data_header(5000, 3) + b"abc"
        for number in range(len(data)):
            channel.send(data[number : number + 1])
        assert channel.result()[::2] == (5000, b"abc")


# -- what is refused, and leaves the channel usable --------------------------------------------------------------------
def test_a_refused_job_ends_its_stream_only(daemon: RunningDaemon, token: str, session: str) -> None:
    with RawChannel(daemon, token) as channel:
        channel.job(1, "0" * 32, array_job(3), b"abc")
        assert channel.error() == (1, 404, "no such session")
        channel.job(2, session, array_job(4), b"abc")
        assert channel.error() == (2, 400, "src: an array of 4 bytes in a body of 3")
        channel.job(3, session, array_job(3), b"abc", key="no key!")
        assert channel.error()[:2] == (3, 400)
        channel.job(4, session, {"kind": "none"})
        assert channel.error()[:2] == (4, 400)
        channel.job(5, session, {}, b"abc")
        assert channel.error()[:2] == (5, 400)
        channel.send(frames.job_frame(6, "large", session, json.dumps(array_job(1 << 50)), 1 << 50))
        assert channel.error()[:2] == (6, 413)
        channel.send(frames.job_frame(7, "large", session, '{"src": [', 0))
        assert channel.error() == (7, 400, "the JSON is malformed")
        channel.job(8, session, {"parameters": {"no": 1}, **array_job(3)}, b"abc")
        assert channel.result()[1]["state"] == "failed"
        channel.job(9, session, array_job(3), b"abc")
        assert channel.result()[::2] == (9, b"abc")


def test_a_session_of_another_user(daemon: RunningDaemon, session: str) -> None:
    with RawChannel(daemon, daemon.token("mallory")) as channel:
        channel.job(1, session, array_job(3), b"abc")
        assert channel.error() == (1, 404, "no such session")


def test_large_bodies_and_outputs_wait_for_credit(daemon: RunningDaemon, token: str, session: str) -> None:
    nbytes = 3 * WINDOW + 5
    body = np.random.default_rng(0).bytes(nbytes)
    with RawChannel(daemon, token) as channel:
        channel.send(_job(1, session, nbytes))
        kind, stream, payload = channel.frame()
        assert (kind, stream, frames.parse_credit(payload)) == (FrameType.CREDIT, 1, nbytes)
        channel.job(2, session, array_job(3), b"abc")  # another job meanwhile
        assert channel.result()[::2] == (2, b"abc")
        channel.send(frames.data_header(1, nbytes), body)
        kind, stream, payload = channel.frame()
        assert (kind, stream, frames.parse_result(payload)[1:]) == (FrameType.RESULT, 1, (True, nbytes))
        channel.job(3, session, array_job(3), b"xyz")
        assert channel.result()[::2] == (3, b"xyz")  # nothing of the large output comes unasked
        received = b""
        for granted in (1, WINDOW, nbytes - WINDOW - 1):
            channel.send(frames.credit_frame(1, granted))
            part = b""
            while len(part) < granted:
                kind, stream, piece = channel.frame()
                assert (kind, stream) == (FrameType.DATA, 1)
                part += piece
            assert len(part) == granted
            received += part
        assert received == body
        channel.send(frames.release_frame(1))
        channel.send(frames.release_frame(1))
        assert channel.error() == (0, 400, "RELEASE on stream 1, which has no output to free")


def test_more_credit_than_the_output_has(daemon: RunningDaemon, token: str, session: str) -> None:
    with RawChannel(daemon, token) as channel:
        nbytes = WINDOW + 5
        channel.send(_job(1, session, nbytes))
        channel.frame()
        channel.send(frames.data_header(1, nbytes), bytes(nbytes))
        assert channel.frame()[0] == FrameType.RESULT
        channel.send(frames.credit_frame(1, nbytes + 1))
        assert channel.error() == (0, 400, f"CREDIT of {nbytes + 1} bytes on stream 1: it waits for {nbytes}")


# -- tokens ------------------------------------------------------------------------------------------------------------
def test_a_revoked_token_closes_its_channels(daemon: RunningDaemon) -> None:
    token = daemon.token("erin")
    with contextlib.closing(daemon.host(token)) as host:
        own = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
    with RawChannel(daemon, token) as used, RawChannel(daemon, token) as idle:
        used.job(1, own, array_job(3), b"abc")
        assert used.result()[2] == b"abc"
        daemon.tokens.revoke(token.split("_")[1])
        used.job(2, own, array_job(3), b"abc")
        for channel in (used, idle):
            assert channel.error() == (0, 401, "a valid token is needed")
            assert channel.is_closed()


def test_the_client_of_a_revoked_token(daemon: RunningDaemon) -> None:
    token = daemon.token("frank")
    card = RemoteAccelerator(daemon.host(token), {"accelerator": "loopback"})
    card._pool = None
    card.process(np.zeros(3, np.uint8))
    daemon.tokens.revoke(token.split("_")[1])
    with pytest.raises(AuthenticationError):
        card.process(np.zeros(3, np.uint8))
    card.stop()


# -- a host that breaks the protocol -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "line"),
    [
        (_raw(99), "a frame of type 99"),
        (_raw(FrameType.DATA, 1, 5) + b"abcde", "DATA on stream 1 came before its result"),
        (frames.result_frame(2, "{}", None), "a frame of stream 2: expected 1"),
        (frames.credit_frame(1, 5), "a frame of type 3 came, and no result"),
        (_raw(FrameType.RESULT, 1, 9) + bytes(9), "expected a JSON object"),
        (_raw(FrameType.RESULT, 1, 1 << 30), "RESULT of 1073741824 bytes"),
    ],
)
def test_the_client_does_not_believe_everything(said: bytes, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: apyfal-channel/1\r\n\r\n")
                connection.recv(4096)
                connection.sendall(said)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        host = Host(parse_address(f"http://127.0.0.1:{server.getsockname()[1]}"), None)
        with pytest.raises(HostError, match=line):
            host.submit("k", "s", "{}", list, 0, lambda: None)
        thread.join(20)
        assert not thread.is_alive()  # the client has closed the connection
