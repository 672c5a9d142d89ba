"""Outputs that come while their jobs run: whole or an error, whatever becomes of the job, the peer, the connection."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.channel import RawChannel
from host.support.daemon import RunningDaemon, in_thread, running

from apyfal.exceptions import AcceleratorException, HostError, RunTimeout
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.channel import ClientChannel
from apyfal.host.client.http import Host
from apyfal.host.protocol import frames
from apyfal.host.protocol.address import parse_address
from apyfal.host.protocol.frames import EARLY, PROTOCOLS, WINDOW, FrameType
from apyfal.host.server.channel import routes
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings

MIB = 1 << 20
NBYTES = 24 * MIB  # several chunks
_OLD = PROTOCOLS["apyfal-channel/1"]


def _random(nbytes: int) -> np.ndarray:
    return np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)


def _card(monkeypatch: pytest.MonkeyPatch, settings: str) -> None:
    """Let daemons that are started from now on have a card that is slow, or fails."""
    monkeypatch.setenv("APYFAL_EMULATOR", settings)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with little patience, whose card takes half a second for 8 MiB."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _card(monkeypatch, "compute_bandwidth=16MiB")
        with running(tmp_path_factory.mktemp("slow"), stall_timeout=2.0) as started:
            yield started


@contextlib.contextmanager
def _session(daemon: RunningDaemon, token: str) -> Iterator[tuple[Host, str]]:
    with contextlib.closing(daemon.host(token)) as host:
        session = str(host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"])
        yield host, session
        host.json("DELETE", f"/v1/sessions/{session}")


@contextlib.contextmanager
def _remote(daemon: RunningDaemon) -> Iterator[RemoteAccelerator]:
    with RemoteAccelerator(daemon.host(daemon.token()), {"accelerator": "loopback"}) as card:
        card._pool = None
        yield card


def _send(
    channel: RawChannel, session: str, data: np.ndarray, *, stream: int = 1, key: str = "", flags: int = EARLY
) -> None:
    """Submit a job over an array, with its body."""
    kind = {"dtype": "|u1", "shape": [data.nbytes]}
    text = json.dumps({"src": {"body": True, "array": kind}, "dst": {"array": kind}})
    channel.send(frames.job_frame(stream, key or secrets.token_hex(8), session, text, data.nbytes, flags))
    kind_of, of, payload = channel.frame()
    assert (kind_of, of, frames.parse_credit(payload)) == (FrameType.CREDIT, stream, data.nbytes)
    for start in range(0, data.nbytes, 8 * MIB):
        piece = data[start : start + 8 * MIB]
        channel.send(frames.data_header(stream, piece.nbytes), piece.tobytes())


def _announced(channel: RawChannel, stream: int = 1) -> int:
    kind, of, payload = channel.frame()
    assert (kind, of) == (FrameType.OUTPUT, stream), payload
    return frames.parse_output(payload)


def _piece(channel: RawChannel, stream: int = 1) -> bytes:
    kind, of, payload = channel.frame()
    assert (kind, of) == (FrameType.DATA, stream), payload
    return payload


def _rest(channel: RawChannel, nbytes: int, stream: int = 1) -> tuple[bytes, dict[str, Any], bool]:
    """Return what comes of an output, then the document of the result, and whether the result says it has an output."""
    received = bytearray()
    while True:
        kind, of, payload = channel.frame()
        assert of == stream
        if kind == FrameType.RESULT:
            document, has_output, size = frames.parse_result(payload)
            assert size == (nbytes if has_output else 0)
            return bytes(received), document, has_output
        assert kind == FrameType.DATA
        received += payload


def _state(host: Host, key: str) -> str:
    return str(host.json("GET", f"/v1/jobs?key={key}")["jobs"][0]["state"])


# -- the whole of it ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nbytes", [WINDOW, WINDOW + 1, 5_000_001, NBYTES + 3])
def test_arrays_arrive_whole(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    came: list[int] = []
    receive = ClientChannel._receive_early
    monkeypatch.setattr(
        ClientChannel,
        "_receive_early",
        lambda self, stream, size, *rest: (came.append(size), receive(self, stream, size, *rest))[1],
    )
    data = _random(nbytes)
    with _remote(daemon) as card:
        for shape in ((nbytes,), (1, nbytes)):
            target = np.zeros(shape, np.uint8)
            info: dict[str, Any] = {}
            assert card.process(data, target, info_dict=info) is target
            assert np.array_equal(target.reshape(-1), data)
            assert info["bytes_out"] == nbytes
            assert info["bytes_copied"] == 0
        strided = np.zeros(2 * nbytes, np.uint8)[::2]
        card.process(data, strided)
        assert np.array_equal(strided, data)
        assert np.array_equal(card.process(data), data)
        assert len(card._host._channels._idle) == 1
        assert card._host.json("GET", "/v1/jobs")["jobs"][-1]["state"] == "done"
    assert came == [nbytes] * (2 if nbytes > NBYTES else min(len(came), 2 if nbytes > WINDOW else 0))


def test_a_destination_that_is_the_source_is_not_received_early(slow: RunningDaemon) -> None:
    """An attempt after a lost connection sends the source again: it must be as it was."""
    with _remote(slow) as card, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ClientChannel, "_receive_early", lambda *_: pytest.fail("it was"))
        array = _random(NBYTES)
        expected = array.copy()
        assert card.process(array, array) is array
        assert np.array_equal(array, expected)


def test_outputs_are_freed_once_they_were_received(tmp_path: Path) -> None:
    """The memory of so many outputs would be refused."""
    with running(tmp_path, memory_limit=4 * NBYTES) as daemon:
        data, target = _random(NBYTES), np.zeros(NBYTES, np.uint8)
        with _remote(daemon) as card:
            for _ in range(8):
                target[:] = 0
                card.process(data, target, timeout=30)
                assert np.array_equal(target, data)


def test_data_comes_before_the_job_has_ended(slow: RunningDaemon) -> None:
    data, token = _random(NBYTES), slow.token()
    with _session(slow, token) as (host, session), RawChannel(slow, token) as channel:
        _send(channel, session, data, key="early")
        assert _announced(channel) == NBYTES
        channel.send(frames.credit_frame(1, NBYTES))
        first = _piece(channel)
        assert _state(host, "early") == "running"
        rest, document, has_output = _rest(channel, NBYTES)
        assert first + rest == data.tobytes()
        assert (document["state"], has_output) == ("done", True)
        assert _state(host, "early") == "done"  # the journal has it before the client
        channel.send(frames.release_frame(1))
        _send(channel, session, data, key="early", stream=2)  # the same job: it ran once
        kind, _, payload = channel.frame()
        assert kind == FrameType.RESULT
        assert frames.parse_result(payload).document["id"] == document["id"]


def test_the_same_key_gives_the_whole_output_again(slow: RunningDaemon) -> None:
    data, token = _random(NBYTES), slow.token()
    with _session(slow, token) as (host, session):
        with RawChannel(slow, token) as channel:
            _send(channel, session, data, key="again")
            _announced(channel)
            channel.send(frames.credit_frame(1, 9 * MIB))
            first = _piece(channel)
        with RawChannel(slow, token) as channel:
            _send(channel, session, data, key="again")
            assert channel.error()[:2] == (1, 409)  # it runs on, although its client has gone
            while _state(host, "again") == "running":
                time.sleep(0.05)
            _send(channel, session, data, key="again", stream=2)
            kind, stream, payload = channel.frame()
            assert (kind, stream) == (FrameType.RESULT, 2)
            assert frames.parse_result(payload)[1:] == (True, NBYTES)
            channel.send(frames.credit_frame(2, NBYTES))
            received = bytearray()
            while len(received) < NBYTES:
                received += _piece(channel, 2)
        assert received == data.tobytes()
        assert received.startswith(first)
        assert len(host.json("GET", "/v1/jobs?key=again")["jobs"]) == 1


def test_a_client_whose_connection_breaks_gets_the_whole_output(
    slow: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, target = _random(NBYTES), np.zeros(NBYTES, np.uint8)
    broken: list[int] = []
    fill = ClientChannel._fill

    def once(self: ClientChannel, out: memoryview) -> int:
        if len(broken) == 2:
            return fill(self, out)
        broken.append(len(out))
        socket.socket.shutdown(self.connection._sock, socket.SHUT_RDWR)
        raise ConnectionError("cut")

    monkeypatch.setattr(ClientChannel, "_fill", once)
    with _remote(slow) as card:
        card.process(data[:3])  # a channel is open
        card.process(data, target)
        assert np.array_equal(target, data)
        assert len(card._host.json("GET", "/v1/jobs")["jobs"]) >= 2
    assert broken


# -- jobs that fail ----------------------------------------------------------------------------------------------------
def test_a_card_that_fails_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _card(monkeypatch, "compute_bandwidth=32MiB,fail_run=3")
    data, target = _random(NBYTES), np.zeros(NBYTES, np.uint8)
    came: list[int] = []
    fill = ClientChannel._fill
    monkeypatch.setattr(ClientChannel, "_fill", lambda self, out: (came.append(len(out)), fill(self, out))[1])
    with running(tmp_path) as daemon, _remote(daemon) as card:
        with pytest.raises(AcceleratorException):
            card.process(data, target)
        assert 0 < sum(came) < NBYTES
        assert len(card._host._channels._idle) == 1  # the channel is as good as before
        assert card.process(data, target) is target
        assert np.array_equal(target, data)
        assert len(card._host._channels._idle) == 1


def test_a_card_that_hangs_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _card(monkeypatch, "hang_run=3")
    data, target = _random(NBYTES), np.zeros(NBYTES, np.uint8)
    with running(tmp_path) as daemon, _remote(daemon) as card:
        began = time.monotonic()
        with pytest.raises(RunTimeout):
            card.process(data, target, timeout=2)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("granted", [0, 1, NBYTES])
def test_a_job_that_is_cancelled_midway(slow: RunningDaemon, granted: int) -> None:
    data, token, key = _random(NBYTES), slow.token(), f"cancel-{granted}"
    with _session(slow, token) as (host, session), RawChannel(slow, token) as channel:
        _send(channel, session, data, key=key)
        assert _announced(channel) == NBYTES
        if granted:
            channel.send(frames.credit_frame(1, granted))
            assert data.tobytes().startswith(_piece(channel))
        host.json("DELETE", f"/v1/jobs/{host.json('GET', f'/v1/jobs?key={key}')['jobs'][0]['id']}")
        _, document, has_output = _rest(channel, NBYTES)
        assert (document["state"], has_output) == ("cancelled", False)
        if granted < NBYTES:
            channel.send(frames.credit_frame(1, NBYTES - granted))  # as a client that has not read the result
        channel.job(2, session, {"src": {"body": True, "array": {"dtype": "|u1", "shape": [3]}}}, b"abc")
        assert channel.result()[::2] == (2, b"abc")
        channel.send(frames.credit_frame(1, 1))
        assert channel.error() == (0, 400, "CREDIT on stream 1, which has no output under way")


def test_a_daemon_that_is_killed_midway_knows_that_the_job_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(monkeypatch, "compute_bandwidth=16MiB")
    data = _random(NBYTES)
    with running(tmp_path) as daemon:
        token = daemon.token()
        with contextlib.closing(daemon.host(token)) as host:
            session = str(host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"])
            with RawChannel(daemon, token) as channel:
                _send(channel, session, data, key="killed")
                _announced(channel)
                channel.send(frames.credit_frame(1, NBYTES))
                _piece(channel)
                daemon.stop(signal.SIGKILL)
                with pytest.raises((EOFError, ConnectionError, frames.FrameError, AssertionError)):
                    _rest(channel, NBYTES)
            daemon.start()
            assert _state(host, "killed") == "interrupted"


# -- peers that do not keep up -----------------------------------------------------------------------------------------
def test_no_credit_ever(slow: RunningDaemon) -> None:
    token = slow.token()
    with _session(slow, token) as (host, session), RawChannel(slow, token) as channel:
        _send(channel, session, _random(NBYTES), key="no-credit")
        _announced(channel)
        assert channel.error() == (0, 408, "the channel was closed: nothing has moved for 2 s")
        assert channel.is_closed()
        while _state(host, "no-credit") == "running":
            time.sleep(0.05)
        assert _state(host, "no-credit") == "done"


def test_credit_of_one_byte_at_a_time(slow: RunningDaemon) -> None:
    data, token = _random(NBYTES), slow.token()
    with _session(slow, token) as (_, session), RawChannel(slow, token) as channel:
        _send(channel, session, data)
        _announced(channel)
        received = b""
        for _ in range(50):
            channel.send(frames.credit_frame(1, 1))
            piece = _piece(channel)
            assert len(piece) == 1
            received += piece
        channel.send(*(frames.credit_frame(1, 1) for _ in range(1000)), frames.credit_frame(1, NBYTES - 1050))
        rest, document, _ = _rest(channel, NBYTES)
        assert received + rest == data.tobytes()
        assert document["state"] == "done"


@pytest.mark.parametrize("flags", [0, EARLY])
def test_outputs_of_cut_connections_are_freed_at_once(daemon: RunningDaemon, flags: int) -> None:
    """Not when the garbage is collected: until then they would not be counted, and the host's memory would be full."""
    data, token = _random(NBYTES), daemon.token()

    def cut(host: Host, session: str, number: int) -> None:
        key = f"cut-{flags}-{number}"
        with RawChannel(daemon, token) as channel:
            _send(channel, session, data, flags=flags, key=key)
            assert channel.frame()[0] == (FrameType.OUTPUT if flags else FrameType.RESULT)
            channel.send(frames.credit_frame(1, NBYTES))
            _piece(channel)
        while _state(host, key) == "running":
            time.sleep(0.01)
        host.json("DELETE", f"/v1/jobs/{host.json('GET', f'/v1/jobs?key={key}')['jobs'][0]['id']}/output")

    with _session(daemon, token) as (host, session):
        for number in range(4):
            cut(host, session, number)
        before = daemon.resident()
        for number in range(4, 16):
            cut(host, session, number)
        assert daemon.resident() - before < 6 * NBYTES


