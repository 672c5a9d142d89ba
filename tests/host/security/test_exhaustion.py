"""Each row of the table of limits in docs/security.md: one user, or nobody, spends it; another user's job runs on."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.client
import os
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from host.support.daemon import RunningDaemon, in_thread, running
from host.support.hostile_web import hostile_web

from apyfal.exceptions import AcceleratorException
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import HostAddress
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy import limits
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings

MIB = 1 << 20
#: seconds that a job may take however short it is when all is quiet: the machine that runs the tests has other work
FLOOR = 1.0


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with hostile_web() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def daemon(web: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with little memory and disk."""
    settings: dict[str, Any] = {
        "memory_limit": 64 * MIB, "disk_limit": 32 * MIB, "max_body": 8 * MIB, "spool_above": MIB, "disk_reserve": 0,
        "private_endpoints": [web.removeprefix("http://")], "stop_timeout": 1.0, "stall_timeout": 5.0,
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("daemon"), **settings) as started:
        (started.shared / "t").write_bytes(b"t")
        (started.shared / "bomb.gz").write_bytes(gzip.compress(bytes(200 * MIB), 9))
        for number in range(3):
            (started.shared / f"d{number}").mkdir()
            (started.shared / f"d{number}/f").write_bytes(b"f")
            (started.shared / f"d{number}/up").symlink_to("..")
        yield started


class Mallory:
    """One hostile user with a valid token."""

    def __init__(self, daemon: RunningDaemon, web: str) -> None:
        self.daemon = daemon
        self.web = web
        self.token = daemon.token("mallory")
        self.host = daemon.host(self.token)
        self.stack = contextlib.ExitStack()

    @functools.cache  # noqa: B019  # it lives for one test
    def session(self, accelerator: str) -> str:
        return str(self.host.json("POST", "/v1/sessions", {"accelerator": accelerator})["id"])

    def job(self, accelerator: str, document: dict[str, Any], wait: int = 30) -> dict[str, Any]:
        path = f"/v1/sessions/{self.session(accelerator)}/jobs?wait={wait}"
        answer: dict[str, Any] = self.host.json("POST", path, document)
        return answer

    def leave_open(self, method: str, target: str, body: bytes = b"") -> None:
        """Ask for something and do not read the answer."""
        opened = socket.create_connection(("127.0.0.1", self.daemon.port))
        self.stack.callback(opened.close)
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
        opened.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def close(self) -> None:
        for job in self.host.json("GET", "/v1/jobs")["jobs"]:
            with contextlib.suppress(AcceleratorException):
                self.host.json("DELETE", f"/v1/jobs/{job['id']}")
            with contextlib.suppress(AcceleratorException):
                self.host.json("DELETE", f"/v1/jobs/{job['id']}/output")
        self.stack.close()
        for session in self.host.json("GET", "/v1/sessions")["sessions"]:
            self.host.json("DELETE", f"/v1/sessions/{session['id']}")
        self.host.close()


@pytest.fixture
def mallory(daemon: RunningDaemon, web: str) -> Iterator[Mallory]:
    hostile = Mallory(daemon, web)
    yield hostile
    hostile.close()


@pytest.fixture
def alice(daemon: RunningDaemon) -> Iterator[Callable[[], float]]:
    """Another user; each call runs a job and a look at a file, and returns the seconds that they took."""
    host = daemon.host(daemon.token("alice"))
    session = host.json("POST", "/v1/sessions", {"accelerator": "trng"})["id"]

    def work() -> float:
        began = time.perf_counter()
        job = host.json("POST", f"/v1/sessions/{session}/jobs?wait=30", {"parameters": {"nbytes": 4096}})
        assert job["state"] == "done"
        assert host.json("GET", "/v1/storage/stat?url=host://t")["size"] == 1
        return time.perf_counter() - began

    yield work
    host.json("DELETE", f"/v1/sessions/{session}")
    host.close()


def resident(daemon: RunningDaemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) << 10


