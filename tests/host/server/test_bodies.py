"""Large bodies: received at their final address over every kind of connection, and refused before they are sent."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, in_thread, running

from apyfal.exceptions import AcceleratorException, AuthenticationError
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import HostAddress
from apyfal.host.protocol.messages import JOB_HEADER, KEY_HEADER
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings

NBYTES = 3_000_001


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon whose patience, memory and connections are soon used up."""
    limits = {"stall_timeout": 1.0, "max_connections": 8, "max_body": 10_000_000, "memory_limit": 10_000_000}
    with running(tmp_path_factory.mktemp("small"), **limits) as started:
        yield started


@pytest.fixture(params=["tcp", "unix", "tls"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A client of a daemon, over each kind of connection."""
    state = tmp_path / "state"
    listener, address = Listener(host="127.0.0.1"), HostAddress("127.0.0.1", secure=False)
    token: str | None = TokenStore(state / "tokens.json").create("alice")
    if request.param == "unix":
        listener, token = Listener(unix=tmp_path / "run" / "host.sock"), None
        address = HostAddress(unix=str(listener.unix), secure=False)
    elif request.param == "tls":
        certificate, key = tls.ensure_certificate(state, ["127.0.0.1"])
        listener = Listener(host="127.0.0.1", tls=tls.server_context(certificate, key))
        address = HostAddress("127.0.0.1", fingerprint=tls.fingerprint_of(certificate))
    settings = HostSettings(authorized_host_dirs=(str(tmp_path),), state_directory=state, audit_log=tmp_path / "audit")
    with in_thread(lambda: Daemon(settings, [listener], config={})) as daemon:
        port = daemon.ports[0]
        with contextlib.closing(
            Host(HostAddress(address.host, port, address.unix, address.secure, address.fingerprint), token)
        ) as opened:
            yield opened


def memory_in_use(daemon: RunningDaemon) -> float:
    host = daemon.host(daemon.token("root", "admin"))
    try:
        with host.request("GET", "/metrics") as answer:
            text = b"".join(answer.lines()).decode()
    finally:
        host.close()
    return float(text.split("\napyfal_memory_bytes ")[1].split()[0])


def test_arrays_arrive_whole_and_the_connection_stays(host: Host) -> None:
    rng = np.random.default_rng(5)
    with RemoteAccelerator(host, {"accelerator": "loopback"}) as loopback:
        loopback._pool = None  # the socket is what is tested
        used = set()
        for _ in range(3):
            data = rng.integers(0, 256, NBYTES, np.uint8)
            np.testing.assert_array_equal(loopback.process(data), data)
            assert bytes(loopback.process(b"small")) == b"small"
            ((kept,),) = host._idle._idle.values()
            used.add(id(kept))
        assert len(used) == 1, "one connection served all of it"


def test_nothing_is_sent_to_a_host_that_does_not_want_it(small: RunningDaemon) -> None:
    sent = []

    def body() -> Iterator[memoryview]:
        sent.append(True)
        yield memoryview(bytes(NBYTES))

    stranger, alice = small.host("apf_0_wrong"), small.host(small.token())
    with pytest.raises(AuthenticationError):
        stranger.request("PUT", "/v1/storage/object?url=host://x", body=body(), length=1 << 40)
    with pytest.raises(Refused) as caught:
        alice.request("PUT", "/v1/storage/object?url=host://x", body=body(), length=1 << 40)
    assert caught.value.status == 413
    assert not sent
    stranger.close()
    alice.close()


def head(daemon: RunningDaemon, length: int, expect: bool = True) -> bytes:
    lines = ["PUT /v1/storage/object?url=host://body HTTP/1.1", "Host: x", f"Content-Length: {length}"]
    lines += [f"Authorization: Bearer {daemon.token('alice', 'storage')}"]
    return "\r\n".join([*lines, *(["Expect: 100-continue"] if expect else []), "", ""]).encode()


def test_what_follows_a_body_is_the_next_request(small: RunningDaemon) -> None:
    body = np.random.default_rng(6).bytes(NBYTES)
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(head(small, NBYTES))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = b""
        while piece := connection.recv(65536):
            answers += piece
    first, second = answers.split(b"HTTP/1.1 200 OK")[1:]
    assert json.loads(first.split(b"\r\n\r\n")[1])["size"] == NBYTES
    assert json.loads(second.split(b"\r\n\r\n")[1]) == {"state": "ok"}
    assert (small.shared / "body").read_bytes() == body


@pytest.mark.parametrize("end", ["closes", "stalls"])
def test_a_body_that_does_not_come_leaves_nothing(small: RunningDaemon, end: str) -> None:
    (small.shared / "body").unlink(missing_ok=True)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(head(small, NBYTES))
        connection.recv(100)
        connection.sendall(bytes(1_000_000))
        if end == "stalls":
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
            assert time.monotonic() - started < 10
    while memory_in_use(small) > 0:
        assert time.monotonic() - started < 10
        time.sleep(0.05)
    assert not (small.shared / "body").exists()


def test_bodies_one_after_the_other_hold_one_connection(small: RunningDaemon) -> None:
    host = small.host(small.token("alice", "storage"))
    data = memoryview(bytes(1 << 20))
    for number in range(20):  # more than the connections that may be open
        with host.request("PUT", f"/v1/storage/object?url=host://{number}", body=[data], length=len(data)) as answer:
            assert answer.json()["size"] == len(data)
    assert len(host._idle) == 1
    host.close()
    with contextlib.closing(small.host(None)) as another:
        assert another.json("GET", "/health") == {"state": "ok"}


def test_errors_of_a_job_with_a_large_body_are_its_own(small: RunningDaemon) -> None:
    with RemoteAccelerator(small.host(small.token()), {"accelerator": "gunzip"}) as gunzip:
        gunzip._pool = None
        for _ in range(2):
            with pytest.raises(AcceleratorException, match="gzip"):
                gunzip.process(np.zeros(NBYTES, np.uint8))


@pytest.mark.parametrize("is_cut", [False, True], ids=["body", "cut output"])
def test_memory_is_free_when_its_job_is_forgotten(tmp_path: Path, is_cut: bool) -> None:
    """Timers that were cancelled stay for a minute, with their request's context; errors until garbage is collected."""
    nbytes = 8 << 20
    body = np.ones(nbytes, np.uint8)
    job = {"src": {"body": True, "array": {"dtype": "|u1", "shape": [nbytes]}}}
    with running(tmp_path) as daemon, contextlib.closing(daemon.host(daemon.token())) as host:
        session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]

        def run(number: int) -> None:
            headers = {
                KEY_HEADER: f"k{number}",
                JOB_HEADER: json.dumps(job),
                "Content-Type": "application/octet-stream",
            }
            target = f"/v1/sessions/{session}/jobs?wait=30"
            with host.request("POST", target, headers=headers, body=[body.data], length=nbytes) as response:
                document = response.json()
            assert document["state"] == "done"
            if is_cut:
                with socket.create_connection(("127.0.0.1", daemon.port)) as cut:
                    lines = [f"GET /v1/jobs/{document['id']} HTTP/1.1", "Host: x", "Accept: application/octet-stream"]
                    cut.sendall("\r\n".join([*lines, f"Authorization: Bearer {host._token}", "\r\n"]).encode())
                    assert cut.recv(100).startswith(b"HTTP/1.1 200 ")
                time.sleep(0.05)
            host.json("DELETE", f"/v1/jobs/{document['id']}/output")

        for number in range(4):
            run(number)
        before = daemon.resident()
        for number in range(4, 20):
            run(number)
        assert daemon.resident() - before < 6 * nbytes