def test_more_credit_than_the_output_has(slow: RunningDaemon) -> None:
    token = slow.token()
    with _session(slow, token) as (_, session), RawChannel(slow, token) as channel:
        _send(channel, session, _random(NBYTES))
        _announced(channel)
        channel.send(frames.credit_frame(1, NBYTES + 1))
        assert channel.error() == (0, 400, f"CREDIT of {NBYTES + 1} bytes on stream 1: it waits for {NBYTES}")


def test_who_does_not_read_delays_neither_the_card_nor_others(slow: RunningDaemon) -> None:
    mallory, alice = slow.token("mallory"), slow.token("alice")
    with _session(slow, mallory) as (host, theirs), RawChannel(slow, mallory) as unread:
        _send(unread, theirs, _random(NBYTES), key="unread")
        _announced(unread)
        unread.send(frames.credit_frame(1, NBYTES))
        with _session(slow, alice) as (_, own), RawChannel(slow, alice) as channel:
            jobs = 0
            while _state(host, "unread") == "running":
                jobs += 1
                began = time.monotonic()
                channel.job(jobs, own, {"src": {"body": True, "array": {"dtype": "|u1", "shape": [3]}}}, b"abc")
                assert channel.result()[::2] == (jobs, b"abc")
                assert time.monotonic() - began < 5
        assert jobs
        assert _state(host, "unread") == "done"  # the card did not wait for its reader
        with contextlib.suppress(ConnectionError, EOFError, AssertionError, frames.FrameError):
            time.sleep(4)  # nobody reads: the connection is closed
            _rest(unread, NBYTES)
            pytest.fail("the connection was kept")


