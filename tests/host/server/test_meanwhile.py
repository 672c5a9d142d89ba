"""What happens while a request waits for its body or for a thread: sessions close, others ask for the same."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, in_thread, running

from apyfal.exceptions import AcceleratorException
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy import limits
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings

MOUNT = {"provider": "s3", "anonymous": True, "region": "us-east-1", "root": "b"}
JOB = {"src": {"body": True, "array": {"dtype": "|u1", "shape": [6]}}}
#: method, path below the session, headers and body of what has to be found closed when its body is complete
LATE: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "memory": ("POST", "/memory", {"Content-Type": "application/json"}, b'{"nbytes": 4096}'),
    "mount": ("PUT", "/mounts/mine", {"Content-Type": "application/json"}, json.dumps(MOUNT).encode()),
}


def open_descriptors(daemon: RunningDaemon) -> int:
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def closed_amid(daemon: RunningDaemon, token: str, what: str) -> int:
    """Send a request whose session is closed before its body is complete; its status."""
    method, path, headers, body = LATE[what]
    host = daemon.host(token)
    session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    connection.putrequest(method, f"/v1/sessions/{session}{path}")
    for name, value in {"Authorization": f"Bearer {token}", "Content-Length": str(len(body)), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:3])
    time.sleep(0.05)
    host.json("DELETE", f"/v1/sessions/{session}")
    connection.send(body[3:])
    status = connection.getresponse().status
    connection.close()
    host.close()
    return status


@pytest.mark.parametrize("what", LATE)
def test_nothing_is_made_for_a_session_that_was_closed(what: str, tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        token = daemon.token()
        assert closed_amid(daemon, token, what) == 404
        before = open_descriptors(daemon)
        assert [closed_amid(daemon, token, what) for _ in range(10)] == [404] * 10
        assert open_descriptors(daemon) <= before + 2


def test_mounts_asked_for_at_once_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        host = daemon.host(daemon.token())
        session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]

        def put(number: int) -> bool:
            with contextlib.suppress(AcceleratorException):
                host.json("PUT", f"/v1/sessions/{session}/mounts/m{number}", MOUNT)
                return True
            return False

        with ThreadPoolExecutor(16) as pool:
            made = sum(pool.map(put, range(64)))
        listed = host.json("GET", "/v1/sessions")["sessions"][0]["mounts"]
        assert (made, len(listed)) == (limits.MOUNTS_OF_SESSION, limits.MOUNTS_OF_SESSION)
        host.close()


def test_a_job_for_a_session_that_was_closed_does_not_run(tmp_path: Path) -> None:
    with running(tmp_path, counting=True) as daemon:
        token = daemon.token()
        host = daemon.host(token)
        session = host.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"]
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        connection.putrequest("POST", f"/v1/sessions/{session}/jobs?wait=10")
        fields = {"Authorization": f"Bearer {token}", "Content-Length": "6"}
        for name, value in {**fields, "Apyfal-Job": json.dumps({**JOB, "parameters": {"number": 1}})}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(b"abc")
        time.sleep(0.05)
        host.json("DELETE", f"/v1/sessions/{session}")
        time.sleep(0.1)
        connection.send(b"def")
        document = json.loads(connection.getresponse().read())
        assert document.get("state") != "done"
        connection.close()
        host.close()
    assert not (tmp_path / "runs.log").exists() or not (tmp_path / "runs.log").read_text()


@pytest.mark.parametrize("what", ["devices", "accelerators", "mounts"])
def test_a_look_at_the_machine_that_hangs_is_its_user_s_own(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor's library may hang while it lists its devices; another user's large array still comes through."""
    may_end = threading.Event()

    def hang(*_: object) -> list[Any]:
        may_end.wait(30)
        return []

    where = {
        "devices": "apyfal.host.server.daemon.devices",
        "accelerators": "apyfal.host.server.daemon.Daemon._accelerators",
        "mounts": "apyfal.host.server.policy.url_policy.UrlPolicy.operator_mounts",
    }[what]
    monkeypatch.setattr(where, hang)
    settings = HostSettings(
        authorized_host_dirs=(str(tmp_path),), state_directory=tmp_path / "state", audit_log=tmp_path / "audit"
    )
    tokens = TokenStore(tmp_path / "state/tokens.json")
    mallory, alice = tokens.create("mallory"), tokens.create("alice")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config={})))
        stack.callback(may_end.set)
        for _ in range(64):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.ports[0])))
            opened.sendall(f"GET /v1/{what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mallory}\r\n\r\n".encode())
        time.sleep(0.5)
        host = Host(parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), alice)
        with RemoteAccelerator(host, {"accelerator": "loopback"}) as loopback:
            data = np.arange(6 << 20, dtype=np.uint8)
            began = time.monotonic()
            np.testing.assert_array_equal(loopback.process(data), data)
            assert time.monotonic() - began < 5
        may_end.set()
