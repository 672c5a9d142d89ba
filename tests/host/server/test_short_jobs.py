"""Short jobs of a kind that came often: the event loop runs them, with the right parameters, each once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import in_thread

from apyfal import Accelerator
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.jobs import manager
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings


def test_short_jobs_of_one_kind_run_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[str] = []
    run_short = manager.run_short

    def counted(*arguments: Any) -> bool:
        here.append(threading.current_thread().name)
        return run_short(*arguments)

    monkeypatch.setattr(manager, "run_short", counted)
    monkeypatch.setattr(manager, "_BRIEF", 60.0)  # whatever else this machine does
    settings = HostSettings(
        authorized_host_dirs=(str(tmp_path),), state_directory=tmp_path / "state", audit_log=tmp_path / "audit"
    )
    token = TokenStore(tmp_path / "state/tokens.json").create("alice")
    random = np.random.default_rng(1)
    with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config={})) as daemon:
        host = Host(parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), token)
        jobs = 0
        with RemoteAccelerator(host, {"accelerator": "scale"}) as card:
            for factor, kind in ((3, np.int32), (5, np.int32), (5, np.float32)):
                card.start(a=factor)
                before = len(here)
                for _ in range(16):
                    data = random.integers(0, 1000, 512).astype(kind)
                    np.testing.assert_array_equal(card.process(data), data * factor)
                    np.testing.assert_array_equal(card.process(data, np.empty_like(data)), data * factor)
                    jobs += 2
                alternating = len(here) - before
                for _ in range(16):
                    data = random.integers(0, 1000, 512).astype(kind)
                    np.testing.assert_array_equal(card.process(data), data * factor)
                    jobs += 1
                assert factor != 3 or alternating == 0  # no kind came often enough in a row
                assert len(here) - before >= 8
            (session,) = daemon._sessions.of(None)
            opened: Any = session._accelerator
            assert opened._context.device.counters()["runs"] == jobs
        assert len(set(here)) == 1
        assert not here[0].startswith("apyfal-host-job")
        until = time.monotonic() + 20
        while daemon._memory.used and time.monotonic() < until:
            time.sleep(0.01)
        assert daemon._memory.used == 0


def test_jobs_that_may_not_be_copied_have_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[Any] = []
    monkeypatch.setattr(manager, "run_short", lambda *arguments: here.append(arguments))
    monkeypatch.setattr(manager, "_BRIEF", 60.0)
    settings = HostSettings(
        authorized_host_dirs=(str(tmp_path),), state_directory=tmp_path / "state", audit_log=tmp_path / "audit"
    )
    token = TokenStore(tmp_path / "state/tokens.json").create("alice")
    with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config={})) as daemon:
        host = Host(parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), token)
        with RemoteAccelerator(host, {"accelerator": "loopback"}) as card:
            data = np.arange(512, dtype=np.int32)
            for _ in range(16):
                np.testing.assert_array_equal(card.process(data, copy=False), data)
    assert here == []


@pytest.mark.parametrize("accelerator", ["loopback", "scale", "sha3", "histogram", "gzip"])
def test_files_of_many_lengths_are_no_jobs_of_one_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    """How long a file is stands in no description of a job, and how long an output is may depend on the data."""
    monkeypatch.setattr(manager, "_BRIEF", 60.0)
    settings = HostSettings(
        authorized_host_dirs=(str(tmp_path),), state_directory=tmp_path / "state", audit_log=tmp_path / "audit"
    )
    token = TokenStore(tmp_path / "state/tokens.json").create("alice")
    random = np.random.default_rng(1)
    with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config={})) as daemon:
        host = Host(parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), token)
        with RemoteAccelerator(host, {"accelerator": accelerator}) as card, Accelerator(accelerator) as local:
            for nbytes in [4096] * 20 + [1, 2048, 4096, 4096, 2, 4096]:
                data = random.integers(0, 1 + random.integers(1, 255), nbytes).astype(np.uint8)
                (tmp_path / "file").write_bytes(data.tobytes())
                expected = local.process(str(tmp_path / "file"))
                np.testing.assert_array_equal(card.process(str(tmp_path / "file")), expected)
            for nbytes in [4096] * 20 + [1, 2048, 4096, 4096, 2, 4096]:
                data = random.integers(0, 1 + random.integers(1, 255), nbytes).astype(np.uint8)
                np.testing.assert_array_equal(card.process(data), local.process(data))


def test_a_body_that_was_to_be_copied_is_used_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop is busy when such a job begins: a thread runs it, with the memory that its body has."""
    monkeypatch.setattr(manager, "_BRIEF_JOBS", 1 << 30)  # the event loop runs none
    monkeypatch.setattr(manager, "run_short", None)
    allocated: list[int] = []
    settings = HostSettings(
        authorized_host_dirs=(str(tmp_path),), state_directory=tmp_path / "state", audit_log=tmp_path / "audit"
    )
    token = TokenStore(tmp_path / "state/tokens.json").create("alice")
    random = np.random.default_rng(2)
    with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config={})) as daemon:
        bodies = daemon._channels.context.bodies
        allocate = bodies.allocate

        def counted(nbytes: int) -> Any:
            allocated.append(nbytes)
            return allocate(nbytes)

        monkeypatch.setattr(bodies, "allocate", counted)
        host = Host(parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), token)
        with RemoteAccelerator(host, {"accelerator": "scale"}) as card:
            card.start(a=3)
            for _ in range(20):
                data = random.integers(0, 1000, 512).astype(np.float64)
                np.testing.assert_array_equal(card.process(data), data * 3)
            assert 4 <= len(allocated) < 20  # until one of the kind was prepared
            before = len(allocated)
            info: dict[str, Any] = {}
            np.testing.assert_array_equal(card.process(data, info_dict=info), data * 3)
            assert info["bytes_copied"] == 0  # who asks gets memory that the card takes
            assert len(allocated) == before + 1