# -- versions ----------------------------------------------------------------------------------------------------------
def test_an_old_client_and_this_host(slow: RunningDaemon) -> None:
    data, token = _random(NBYTES), slow.token()
    with _session(slow, token) as (_, session), RawChannel(slow, token, protocol=_OLD.name) as channel:
        _send(channel, session, data, flags=0)
        kind, _, payload = channel.frame()
        assert (kind, frames.parse_result(payload)[1:]) == (FrameType.RESULT, (True, NBYTES))
        channel.send(frames.credit_frame(1, WINDOW))
        assert data.tobytes().startswith(_piece(channel))
    with RawChannel(slow, token, protocol=_OLD.name) as channel:
        channel.send(frames.job_frame(1, "k", "0" * 32, "{}", 0, EARLY))
        assert channel.error() == (0, 400, "JOB: flags 2 and reserved field 0: expected 0 to 1, and 0")


def test_a_client_that_does_not_ask_is_sent_the_result_first(slow: RunningDaemon) -> None:
    token = slow.token()
    with _session(slow, token) as (_, session), RawChannel(slow, token) as channel:
        _send(channel, session, _random(NBYTES), flags=0)
        assert channel.frame()[0] == FrameType.RESULT


def test_this_client_and_an_old_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "chosen_protocol", lambda offered: _OLD if _OLD.name in offered else None)
    settings = HostSettings(state_directory=tmp_path, audit_log=tmp_path / "audit")
    listener = Listener(host="127.0.0.1")
    data, target = _random(NBYTES), np.zeros(NBYTES, np.uint8)
    with in_thread(lambda: Daemon(settings, [listener], config={})):
        host = Host(
            parse_address(f"http://127.0.0.1:{listener.port}"), TokenStore(tmp_path / "tokens.json").create("alice")
        )
        with RemoteAccelerator(host, {"accelerator": "loopback"}) as card:
            card._pool = None
            card.process(data, target)
            assert np.array_equal(target, data)
            assert [one._protocol.name for one in host._channels._idle] == [_OLD.name]


