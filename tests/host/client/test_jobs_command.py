"""``apyfal jobs``, ``cancel``, ``devices --host`` and ``accelerators --host``."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

import apyfal
from apyfal.cli import main
from apyfal.exceptions import HostError, RunCancelled
from apyfal.host.client.accelerator import RemoteAccelerator


@pytest.fixture
def alice(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.setenv("APYFAL_TOKEN", daemon.token("alice"))
    handler = signal.getsignal(signal.SIGTERM)  # main() sets its own
    yield daemon
    signal.signal(signal.SIGTERM, handler)


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["jobs", "--json", *arguments]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_jobs(alice: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    host = ("--host", alice.url)
    with apyfal.Accelerator("sha3", host_ip=alice.url, token=alice.token("alice")) as card:
        card.process(np.zeros(100, np.uint8))
    (job,) = listed(capsys, *host)
    assert job["state"] == "done"
    assert listed(capsys, str(job["id"]), *host) == [job]
    assert main(["jobs", *host]) == 0
    assert str(job["id"]) in capsys.readouterr().out
    assert main(["cancel", str(job["id"]), *host]) != 0
    assert "already" in capsys.readouterr().err
    assert main(["cancel", str(job["id"]), "none", *host]) == 1
    assert "2 of 2 jobs could not be cancelled" in capsys.readouterr().err

    monkeypatch.setenv("APYFAL_TOKEN", alice.token("bob"))
    assert listed(capsys, *host) == []
    for command in ("jobs", "cancel"):  # of somebody else, as if there were none
        assert main([command, str(job["id"]), *host]) != 0
        assert "sha3" not in capsys.readouterr().err
    monkeypatch.setenv("APYFAL_TOKEN", alice.token("root", "admin", "process"))
    assert job["id"] in [one["id"] for one in listed(capsys, *host)]


def test_cancel(
    alice: RunningDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, counting=True, workers=1) as slow:
        host, token = ("--host", slow.url), slow.token("alice")
        monkeypatch.setenv("APYFAL_TOKEN", token)
        with RemoteAccelerator(slow.host(token), {"accelerator": "counting"}) as card:
            ran = card.process_submit(number=1, seconds=3.0)
            while not (tmp_path / "runs.log").exists():
                time.sleep(0.01)
            waiting = card.process_submit(number=2)
            while not (queued := [one for one in listed(capsys, *host) if one["state"] == "queued"]):
                time.sleep(0.01)
            assert main(["cancel", str(queued[0]["id"]), *host]) == 0
            with pytest.raises(RunCancelled):
                waiting.result(timeout=60)
            ran.result(timeout=60)
        assert [one["state"] for one in listed(capsys, str(queued[0]["id"]), *host)] == ["cancelled"]
    assert (tmp_path / "runs.log").read_text().split() == ["1"]


def test_a_job_that_an_earlier_daemon_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, counting=True, workers=1) as slow:
        monkeypatch.setenv("APYFAL_TOKEN", slow.token("alice"))
        with RemoteAccelerator(slow.host(os.environ["APYFAL_TOKEN"]), {"accelerator": "counting"}) as card:
            ran = card.process_submit(number=1, seconds=60.0)
            while not (tmp_path / "runs.log").exists():
                time.sleep(0.01)
            (job,) = listed(capsys, "--host", slow.url)
            slow.stop(signal.SIGKILL)
            slow.start()
            assert main(["jobs", str(job["id"]), "--host", slow.url]) == 0
            assert "the host stopped while the job was running" in capsys.readouterr().out
            with pytest.raises(HostError, match="the host stopped while the job was running"):
                ran.result(timeout=60)


@pytest.mark.parametrize("what", ["devices", "accelerators"])
def test_what_a_host_has(alice: RunningDaemon, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([what, "--host", alice.url]) == 0
    assert {"devices": "software card", "accelerators": "sha3"}[what] in capsys.readouterr().out
    assert main([what, "--host", alice.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[what]
    assert main([what, "--host", "local"]) == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["jobs"], 2),
        (["jobs", "--host", "local"], 2),
        (["jobs", "--host", "ftp://127.0.0.1"], 2),
        (["jobs", "--host", "http://127.0.0.1:1"], 6),
        (["cancel"], 2),
        (["cancel", "..", "--host", "URL"], 2),
        (["cancel", "../sessions/1", "--host", "URL"], 1),
        (["jobs", "a?key=b#c", "--host", "URL"], 1),
        (["devices", "--driver", "xrt", "--host", "URL"], 2),
    ],
    ids=str,
)
def test_bad_input(
    alice: RunningDaemon,
    arguments: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apyfal.host.client.http.RETRY_FOR", 1.0)
    assert main([alice.url if one == "URL" else one for one in arguments]) == status
    output, error = capsys.readouterr()
    assert (output, error.count("\n")) == ("", 1)
