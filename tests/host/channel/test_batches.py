"""Small jobs of `process_map` travel together: each has its own result and error, and none runs twice."""

from __future__ import annotations

import contextlib
import random
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

import apyfal
from apyfal.exceptions import AcceleratorException, HostError
from apyfal.host.client import http
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.channel import ChannelReply, ClientChannel
from apyfal.host.protocol.address import parse_address
from apyfal.host.protocol.messages import MAX_BATCH


@pytest.fixture
def loopback(daemon: RunningDaemon) -> Iterator[RemoteAccelerator]:
    with RemoteAccelerator(daemon.host(daemon.token(secrets.token_hex(4))), {"accelerator": "loopback"}) as card:
        card._pool = None
        yield card


def jobs_of(card: RemoteAccelerator) -> int:
    return len(card._host.json("GET", "/v1/jobs")["jobs"])


@pytest.mark.parametrize("dtype", ["|u1", "<i2", ">f4", "<c8"])
@pytest.mark.parametrize("stored", [False, True])
def test_arrays_of_many_shapes(loopback: RemoteAccelerator, dtype: str, stored: bool) -> None:
    kind = np.dtype(dtype)
    rng = np.random.default_rng(3)
    sources = []
    for number in range(700):
        shape = [(), (3,), (2, 5), (64, 16), (16, 64)][number % 5 if number > 300 else 3]
        sources.append(rng.integers(0, 256, (*shape, kind.itemsize), np.uint8).view(kind).reshape(shape))
    sources[10] = np.asfortranarray(sources[10])
    sources[20] = sources[20][::-1, ::2]
    targets = [np.zeros(source.shape, kind) for source in sources] if stored else None
    results = list(loopback.process_map(sources, targets))
    for number, (source, result) in enumerate(zip(sources, results, strict=True)):
        assert result.shape == source.shape, number
        assert result.tobytes() == source.tobytes(), number
        if targets is not None:
            assert result is targets[number]
    assert jobs_of(loopback) < 350


def test_what_runs_alone(loopback: RemoteAccelerator, tmp_path: Path) -> None:
    infos: list[dict[str, Any]] = []
    sources: list[Any] = [np.full(100, number, np.uint8) for number in range(100)]
    sources[50] = np.zeros(1 << 20, np.uint8)
    sources[60] = b"bytes"
    results = list(loopback.process_map(sources, info_list=infos))
    assert [len(result) for result in results] == [len(source) for source in sources]
    assert [info["host"] for info in infos] == [str(loopback._host.address)] * 100
    assert jobs_of(loopback) == 100


def test_each_job_has_its_own_error(loopback: RemoteAccelerator) -> None:
    """The same as on a local card, and the others are not affected."""
    outcomes = []
    with apyfal.Accelerator("loopback") as own:
        for card in (own, loopback):
            sources = [np.full(64, number % 256, np.uint8) for number in range(300)]
            targets = [np.zeros(63 if number % 70 == 69 else 64, np.uint8) for number in range(300)]
            list(card.process_map(sources[:60], targets[:60]))  # so that the next ones are together
            futures = [card.process_submit(source, target) for source, target in zip(sources, targets, strict=True)]
            found = []
            for number, future in enumerate(futures):
                try:
                    assert (future.result() == number % 256).all()
                    found.append("")
                except AcceleratorException as error:
                    found.append(f"{type(error).__name__}: {error}")
            outcomes.append(found)
    assert outcomes[0] == outcomes[1]
    assert sum(map(bool, outcomes[1])) == 4


def test_an_error_of_all_is_an_error_of_each(loopback: RemoteAccelerator) -> None:
    list(loopback.process_map([np.zeros(64, np.uint8)] * 60))
    futures = [loopback.process_submit(np.zeros(64, np.uint8), no=1) for _ in range(100)]
    for future in futures:
        with pytest.raises(AcceleratorException, match="no"):
            future.result()