# -- hosts that break the protocol -------------------------------------------------------------------------------------
_SIZE = 2 * MIB
_DONE = frames.result_frame(1, '{"state": "done"}', _SIZE) or b""
_DATA = frames.data_header(1, _SIZE) + bytes(_SIZE)


def _serving(protocol: str, said: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Serve one channel: answer its first job with these bytes."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\n\r\n".encode())
                heard.append(connection.recv(4096))
                with contextlib.suppress(ConnectionError):
                    connection.sendall(said)
                    while connection.recv(1 << 16):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(20)
        assert not thread.is_alive()  # the client has closed the connection


served = contextlib.contextmanager(_serving)


def _ask(port: int, out: memoryview, call: Callable[[], None] = lambda: None) -> Any:
    with contextlib.closing(Host(parse_address(f"http://127.0.0.1:{port}"), None)) as host:
        reply = host.submit("k", "s", "{}", list, 0, call, 0, out)
        assert reply is not None
        with reply:
            document, has_output = reply.job()
            if has_output:
                reply.readinto(out)
            return document


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (frames.output_frame(1, _SIZE + 1), f"OUTPUT of {_SIZE + 1} bytes: expected {_SIZE}"),
        (frames.output_frame(1, _SIZE - 1), f"OUTPUT of {_SIZE - 1} bytes: expected {_SIZE}"),
        (frames.output_frame(2, _SIZE), "a frame of stream 2: expected 1"),
        (frames.output_frame(1, _SIZE) * 2, "a frame of type 8, stream 1: expected DATA or RESULT"),
        (frames.output_frame(1, _SIZE) + _DATA + frames.output_frame(1, 5), "a frame of type 8, stream 1"),
        (frames.output_frame(1, _SIZE) + _DATA + _DATA, f"DATA of {_SIZE} bytes: 0 of the output are left"),
        (frames.output_frame(1, _SIZE) + frames.data_header(3, 1) + b"x", "a frame of type 2, stream 3"),
        (frames.output_frame(1, _SIZE) + _DONE, f"RESULT with {_SIZE} bytes: 0 of an output of {_SIZE}"),
        (
            frames.output_frame(1, _SIZE) + _DATA + (frames.result_frame(1, '{"state": "done"}', 5) or b""),
            f"RESULT with 5 bytes: {_SIZE} of an output of {_SIZE}",
        ),
        (
            frames.output_frame(1, _SIZE) + _DATA + (frames.result_frame(1, '{"state": "done"}', None) or b""),
            f"RESULT with 0 bytes: {_SIZE} of an output",
        ),
        (_DATA, "DATA on stream 1 came before its result"),
    ],
)
def test_the_client_refuses_what_makes_no_sense(said: bytes, line: str) -> None:
    with served("apyfal-channel/2", said) as (port, _), pytest.raises(HostError, match=line):
        _ask(port, memoryview(bytearray(_SIZE)))