def disk_in_use(daemon: RunningDaemon) -> int:
    """Bytes of all files that the daemon has open below its directory, with or without a name."""
    assert daemon.process is not None
    nbytes = 0
    for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(str(daemon.directory)):
                nbytes += os.stat(link).st_blocks * 512
    return nbytes


def refused(call: Callable[[], Any]) -> str:
    """Call; return what the refusal says, or "" where there was none."""
    try:
        found = call()
    except AcceleratorException as error:
        return str(error)
    except Refused as error:
        return f"{error.status} {error.document}"
    if isinstance(found, dict) and found.get("state") == "failed":
        return str(found["error"]["message"])
    return ""


# -- what one user does ------------------------------------------------------------------------------------------------
def large_array(mallory: Mallory) -> None:
    document = {"src": {"url": "host://t"}, "dst": {"array": {"dtype": "|u1", "shape": [512 * MIB]}}}
    assert "bytes of memory" in refused(lambda: mallory.job("loopback", document))


def bomb_in_memory(mallory: Mallory) -> None:
    assert "bytes of memory" in refused(lambda: mallory.job("gunzip", {"src": {"url": "host://bomb.gz"}}))


def bomb_in_a_file(mallory: Mallory) -> None:
    document = {"src": {"url": "host://bomb.gz"}, "dst": {"data": True}}
    assert "largest" in refused(lambda: mallory.job("gunzip", document))


def bomb_in_a_directory(mallory: Mallory) -> None:
    document = {"src": {"url": "host://bomb.gz"}, "dst": {"url": "host://burst"}}
    assert "largest" in refused(lambda: mallory.job("gunzip", document))
    assert not (mallory.daemon.shared / "burst").exists()


def large_output(mallory: Mallory) -> None:
    assert "bytes of memory" in refused(lambda: mallory.job("trng", {"parameters": {"nbytes": 80 * MIB}}))


def unfetched_outputs(mallory: Mallory) -> None:
    answers = [refused(lambda: mallory.job("trng", {"parameters": {"nbytes": 6 * MIB}})) for _ in range(12)]
    assert answers[0] == ""
    assert "you hold" in answers[-1]


def shared_memory(mallory: Mallory) -> None:
    path = f"/v1/sessions/{mallory.session('loopback')}/memory"
    answers = [refused(lambda: mallory.host.json("POST", path, {"nbytes": 8 * MIB})) for _ in range(6)]
    assert answers[0] == ""
    assert "shared with you" in answers[-1]


def many_pieces_of_shared_memory(mallory: Mallory) -> None:
    path = f"/v1/sessions/{mallory.session('loopback')}/memory"
    answers = [
        refused(lambda: mallory.host.json("POST", path, {"nbytes": 1})) for _ in range(limits.REGIONS_OF_USER + 1)
    ]
    assert answers[0] == ""
    assert "pieces of memory" in answers[-1]


def many_mounts(mallory: Mallory) -> None:
    mount = {"provider": "s3", "anonymous": True, "region": "us-east-1", "endpoint_url": mallory.web}
    path = f"/v1/sessions/{mallory.session('loopback')}/mounts"
    puts = [functools.partial(mallory.host.json, "PUT", f"{path}/m{number}", mount) for number in range(17)]
    answers = [refused(put) for put in puts]
    assert answers[0] == ""
    assert "mounts" in answers[-1]


def stalled_bodies(mallory: Mallory) -> None:
    """Bodies that are promised and do not come: they hold memory and disk until they are given up."""
    for number in range(20):
        mallory.leave_open("PUT", f"/v1/storage/object?url=host://s{number}")
        opened = socket.create_connection(("127.0.0.1", mallory.daemon.port))
        mallory.stack.callback(opened.close)
        head = f"PUT /v1/storage/object?url=host://s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mallory.token}\r\n"
        opened.sendall(f"{head}Content-Length: {8 * MIB}\r\n\r\nx".encode())
    time.sleep(0.5)