@pytest.mark.parametrize(
    "keywords", [{"copy": True}, {"timeout": 20}, {"timeout": None}, {"progress": None}, {"memory_limit": None}]
)
def test_keywords_of_process(loopback: RemoteAccelerator, keywords: dict[str, Any]) -> None:
    loopback._submitter.size._value = 32
    sources = [np.full(64, number, np.uint8) for number in range(200)]
    for source, result in zip(sources, loopback.process_map(sources, **keywords), strict=True):
        np.testing.assert_array_equal(source, result)
    assert jobs_of(loopback) < 100


def test_results_that_are_no_arrays(daemon: RunningDaemon) -> None:
    with RemoteAccelerator(daemon.host(daemon.token("sha")), {"accelerator": "sha3"}) as sha3:
        sources = [np.full(500, number, np.uint8) for number in range(200)]
        assert list(sha3.process_map(sources)) == [sha3.process(source) for source in sources]


class Forgetful(http.Host):
    """Loses the results of some batches; of the first one, after the daemon was killed and started again."""

    daemon: RunningDaemon | None = None
    lost = 0
    random = random.Random(4)

    def _exchange_frames(self, channel: ClientChannel, *job: Any) -> ChannelReply | None:
        reply = super()._exchange_frames(channel, *job)
        assert reply is not None
        if self.daemon is not None and "batch" in reply.job()[0]:
            daemon, self.daemon = self.daemon, None
            daemon.stop(signal.SIGKILL)
            daemon.start()
            raise ConnectionResetError("lost on the way back")
        if self.random.random() < 0.3:
            self.lost += 1
            raise ConnectionResetError("lost on the way back")
        return reply


def test_a_lost_batch_comes_out_of_the_journal(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        host = Forgetful(parse_address(daemon.url), daemon.token())
        with RemoteAccelerator(host, {"accelerator": "loopback"}) as card:
            card._pool = None
            card._submitter.size._value = 16
            sources = [np.random.default_rng(number).integers(0, 256, 4096, np.uint8) for number in range(400)]
            host.daemon = daemon
            try:
                results = list(card.process_map(sources))
            except HostError as error:  # another batch ran when the daemon was killed: it says so
                assert "stopped while the job was running" in str(error)  # noqa: PT017
            else:
                for source, result in zip(sources, results, strict=True):
                    np.testing.assert_array_equal(source, result)
            assert host.daemon is None
            assert host.lost > 0


def test_no_job_of_a_batch_runs_twice(tmp_path: Path) -> None:
    with running(tmp_path, counting=True) as daemon:
        host = Forgetful(parse_address(daemon.url), daemon.token())
        with RemoteAccelerator(host, {"accelerator": "counting"}) as card:
            card._pool = None
            for number in range(5):
                card._submitter.size._value = 16
                results = list(card.process_map([np.zeros(10, np.uint8)] * 100, number=number))
                assert results == [{"number": number, "bytes": 10}] * 100
            assert jobs_of(card) < 400
        assert host.lost > 0
    runs = (tmp_path / "runs.log").read_text().split()
    assert sorted(runs) == sorted(str(number) for number in range(5) for _ in range(100))


def test_long_jobs_run_alone(daemon: RunningDaemon, loopback: RemoteAccelerator) -> None:
    size = loopback._submitter.size
    loopback._learn(4096, 0.0005)
    loopback._learn(4096, 0.0005)
    assert 4 <= size() <= 200
    loopback._learn(4096, 0.5)
    assert size() == 1
    loopback._learn(4096, 1e-9)
    loopback._learn(0, 1e-9)  # cannot be in a batch
    assert size() == 1


def test_a_batch_is_one_request_and_one_job(daemon: RunningDaemon, loopback: RemoteAccelerator) -> None:
    loopback._submitter.size._value = MAX_BATCH
    with contextlib.closing(loopback.process_map([np.zeros(16, np.uint8)] * 2000)) as results:
        assert sum(1 for _ in results) == 2000
    assert jobs_of(loopback) < 200
