"""What other accounts of the daemon's machine get: no token, no data, no descriptor, whoever listens or looks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import ROOT, RunningDaemon, running

import apyfal
from apyfal.exceptions import AuthenticationError, HostError
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address

NOBODY = 65534


# -- a squatter --------------------------------------------------------------------------------------------------------
class Squatter:
    """Listens where the daemon should, writes down what comes, and answers, or passes on to the daemon."""

    def __init__(self, family: int, address: Any, answer: bytes | None, daemon: int | None) -> None:
        self.seen = b""
        self._answer = answer
        self._daemon = daemon
        self._socket = socket.socket(family)
        self._socket.bind(address)
        self._socket.listen(16)
        self.port = 0 if family == socket.AF_UNIX else self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._talk(self._socket.accept()[0])

    def _talk(self, opened: socket.socket) -> None:
        with opened, contextlib.suppress(OSError):
            opened.settimeout(2)
            if self._daemon is None:
                self._answer_all(opened)
                return
            with socket.create_connection(("127.0.0.1", self._daemon)) as onward:
                while data := opened.recv(65536):
                    self.seen += data
                    onward.sendall(data)
                    opened.sendall(onward.recv(65536))

    def _answer_all(self, opened: socket.socket) -> None:
        while data := opened.recv(65536):
            self.seen += data
            if self._answer is not None:
                opened.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _ok(**headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n{lines}\r\n"
    return head.encode() + b'{"state": "ok"}'


ANSWERS = {
    "silence": None,
    "no proof": _ok(),
    "a wrong proof": _ok(Apyfal_Proof="0" * 64),
    "an empty proof": _ok(Apyfal_Proof=""),
    "yes": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}",
    "ask for it": b"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\r\n{}",
    "elsewhere": b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/health\r\nContent-Length: 0\r\n\r\n",
    "two answers": _ok(Apyfal_Proof="0" * 64) * 2,
    "rubbish": b"\0" * 100,
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + _ok(),
}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_squatter_learns_no_token(answer: str, kind: str, tmp_path: Path, daemon: RunningDaemon) -> None:
    token = daemon.token("alice")
    where = str(tmp_path / "s") if kind == "unix" else ("127.0.0.1", 0)
    squatter = Squatter(socket.AF_UNIX if kind == "unix" else socket.AF_INET, where, ANSWERS[answer], None)
    address = f"unix://{where}" if kind == "unix" else f"http://127.0.0.1:{squatter.port}"
    host = Host(parse_address(address), token)
    if answer == "silence":
        threading.Timer(0.5, squatter.close).start()
    with pytest.raises((HostError, OSError, AuthenticationError)):
        host.json("GET", "/v1/user")
    host.close()
    if answer != "silence":
        squatter.close()
    assert squatter.seen.startswith(b"GET /health ")
    assert token.split("_", 2)[2].encode() not in squatter.seen
    assert b"Authorization" not in squatter.seen


@pytest.mark.parametrize("bound", ["127.0.0.1", "127.0.0.2", "::1", "unix"])
def test_a_squatter_who_passes_the_question_on_learns_no_token(
    bound: str, tmp_path: Path, daemon: RunningDaemon
) -> None:
    """Another port, another address with the daemon's own port, a path."""
    token = daemon.token("alice")
    if bound == "unix":
        squatter = Squatter(socket.AF_UNIX, str(tmp_path / "s"), None, daemon.port)
        address = f"unix://{tmp_path}/s"
    else:
        family = socket.AF_INET6 if ":" in bound else socket.AF_INET
        squatter = Squatter(family, (bound, 0 if bound == "127.0.0.1" else daemon.port), None, daemon.port)
        shown = f"[{bound}]" if ":" in bound else bound
        address = f"http://{shown}:{squatter.port}"
    host = Host(parse_address(address), token)
    with pytest.raises((HostError, AuthenticationError)) as caught:
        host.json("GET", "/v1/user")
    host.close()
    squatter.close()
    assert "passed on" in str(caught.value)
    assert token.split("_", 2)[2].encode() not in squatter.seen


def test_the_daemon_is_known_by_its_proof(daemon: RunningDaemon) -> None:
    token = daemon.token("alice")
    for address in (daemon.url, daemon.unix, f"http://localhost:{daemon.port}"):
        host = Host(parse_address(address), token)
        assert host.json("GET", "/v1/user")["user"] == "alice"
        host.close()
    host = Host(parse_address(daemon.url), token[:-3] + "AAA")  # the id of a token, and another secret
    with pytest.raises(HostError, match="was not sent"):
        host.json("GET", "/v1/user")
    host.close()


# -- another account ---------------------------------------------------------------------------------------------------
LOOK = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
found = {}
def attempt(name, call):
    try:
        found[name] = repr(call())
    except OSError as error:
        found[name] = type(error).__name__
paths = json.loads(sys.argv[1])
for path in paths["files"]:
    attempt("read " + path, lambda: open(path, "rb").read(1))
    attempt("write " + path, lambda: open(path, "ab"))
for path in paths["directories"]:
    attempt("list " + path, lambda: os.listdir(path))
    attempt("make in " + path, lambda: open(path + "/x", "xb"))