def stalled_json(mallory: Mallory) -> None:
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mallory.token}\r\n"
    for _ in range(60):
        opened = socket.create_connection(("127.0.0.1", mallory.daemon.port))
        mallory.stack.callback(opened.close)
        opened.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {MIB}\r\n\r\n{{".encode())
    time.sleep(0.3)


def endless_copy(mallory: Mallory) -> None:
    document = {"src": f"{mallory.web}/endless", "dst": "host://big"}
    said = refused(lambda: mallory.host.json("POST", "/v1/storage/copy", document))
    assert "copies none" in said or "largest" in said
    assert not (mallory.daemon.shared / "big").exists()


def endless_object(mallory: Mallory) -> None:
    target = f"/v1/storage/object?url={mallory.web}/endless"
    assert "largest" in refused(lambda: mallory.host.request("GET", target))


def endless_input(mallory: Mallory) -> None:
    """A job whose input never ends runs for ever, as one that is slow: its own user's workers only."""
    for _ in range(6):
        mallory.job("gunzip", {"src": {"url": f"{mallory.web}/endless"}}, wait=0)


def slow_reads(mallory: Mallory) -> None:
    for number in range(60):
        mallory.leave_open("GET", f"/v1/storage/object?url={mallory.web}/slow{number}")
    time.sleep(0.5)


def slow_jobs(mallory: Mallory) -> None:
    for number in range(8):
        mallory.job("loopback", {"src": {"url": f"{mallory.web}/slow{number}"}}, wait=0)
    time.sleep(0.3)


def stuck_sessions(mallory: Mallory) -> None:
    """Sessions that end while their jobs hang: their threads are nobody else's."""
    for number in range(12):
        session = mallory.host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
        job = {"src": {"url": f"{mallory.web}/slow{number}"}}
        mallory.host.json("POST", f"/v1/sessions/{session}/jobs", job)
        mallory.host.json("DELETE", f"/v1/sessions/{session}")


def retry_later(mallory: Mallory) -> None:
    for number in range(20):
        mallory.leave_open("GET", f"/v1/storage/stat?url={mallory.web}/later{number}")
    time.sleep(0.3)


def circles_of_links(mallory: Mallory) -> None:
    found = mallory.host.json("GET", "/v1/storage/list?url=host://&recursive=true")["entries"]
    assert sorted(entry["path"] for entry in found if "/" in entry["path"]) == ["d0/f", "d1/f", "d2/f"]


def endless_listings(mallory: Mallory) -> None:
    session = mallory.session("loopback")
    for kind in ("listing", "listing-empty", "listing-same"):
        mount = {"provider": "s3", "anonymous": True, "region": "us-east-1", "addressing": "path",
                 "endpoint_url": f"{mallory.web}/{kind}"}  # fmt: skip
        mallory.host.json("PUT", f"/v1/sessions/{session}/mounts/{kind}", mount)
    for kind in ("listing", "listing-empty", "listing-same"):
        mallory.leave_open("GET", f"/v1/storage/list?url={quote(f'{kind}://b/')}&recursive=true&session={session}")
    time.sleep(0.3)


def many_jobs(mallory: Mallory) -> None:
    path = f"/v1/sessions/{mallory.session('loopback')}/jobs"
    document = {"src": {"url": f"{mallory.web}/slow"}}
    answers = [refused(lambda: mallory.host.json("POST", path, document)) for _ in range(limits.MAX_JOBS_OF_USER + 8)]
    assert answers[0] == ""
    assert "as many as a user may have" in answers[-1]


def many_sessions(mallory: Mallory) -> None:
    answers = [
        refused(lambda: mallory.host.json("POST", "/v1/sessions", {"accelerator": "trng"}))
        for _ in range(limits.MAX_SESSIONS_OF_USER + 1)
    ]
    assert answers[0] == ""
    assert "sessions of yours" in answers[-1]


SPENDING = [
    large_array, bomb_in_memory, bomb_in_a_file, bomb_in_a_directory, large_output, unfetched_outputs, shared_memory,
    many_pieces_of_shared_memory, many_mounts, stalled_bodies, stalled_json, endless_copy, endless_object,
    endless_input, slow_reads, slow_jobs, stuck_sessions, retry_later, circles_of_links, endless_listings, many_jobs,
    many_sessions,
]  # fmt: skip


@pytest.mark.parametrize("spend", SPENDING)
def test_another_user_s_job_runs_on(
    spend: Callable[[Mallory], None], mallory: Mallory, alice: Callable[[], float], daemon: RunningDaemon
) -> None:
    alice()
    quiet = max(alice() for _ in range(3))
    memory = resident(daemon)
    spend(mallory)
    loaded = max(alice() for _ in range(3))
    assert loaded <= max(2 * quiet, FLOOR), f"{loaded:.2f} s, quiet {quiet:.3f} s"
    # the limit, and what Python and its threads take beside it
    assert resident(daemon) - memory <= 64 * MIB + 100 * MIB
    assert disk_in_use(daemon) <= 32 * MIB + 32 * MIB


def test_what_a_client_asked_for_ends_when_it_leaves(mallory: Mallory, daemon: RunningDaemon) -> None:
    """The user's threads are free again, whatever the store does."""
    for spend in (slow_reads, endless_listings, retry_later):
        spend(mallory)
        mallory.stack.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            began = time.monotonic()
            assert mallory.host.json("GET", "/v1/storage/stat?url=host://t")["size"] == 1
            if time.monotonic() - began < 0.5:
                break
        assert time.monotonic() < deadline, spend.__name__


# -- what nobody does --------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def with_tls(home: Path, **settings: Any) -> Iterator[tuple[Daemon, Callable[[str], Host]]]:
    """Run a daemon in this process that speaks TLS."""
    state = home / "state"
    certificate, key = tls.ensure_certificate(state, ["127.0.0.1"])
    listener = Listener(host="127.0.0.1", tls=tls.server_context(certificate, key))
    given = HostSettings(authorized_host_dirs=(str(home),), state_directory=state, audit_log=home / "audit", **settings)
    with in_thread(lambda: Daemon(given, [listener], config={})) as daemon:
        address = HostAddress("127.0.0.1", daemon.ports[0], None, True, tls.fingerprint_of(certificate))
        yield daemon, lambda user: Host(address, TokenStore(state / "tokens.json").create(user))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_connections_that_begin_no_handshake_are_bounded(tmp_path: Path) -> None:
    with with_tls(tmp_path, max_connections=20) as (daemon, host_of):
        before = descriptors()
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(socket.create_connection(("127.0.0.1", daemon.ports[0]))) for _ in range(200)]
            time.sleep(0.5)
            assert descriptors() - before - len(kept) <= 30
            with contextlib.closing(host_of("alice")) as alice:
                assert alice.json("GET", "/v1/user")["user"] == "alice"


def test_a_user_has_a_part_of_the_connections(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=20) as daemon, contextlib.ExitStack() as stack:
        head = f"GET /v1/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {daemon.token('mallory')}\r\n\r\n".encode()
        statuses = []
        for _ in range(18):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=5))
            opened.sendall(head)
            statuses.append(int(opened.recv(4096).split()[1]))
        assert statuses == [200] * 15 + [429] * 3
        with contextlib.closing(daemon.host(daemon.token("alice"))) as alice:
            assert alice.json("GET", "/v1/user")["user"] == "alice"