def test_the_client_takes_output_and_result() -> None:
    content = np.random.default_rng(5).bytes(_SIZE)
    said = frames.output_frame(1, _SIZE) + frames.ping_frame() + frames.data_header(1, 7) + content[:7]
    said += frames.ping_frame() + frames.data_header(1, _SIZE - 7) + content[7:] + frames.ping_frame() + _DONE
    out, alive = bytearray(_SIZE), []
    with served("apyfal-channel/2", said) as (port, heard):
        assert _ask(port, memoryview(out), lambda: alive.append(1)) == {"state": "done"}
    assert out == content
    assert len(alive) == 3
    assert frames.parse_header(heard[0], frames.FROM_CLIENT).flags == EARLY


def test_the_client_does_not_ask_an_old_host_for_it() -> None:
    said = (frames.result_frame(1, '{"state": "failed"}', None) or b"") + frames.ping_frame()
    with served("apyfal-channel/1", said) as (port, heard):
        assert _ask(port, memoryview(bytearray(_SIZE))) == {"state": "failed"}
    assert frames.parse_header(heard[0], frames.FROM_CLIENT).flags == 0
    said = frames.output_frame(1, _SIZE)
    with served("apyfal-channel/1", said) as (port, _), pytest.raises(HostError, match="a frame of type 8"):
        _ask(port, memoryview(bytearray(_SIZE)))


@pytest.mark.parametrize("name", ["apyfal-channel/3", "websocket", ""])
def test_the_client_refuses_a_protocol_that_it_did_not_offer(name: str) -> None:
    with served(name, b"") as (port, _), pytest.raises(HostError, match=f"it speaks '{name}': expected one of"):
        _ask(port, memoryview(bytearray(_SIZE)))
