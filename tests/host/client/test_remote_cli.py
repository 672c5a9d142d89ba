"""``apyfal process --host``."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.support.daemon import RunningDaemon

from apyfal.cli import main

SOURCE = b"the quick brown fox " * 10_000


@pytest.fixture
def here(tmp_path: Path, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "in.txt").write_bytes(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.setenv("APYFAL_TOKEN", daemon.token())
    handler = signal.getsignal(signal.SIGTERM)  # main() sets its own
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def test_a_job_on_another_machine(here: Path, daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process", "-a", "sha3", "in.txt", "--host", daemon.url, "-p", "type=sha3-512", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == {"digest": hashlib.sha3_512(SOURCE).hexdigest()}
    assert document["info"]["bytes_in"] == len(SOURCE)
    assert main(["process", "-a", "gzip", "in.txt", "-o", "out.gz", "--host", daemon.url]) == 0
    assert gzip.decompress((here / "out.gz").read_bytes()) == SOURCE


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-a", "sha33", "in.txt"], 2, "unknown accelerator 'sha33'; did you mean 'sha3'?"),
        (["-a", "sha3", "none.txt"], 3, "none.txt"),
        (["-a", "gzip", "in.txt"], 2, "the output is data: expected -o URL"),
        (["-a", "scale", "--dtype", "int17", "in.txt", "-o", "out"], 2, "expected an element type"),
        (["-a", "sha3", "host://../etc/passwd"], 4, "etc/passwd"),
    ],
)
def test_failures_are_one_line(
    here: Path,
    daemon: RunningDaemon,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["process", *arguments, "--host", daemon.url]) == status
    output, error = capsys.readouterr()
    assert (output, error.count("\n")) == ("", 1)
    assert message in error


def test_the_host_of_the_configuration(here: Path, daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "accelerator.conf").write_text(f"[host]\nhost_ip = {daemon.url}\n")
    assert main(["process", "-a", "sha3", "in.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["host"] == daemon.url
    assert main(["process", "-a", "sha3", "in.txt", "--json", "--host", "local"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == {"digest": hashlib.sha3_256(SOURCE).hexdigest()}
    assert "host" not in document["info"]


def test_a_wrong_token_is_not_shown(
    here: Path, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APYFAL_TOKEN", "hunter2")
    assert main(["process", "-a", "sha3", "in.txt", "--host", daemon.url]) == 4
    error = capsys.readouterr().err
    assert "a valid token is needed" in error
    assert "hunter2" not in error