def test_a_user_has_a_rate_of_requests(tmp_path: Path) -> None:
    with running(tmp_path, request_rate=1) as daemon, contextlib.closing(daemon.host(daemon.token("mallory"))) as host:
        for _ in range(10):
            host.request("GET", "/v1/user").close()
        with pytest.raises(Refused) as caught:
            host.request("GET", "/v1/user").close()
        assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
        with contextlib.closing(daemon.host(daemon.token("alice"))) as alice:
            assert alice.json("GET", "/v1/user")["user"] == "alice"


def test_handshakes_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apyfal.host.server.transport.connections.HANDSHAKES", 8)
    with with_tls(tmp_path) as (daemon, host_of), contextlib.ExitStack() as stack:
        before = descriptors()
        kept = [stack.enter_context(socket.create_connection(("127.0.0.1", daemon.ports[0]))) for _ in range(60)]
        for opened in kept:
            with contextlib.suppress(OSError):
                opened.sendall(b"\x16\x03\x01\x02\x00\x01")  # the front of a handshake
        time.sleep(0.5)
        assert descriptors() - before - len(kept) <= 12
        with contextlib.closing(host_of("alice")) as alice:
            assert alice.json("GET", "/v1/user")["user"] == "alice"


def test_a_connection_without_a_token_is_closed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apyfal.host.server.transport.connections.HEADER_TIMEOUT", 1.0)
    with with_tls(tmp_path) as (daemon, host_of), contextlib.closing(host_of("alice")) as alice:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(("127.0.0.1", daemon.ports[0]), timeout=10)) as opened:
            opened.sendall(b"GET /v1/user HTTP/1.1\r\nHost: x\r\n\r\n")
            assert opened.recv(4096).split()[1] == b"401"
            assert alice.json("GET", "/v1/user")["user"] == "alice"
            began = time.monotonic()
            with contextlib.suppress(OSError):
                assert opened.recv(4096) == b""
            assert time.monotonic() - began < 5
        assert len(alice._idle) == 1
        assert alice.json("GET", "/v1/user")["user"] == "alice"


