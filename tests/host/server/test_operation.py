"""What an operator does: the configuration changed under a running host, logs rotated, the machine checked."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host.support.daemon import ROOT, RunningDaemon, running, serving

from apyfal.exceptions import AccessDenied, HostError, JobRejected, StoreUnavailable
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol.address import parse_address

CONFIGURATION = """
[security]
authorized_host_dirs = {home}/{directory}
private_endpoints = {endpoint}

[accelerator.{name}]
driver = emulator
kernel = loopback

[storage.{name}]
provider = s3
client_id = me
secret_id = mine
"""


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}


@contextmanager
def served(home: Path, configuration: Path) -> Iterator[tuple[subprocess.Popen[str], Host]]:
    """Run ``apyfal serve`` with a configuration file."""
    options = ["--config", str(configuration), "--unix", str(home / "socket")]
    with serving(home, environment(home), *options) as (daemon, line):
        host = Host(parse_address(line.removeprefix("apyfal host: ").strip()), None)
        try:
            yield daemon, host
        finally:
            host.close()
            daemon.terminate()
            assert daemon.wait(20) == 0


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_changed_configuration_counts_from_the_signal_on_and_a_mistake_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "host.conf"

    def write(name: str, endpoint: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"file-{name}").write_bytes(b"")
        file.write_text(CONFIGURATION.format(home=tmp_path, directory=name, endpoint=endpoint, name=name))

    def decisions(what: str) -> int:
        return (tmp_path / "stderr").read_text().count(f'"decision": "{what}"')

    write("one", "first.invalid")
    with served(tmp_path, file) as (daemon, host):

        def state() -> list[object]:
            files = host.json("GET", "/v1/storage/list?url=host://")["entries"]
            listed = host.json("GET", "/v1/accelerators")["accelerators"]
            return [
                [entry["path"] for entry in files],
                sorted(host.json("GET", "/v1/mounts")["mounts"].keys() & {"one", "two"}),
                [name for name in ("one", "two") if any(line.startswith(f"{name}(") for line in listed)],
                job(host, "one")["state"],
                job(host, "two")["state"],
            ]

        one = [["file-one"], ["one"], ["one"], "done", "failed"]
        two = [["file-two"], ["two"], ["two"], "failed", "done"]
        assert state() == one
        write("two", "second.invalid")
        assert state() == one, "nobody has said so yet"
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: decisions("reloaded") == 1)
        assert state() == two
        for mistake in ("[security", "[security]\nauthorized_host_dirs = /nowhere/at/all\n", "[nothing]\n"):
            file.write_text(mistake)
            failed = decisions("reload failed")
            daemon.send_signal(signal.SIGHUP)
            wait_until(lambda failed=failed: decisions("reload failed") == failed + 1)
            assert state() == two


def job(host: Host, accelerator: str) -> Any:
    session = host.json("POST", "/v1/sessions", {"accelerator": accelerator})["id"]
    ended = host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", {"kind": "start"})
    host.json("DELETE", f"/v1/sessions/{session}")
    return ended


def test_the_audit_log_can_be_rotated(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        host = daemon.host(daemon.token())
        session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
        (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
        host.json("POST", "/v1/sessions", {"accelerator": "loopback"})
        host.close()
        assert session in (tmp_path / "audit.log.1").read_text()
        assert [line["decision"] for line in daemon.audit()] == ["session opened"]
        assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


def test_users_take_turns(tmp_path: Path) -> None:
    """Who submits many jobs does not keep others waiting until all of them have run."""
    with running(tmp_path, counting=True, workers=1) as daemon:
        hosts = {name: daemon.host(daemon.token(name)) for name in ("alice", "bob")}
        sessions = {
            name: host.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"] for name, host in hosts.items()
        }

        def submit(name: str, number: int) -> str:
            parameters = {"number": number, "seconds": 0.05}
            return hosts[name].json("POST", f"/v1/sessions/{sessions[name]}/jobs", {"parameters": parameters})["id"]

        theirs = [submit("alice", number) for number in range(30)][-1]
        mine = [submit("bob", 100 + number) for number in range(3)][-1]
        assert hosts["bob"].json("GET", f"/v1/jobs/{mine}?wait=30")["state"] == "done"
        assert hosts["alice"].json("GET", f"/v1/jobs/{theirs}")["state"] == "queued"
        assert hosts["alice"].json("GET", f"/v1/jobs/{theirs}?wait=30")["state"] == "done"
        for host in hosts.values():
            host.close()
    order = [int(line) for line in (tmp_path / "runs.log").read_text().split()]
    assert sorted(order) == [*range(30), 100, 101, 102]
    first, _, last = (order.index(number) for number in (100, 101, 102))
    # bob's first one may run beside one of alice's, since none of his ran before
    assert last - first in (3, 4), "one of each in turn"


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    with running(tmp_path, counting=True, workers=1, max_jobs=4, max_jobs_of_user=2) as daemon:
        alice, bob = daemon.host(daemon.token("alice")), daemon.host(daemon.token("bob"))
        jobs = []
        for host in (alice, bob):
            session = host.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"]
            jobs.append((host, f"/v1/sessions/{session}/jobs"))
        slow = {"parameters": {"number": 1, "seconds": 1.0}}
        for _ in range(3):
            alice.json("POST", jobs[0][1], slow)
        # bob's first job runs at once: a user of whom none runs waits for nobody
        for host, path, status in ((*jobs[0], 429), *[(*jobs[1], None)] * 3, (*jobs[1], 503)):
            if status is None:
                host.json("POST", path, slow)
                continue
            with pytest.raises(Refused) as caught:
                host.request("POST", path, json_body=slow)
            assert (caught.value.status, type(caught.value.error())) == (status, JobRejected)
            assert caught.value.retry_after is not None
        alice.close()
        bob.close()


@pytest.mark.parametrize(
    ("spoil", "status", "text"),
    [
        (lambda home: None, 0, ""),
        (lambda home: (home / ".local/state/apyfal/tokens.json").chmod(0o644), 1, "can be read by others"),
        (lambda home: (home / "shared").rmdir(), 1, "shared"),
    ],
    ids=["well", "tokens", "directory"],
)
def test_host_check(tmp_path: Path, spoil: Callable[[Path], object], status: int, text: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "accelerator.conf").write_text(f"[security]\nauthorized_host_dirs = {tmp_path}/shared\n")

    def apyfal(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "apyfal", *words]
        return subprocess.run(
            command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    assert apyfal("token", "create", "alice").returncode == 0
    spoil(tmp_path)
    done = apyfal("host", "check", "--json")
    findings = {found["what"]: found for found in json.loads(done.stdout)}
    assert done.returncode == status, done
    wrong = [found["text"] for found in findings.values() if found["state"] == "wrong"]
    assert len(wrong) == (status == 1)
    assert text in " ".join(wrong)
    assert findings.keys() >= {"openat2", "outbound", "certificate", "state", "device", "daemon"}
    assert findings["daemon"]["state"] == "warning", "none runs"


def test_a_client_s_mount_is_for_its_session_only(daemon: RunningDaemon) -> None:
    host = daemon.host(daemon.token())
    mine, other = (host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"] for _ in range(2))
    account = {"provider": "s3", "client_id": "me", "secret_id": "CANARY", "endpoint_url": "https://store.invalid"}
    host.json("PUT", f"/v1/sessions/{mine}/mounts/mine", account)

    def read(session: str | None) -> None:
        host.json("GET", f"/v1/storage/object?url=mine://bucket/key{'' if session is None else f'&session={session}'}")

    with pytest.raises(StoreUnavailable, match=r"store\.invalid"):  # it is used, though that store is not there
        read(mine)
    for session in (other, None):
        with pytest.raises(AccessDenied, match="mine:// is not mounted on this host"):
            read(session)
    listed = json.dumps([host.json("GET", path) for path in ("/v1/mounts", "/v1/sessions")])
    assert "CANARY" not in listed
    assert "client-" not in listed
    host.json("DELETE", f"/v1/sessions/{mine}")
    with pytest.raises(HostError, match="no such session"):
        read(mine)
    host.close()


def until_refused(host: Host) -> None:
    for _ in range(1000):
        host.request("GET", "/v1/user").close()


def test_rates_are_limited_for_each_user(tmp_path: Path) -> None:
    with running(tmp_path, request_rate=1) as daemon:
        alice, bob = daemon.host(daemon.token("alice")), daemon.host(daemon.token("bob"))
        for _ in range(9):  # ten times the rate at once
            alice.json("GET", "/v1/user")
        with pytest.raises(Refused) as caught:
            until_refused(alice)
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        assert bob.json("GET", "/v1/user")["user"] == "bob"
        alice.close()
        bob.close()


def test_without_the_extra_the_command_names_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['aiohttp'] = None; from apyfal.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "apyfal: error: the daemon needs aiohttp: pip install 'apyfal[host]'\n"