def connect(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.settimeout(5)
        one.connect(path)
        if kind == socket.SOCK_SEQPACKET:
            one.send(paths["ticket"].encode())
            data, descriptors, _, _ = socket.recv_fds(one, 16, 4)
            return data, descriptors
        one.sendall(b"GET /v1/user HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        return one.recv(4096)[9:12]
attempt("socket", lambda: connect(paths["socket"], socket.SOCK_STREAM))
attempt("memory", lambda: connect(paths["memory"], socket.SOCK_SEQPACKET))
for name in ("fd", "mem", "environ", "maps", "cwd"):
    attempt("proc " + name, lambda: os.listdir(f"/proc/{paths['pid']}/{name}") if name == "fd"
            else open(f"/proc/{paths['pid']}/{name}", "rb").read(1))
print(json.dumps(found))
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def look_as_nobody(paths: dict[str, Any]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(paths)], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
def open_daemon(open_path: Path) -> Iterator[RunningDaemon]:
    """A daemon below directories that everybody may enter, with data of a user in each place."""
    with running(open_path, spool_above=100_000, keep_outputs=600.0) as started:
        yield started


@needs_root
@pytest.mark.parametrize("closed", [True, False], ids=["as made", "with the socket's directory opened"])
def test_another_account_reads_and_writes_nothing(open_daemon: RunningDaemon, closed: bool) -> None:
    daemon = open_daemon
    assert daemon.process is not None
    host = daemon.host(daemon.token("alice"))
    session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
    region = host.json("POST", f"/v1/sessions/{session}/memory", {"nbytes": 8192})
    body = memoryview(bytes(300_000))
    with host.request("PUT", "/v1/storage/object?url=host://written", body=[body], length=len(body)):
        pass
    if not closed:
        (daemon.directory / "run").chmod(0o755)
    state = daemon.state
    files = [str(path) for path in state.rglob("*") if path.is_file()]
    files += [str(daemon.directory / "audit.log"), str(daemon.shared / "written")]
    paths = {
        "files": files, "directories": [str(state), str(daemon.directory / "run"), str(daemon.shared)],
        "socket": str(daemon.directory / "run/host.sock"), "memory": str(daemon.directory / "run/host.memory"),
        "ticket": f"{region['name']} {'0' * 64}", "pid": daemon.process.pid,
    }  # fmt: skip
    assert any("jobs.sqlite" in name for name in files)
    assert any("tokens.json" in name for name in files)
    found = look_as_nobody(paths)
    host.close()
    memory = found.pop("memory")
    assert memory == ("PermissionError" if closed else "(b'no', [])")
    if not closed:  # names of sockets are not secret
        found = {name: what for name, what in found.items() if not name.startswith(f"list {daemon.directory}/run")}
    assert {name: what for name, what in found.items() if what not in ("PermissionError", "FileNotFoundError")} == {}


@needs_root
def test_files_that_outlive_a_daemon_are_its_own(tmp_path: Path) -> None:
    """Outputs that are saved at its end, and a daemon that was killed."""
    with running(tmp_path, keep_outputs=600.0) as daemon:
        host = daemon.host(daemon.token("alice"))
        session = host.json("POST", "/v1/sessions", {"accelerator": "trng"})["id"]
        job = {"parameters": {"nbytes": 1_000_000}}
        assert host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", job)["state"] == "done"
        host.close()
        assert daemon.stop() == 0
        saved = list((daemon.state / "outputs").iterdir())
        assert len(saved) == 1
        daemon.start()
    for path in (daemon.state, *daemon.state.rglob("*")):
        assert not path.stat().st_mode & 0o077, path
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


# Everything is imported before: the interpreter may be where only its owner can read.
SERVE = """
import contextlib, importlib, os, pkgutil, sys, warnings
warnings.simplefilter("ignore")
import aiohttp.web, difflib, encodings.idna, prometheus_client, sqlite3, apyfal
for module in pkgutil.walk_packages(apyfal.__path__, "apyfal."):
    if module.name not in ("apyfal.__main__", "apyfal.testing") and not module.name.startswith("apyfal.testing."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
from apyfal.host.protocol import tls
from apyfal.cli import main
import tempfile
with tempfile.TemporaryDirectory() as directory:  # what it imports on first use
    import pathlib
    tls.ensure_certificate(pathlib.Path(directory), ["localhost"])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(0)
sys.exit(main(sys.argv[1:]))
"""


@needs_root
def test_a_daemon_of_an_unprivileged_user_with_a_careless_umask(open_path: Path) -> None:
    """It works, its files are its own all the same, and root's client over its socket needs a token as anybody."""
    home = open_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}

    def command(*words: str) -> list[str]:
        return [sys.executable, "-c", SERVE, *words]

    made = subprocess.run(
        command("token", "create", "alice"), env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    with subprocess.Popen(
        command("serve", "--listen", "127.0.0.1:0"), env=environment, cwd=home, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as daemon:  # fmt: skip
        assert daemon.stdout is not None
        try:
            lines = [daemon.stdout.readline().removeprefix("apyfal host: ").strip() for _ in range(2)]
            unix, url = sorted(lines, key=lambda line: line.startswith("http"))
            with apyfal.Accelerator("loopback", host_ip=url, token=token) as loopback:
                assert bytes(loopback.process(b"data")) == b"data"
                large = np.arange(300_000, dtype=np.uint8)
                np.testing.assert_array_equal(loopback.process(large), large)
            with pytest.raises(AuthenticationError, match="token is needed"):
                apyfal.Accelerator("loopback", host_ip=unix)
            with apyfal.Accelerator("loopback", host_ip=unix, token=token) as loopback:
                assert bytes(loopback.process(b"data")) == b"data"
            for path in (home / ".local/state/apyfal").rglob("*"):
                if not stat.S_ISSOCK(path.lstat().st_mode):
                    assert not path.stat().st_mode & 0o077, path
            assert stat.S_IMODE((home / ".local/state/apyfal").stat().st_mode) == 0o700
        finally:
            daemon.terminate()
        assert daemon.wait(30) == 0
