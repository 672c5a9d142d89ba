"""Canaries: no secret in a log, an answer, an error, a process's arguments or its core."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from host.support.daemon import serving

import apyfal
from apyfal.exceptions import AcceleratorException
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.policy.tokens import TokenStore

ROOT = Path(__file__).parents[3]
CANARIES = ("CANARY-operator-secret", "CANARY-session-secret", "CANARY-signature", "CANARY-password")

CONFIGURATION = """
[storage.lab]
provider  = s3
client_id = operator
secret_id = CANARY-operator-secret
endpoint_url = http://127.0.0.1:9
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Run ``apyfal serve``, use it in every way that goes wrong, and return all that it let out, by place."""
    home = tmp_path_factory.mktemp("home")
    (home / "accelerator.conf").write_text(CONFIGURATION)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "AWS_EC2_METADATA_DISABLED": "1",
    }
    token = TokenStore(home / ".local/state/apyfal/tokens.json").create("alice", ("process", "storage", "admin"))
    found: list[tuple[str, str]] = []
    with serving(home, environment, "--no-unix") as (daemon, line):
        found.append(("standard output", line))
        host = Host(parse_address(line.removeprefix("apyfal host: ").strip()), token)
        try:
            found += [(f"answer of {path}", answer(host, path)) for path in ("/v1/mounts", "/metrics", "/openapi.json")]
            session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
            mount = {"provider": "s3", "client_id": "me", "secret_id": "CANARY-session-secret"}
            host.json("PUT", f"/v1/sessions/{session}/mounts/mine", {**mount, "region": "eu-west-1"})
            with pytest.raises(AcceleratorException) as wrong:
                host.json("PUT", f"/v1/sessions/{session}/mounts/other", {**mount, "no_such": "CANARY-password"})
            found.append(("error of a mount", str(wrong.value)))
            for url in (
                "https://user:CANARY-password@127.0.0.1/x",
                "http://127.0.0.1/x?X-Amz-Signature=CANARY-signature",
                "lab://bucket/key",
                "host://../x?CANARY=1",
            ):
                job = host.json("POST", f"/v1/sessions/{session}/jobs?wait=2", {"src": {"url": url}})
                found.append((f"job with {url[:12]}", str(job)))
                with contextlib.suppress(AcceleratorException):
                    host.json("POST", "/v1/storage/copy", {"src": url, "dst": "host://out"})
            for path in ("/v1/sessions", "/v1/jobs"):
                found.append((f"answer of {path}", answer(host, path)))
            host.request("GET", f"/v1/jobs?key={token}").close()
        finally:
            host.close()
        process = Path(f"/proc/{daemon.pid}")
        found.append(("arguments", (process / "cmdline").read_text()))
        found.append(("limits", next(row for row in (process / "limits").read_text().splitlines() if "core" in row)))
        os.kill(daemon.pid, signal.SIGABRT)  # it would dump its core, if it could
        daemon.wait(20)
    found.append(("standard error", (home / "stderr").read_text()))
    found += [(f"file {path.name}", "") for path in home.iterdir() if path.name.startswith("core")]
    found.append(("token", token))
    return found


def answer(host: Host, path: str) -> str:
    with host.request("GET", path) as got:
        return b"".join(got.lines()).decode()


def test_no_canary_was_let_out(seen: list[tuple[str, str]]) -> None:
    token = dict(seen)["token"]
    for place, text in seen:
        if place == "token":
            continue
        for canary in (*CANARIES, token, token.rpartition("_")[2]):
            assert canary not in text, f"{canary} in {place}"
    assert '"decision": "started"' in dict(seen)["standard error"]


def test_no_core_is_dumped(seen: list[tuple[str, str]]) -> None:
    assert dict(seen)["limits"].split()[-3:-1] == ["0", "0"]
    assert not [place for place, _ in seen if place.startswith("file core")]


def test_client_errors_and_reprs_hold_no_token() -> None:
    token = "apf_0123456789ab_" + "C" * 43
    started = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        apyfal.Accelerator("loopback", host_ip="http://127.0.0.1:9", token=token)
    assert time.monotonic() - started < 30
    assert "C" * 43 not in str(caught.value) + repr(Host(parse_address("127.0.0.1"), token))