@pytest.mark.parametrize("path", ["/x", "/v1/jobs", "/health", "/openapi.json", "/v1/storage/object?url=host://t"])
def test_requests_without_a_token_cost_little(path: str, tmp_path: Path) -> None:
    """Audit lines, processor time and memory of somebody without a token, on several connections at once."""
    with running(tmp_path) as daemon:
        assert daemon.process is not None
        host = daemon.host(daemon.token("alice"))
        host.json("GET", "/v1/user")
        logged = (tmp_path / "audit.log").stat().st_size
        ticks = cpu_seconds(daemon.process.pid)
        until = time.monotonic() + 2
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

        def ask() -> int:
            answered = 0
            with (
                socket.create_connection(("127.0.0.1", daemon.port), timeout=0.5) as opened,
                contextlib.suppress(OSError),
            ):
                while time.monotonic() < until:
                    opened.sendall(head * 10)
                    answered += opened.recv(1 << 20).count(b"HTTP/1.1 ")
            return answered

        with ThreadPoolExecutor(8) as threads:
            answered = sum(threads.map(lambda _: ask(), range(8)))
        assert answered >= 10
        assert (tmp_path / "audit.log").stat().st_size - logged < 20_000
        assert cpu_seconds(daemon.process.pid) - ticks < 1.0, "half of one processor"
        began = time.monotonic()
        host.json("GET", "/v1/user")
        assert time.monotonic() - began < FLOOR
        host.close()


def test_the_audit_says_how_many_refusals_it_left_out(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        for _ in range(60):
            connection.request("GET", "/v1/jobs")
            connection.getresponse().read()
        connection.close()
        lines = [line for line in daemon.audit() if line["decision"] == "refused"]
        assert 20 <= len(lines) <= 30
        assert sum(line.get("left_out", 0) for line in lines) > 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_few_descriptors_are_enough(tmp_path: Path) -> None:
    """A process that may have few descriptors takes fewer connections, and says so."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 200, before[1]))
    try:
        from apyfal.host.server.transport import connections

        original = connections._descriptors
        connections._descriptors = lambda: 64
        with with_tls(tmp_path) as (daemon, host_of), contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", daemon.ports[0])))
            with contextlib.closing(host_of("alice")) as alice:
                assert alice.json("GET", "/v1/user")["user"] == "alice"
    finally:
        connections._descriptors = original
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_thousand_idle_threads_are_not_made(daemon: RunningDaemon, mallory: Mallory) -> None:
    slow_reads(mallory)
    assert daemon.process is not None
    threads = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
    assert threads < limits.THREADS_OF_USER * 4 + 60, threads
    assert threading.active_count() < 100
