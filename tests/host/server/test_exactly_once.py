"""No job runs twice and none is lost in silence, with answers lost and the daemon killed and stopped in between."""

from __future__ import annotations

import collections
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

from apyfal.exceptions import HostError
from apyfal.host.client import http
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.channel import ChannelReply, ClientChannel
from apyfal.host.protocol.address import parse_address
from apyfal.storage.http.connection import Connection
from apyfal.storage.http.response import Response


class ForgetfulHost(http.Host):
    """Loses the first answer to a job, after the daemon was killed and started again behind its back."""

    daemon: RunningDaemon | None = None

    def _exchange(self, connection: Connection, outgoing: http.Outgoing) -> Response:
        response = super()._exchange(connection, outgoing)
        if self.daemon is not None and outgoing.method == "POST" and "/jobs" in outgoing.target:
            daemon, self.daemon = self.daemon, None
            response.close()
            daemon.stop(signal.SIGKILL)
            daemon.start()
            raise ConnectionResetError("lost on the way back")
        return response

    def _exchange_frames(self, channel: ClientChannel, *job: Any) -> ChannelReply | None:
        reply = super()._exchange_frames(channel, *job)
        if self.daemon is not None:
            daemon, self.daemon = self.daemon, None
            daemon.stop(signal.SIGKILL)
            daemon.start()
            raise ConnectionResetError("lost on the way back")
        return reply


class LossyHost(http.Host):
    """Loses a third of the answers, after the daemon has sent them, and a few requests before they are sent."""

    random = random.Random(20)
    lost = 0

    def _exchange(self, connection: Connection, outgoing: http.Outgoing) -> Response:
        if outgoing.method != "POST" or "/jobs" not in outgoing.target:
            return super()._exchange(connection, outgoing)
        chance = self.random.random()
        if chance < 0.05:
            connection.close()
            raise ConnectionResetError("lost on the way there")
        response = super()._exchange(connection, outgoing)
        if chance < 0.05 + 1 / 3:
            LossyHost.lost += 1
            response.close()
            raise ConnectionResetError("lost on the way back")
        return response

    def _exchange_frames(self, channel: ClientChannel, *job: Any) -> ChannelReply | None:
        chance = self.random.random()
        if chance < 0.05:
            channel.close()
            raise ConnectionResetError("lost on the way there")
        reply = super()._exchange_frames(channel, *job)
        if chance < 0.05 + 1 / 3:
            LossyHost.lost += 1
            raise ConnectionResetError("lost on the way back")
        return reply


def submit(daemon: RunningDaemon, count: int, restart_every: int, threads: int = 8) -> dict[int, str]:
    """Submit jobs from several threads, and restart the daemon whenever so many more have ended; what became of
    each.
    """
    token = daemon.token()
    host = LossyHost(parse_address(daemon.url), token)
    outcomes: dict[int, str] = {}
    progress = threading.Semaphore(0)

    def one(number: int) -> None:
        try:
            result = accelerator.process(number=number)
            outcomes[number] = "done" if result == {"number": number, "bytes": 0} else f"wrong: {result}"
        except HostError as error:
            outcomes[number] = f"reported: {error}"
        finally:
            progress.release()

    with RemoteAccelerator(host, {"accelerator": "counting"}) as accelerator, ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(one, number) for number in range(count)]
        for restart in range(count // restart_every):
            for _ in range(restart_every):
                progress.acquire()
            if restart < count // restart_every - 1:
                daemon.stop(signal.SIGKILL if restart % 2 else signal.SIGTERM)
                daemon.start()
        for future in futures:
            future.result()
    return outcomes


@pytest.mark.parametrize(
    ("count", "restart_every"),
    [(300, 100), pytest.param(10_000, 2_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_exactly_once(tmp_path: Path, count: int, restart_every: int) -> None:
    LossyHost.lost = 0
    with running(tmp_path, counting=True, request_rate=100_000) as daemon:
        outcomes = submit(daemon, count, restart_every)
    runs = collections.Counter(int(line) for line in (tmp_path / "runs.log").read_text().split())
    assert LossyHost.lost > count // 4
    assert len(outcomes) == count, "every submission has an outcome"
    assert max(runs.values()) == 1, "nothing ran twice"
    for number, outcome in outcomes.items():
        if outcome == "done":
            assert runs[number] == 1
        else:
            assert outcome.startswith("reported: the host stopped while the job was running"), outcome
    reported = sum(outcome != "done" for outcome in outcomes.values())
    assert reported <= 8 * (count // restart_every), "only what ran at the moment of a crash is in doubt"


def test_one_key_runs_once_and_replays(tmp_path: Path) -> None:
    with running(tmp_path, counting=True) as daemon:
        host = daemon.host(daemon.token())
        session = host.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"]
        jobs = f"/v1/sessions/{session}/jobs?wait=20"
        key = {"Idempotency-Key": "key-1"}
        first = host.json("POST", jobs, {"parameters": {"number": 1}}, key)
        assert host.json("POST", jobs, {"parameters": {"number": 1}}, key) == first
        with pytest.raises(HostError, match="used for another job"):
            host.json("POST", jobs, {"parameters": {"number": 2}}, key)
        other = host.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"]
        assert host.json("POST", f"/v1/sessions/{other}/jobs", {"parameters": {"number": 1}}, key) == first
        # Another user's key of the same name is another key.
        bob = daemon.host(daemon.token("bob"))
        theirs = bob.json("POST", "/v1/sessions", {"accelerator": "counting"})["id"]
        assert bob.json("POST", f"/v1/sessions/{theirs}/jobs", {"parameters": {"number": 1}}, key)["id"] != first["id"]
        bob.close()
        # While it runs: a conflict that names the job.
        slow = {"parameters": {"number": 3, "seconds": 1.0}}
        host.json("POST", f"/v1/sessions/{session}/jobs", slow, {"Idempotency-Key": "key-2"})
        with pytest.raises(http.Refused) as caught:
            host.request("POST", f"/v1/sessions/{session}/jobs", json_body=slow, headers={"Idempotency-Key": "key-2"})
        assert caught.value.status == 409
        job = caught.value.document["job"]
        assert host.json("GET", f"/v1/jobs/{job}?wait=20")["result"]["number"] == 3
        host.close()
    assert sorted((tmp_path / "runs.log").read_text().split()) == ["1", "1", "3"]


def fetch(host: http.Host, job: str) -> bytes | None:
    """Return a job's output, ``None`` where the host does not have it."""
    with host.request("GET", f"/v1/jobs/{job}", headers={"Accept": "application/octet-stream"}) as answer:
        if answer.header("Apyfal-Job") is None:
            return None
        content = bytearray(answer.length or 0)
        answer.readinto(memoryview(content))
        return bytes(content)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_outputs_outlive_the_daemon_or_are_reported(tmp_path: Path, end: signal.Signals) -> None:
    jobs: dict[str, str] = {}
    with running(tmp_path) as daemon:
        host = daemon.host(daemon.token())
        session = host.json("POST", "/v1/sessions", {"accelerator": "trng"})["id"]
        for name, nbytes in (("small", 1000), ("large", 3_000_000), ("fetched", 100_000)):
            job = {"parameters": {"nbytes": nbytes}}
            jobs[name] = host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", job, {"Idempotency-Key": name})["id"]
        before = {name: fetch(host, job) for name, job in jobs.items()}
        host.json("DELETE", f"/v1/jobs/{jobs['fetched']}/output")
        daemon.stop(end)
        daemon.start()
        after = {name: fetch(host, job) for name, job in jobs.items()}
        assert all(host.json("GET", f"/v1/jobs/{job}")["state"] == "done" for job in jobs.values())
        lost = [line["job"] for line in daemon.audit() if line["decision"] == "output lost"]
        assert (after["small"], after["fetched"]) == (before["small"], None)
        if end == signal.SIGTERM:
            assert (after["large"], lost) == (before["large"], [])
            host.json("DELETE", f"/v1/jobs/{jobs['large']}/output")
            assert fetch(host, jobs["large"]) is None
            assert not list((daemon.state / "outputs").iterdir())
        else:
            assert (after["large"], lost) == (None, [jobs["large"]])
        host.close()


def test_what_ran_during_a_crash_is_reported_and_what_waited_runs_again(tmp_path: Path) -> None:
    with running(tmp_path, counting=True, workers=1) as daemon:
        with RemoteAccelerator(daemon.host(daemon.token()), {"accelerator": "counting"}) as accelerator:
            running_job = accelerator.process_submit(number=1, seconds=20.0)
            while not (tmp_path / "runs.log").exists() or not (tmp_path / "runs.log").read_text():
                threading.Event().wait(0.01)
            waiting_job = accelerator.process_submit(number=2)
            threading.Event().wait(0.2)
            daemon.stop(signal.SIGKILL)
            daemon.start()
            with pytest.raises(HostError, match="what it wrote is not known"):
                running_job.result()
            assert waiting_job.result() == {"number": 2, "bytes": 0}
        decisions = [(line["decision"], line.get("ran")) for line in daemon.audit()]
        assert decisions.count(("job interrupted", None)) == 1
        assert decisions.count(("job interrupted", False)) == 1
    assert sorted((tmp_path / "runs.log").read_text().split()) == ["1", "2"]


@pytest.mark.parametrize("dst", ["new", "array", "shared"])
def test_what_a_lost_answer_says_of_shared_memory_is_still_true(tmp_path: Path, dst: str) -> None:
    data = np.random.default_rng(0).integers(0, 255, 1 << 20, np.uint8)
    with running(tmp_path) as daemon:
        host = ForgetfulHost(parse_address(daemon.unix), None)
        with RemoteAccelerator(host, {"accelerator": "loopback"}) as loopback:
            target = {"new": None, "array": np.zeros_like(data), "shared": loopback.empty(data.shape, np.uint8)}[dst]
            host.daemon = daemon
            result = loopback.process(data, target)
            assert host.daemon is None, "the answer was lost"
            np.testing.assert_array_equal(result, data)
            np.testing.assert_array_equal(loopback.process(data[::-1], target), data[::-1])


def test_a_crash_during_a_job_on_shared_memory_is_reported_as_such(tmp_path: Path) -> None:
    with running(tmp_path, counting=True) as daemon:
        host = http.Host(parse_address(daemon.unix), None)
        with RemoteAccelerator(host, {"accelerator": "counting"}) as accelerator:
            job = accelerator.process_submit(np.zeros(1 << 20, np.uint8), number=1, seconds=20.0)
            while not (tmp_path / "runs.log").exists() or not (tmp_path / "runs.log").read_text():
                threading.Event().wait(0.01)
            daemon.stop(signal.SIGKILL)
            daemon.start()
            with pytest.raises(HostError, match="stopped while the job was running"):
                job.result()
            assert accelerator.process(np.zeros(1 << 20, np.uint8), number=2) == {"number": 2, "bytes": 1 << 20}
    assert (tmp_path / "runs.log").read_text().split() == ["1", "2"]
