"""What the Python layers share between threads: jobs, registries, mounts, what is made once and kept.

Without an interpreter lock (`python3.14t`) the threads meet all the time; with one, because they give it up every few
microseconds here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lifetime.together import together
from memory_store import MemoryHandler

import apyfal
from apyfal import storage
from apyfal._core import errors
from apyfal.config.configuration import ENVIRONMENT, Configuration
from apyfal.definition import registry
from apyfal.definition.definition import Definition
from apyfal.device import at_exit
from apyfal.device.sharing.run_queue import MOST_QUEUED, RunQueue
from apyfal.exceptions import AcceleratorException, ClosedError, ConfigurationError, InvalidURL, ParameterError
from apyfal.jobs.ordered_map import LightFuture, ResultOrder
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.url import Location


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def scale() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("scale", dtype="int32") as accelerator:
        yield accelerator


def pinned(nbytes: int, value: int) -> np.ndarray:
    array = apyfal.empty(nbytes // 4, "i4")
    array[...] = value
    return array


# -- jobs -------------------------------------------------------------------------------------------------------------
def test_jobs_of_many_kinds_on_one_accelerator(scale: apyfal.Accelerator) -> None:
    """More kinds than are kept: decisions are dropped while other threads use them."""

    def work(seed: int) -> None:
        for turn in range(150):
            count = 1 + (seed * 37 + turn) % 90
            src = np.full(count, seed, "i4")
            np.testing.assert_array_equal(scale.process(src, a=turn % 7, b=1), seed * (turn % 7) + 1)

    assert together(*(partial(work, seed) for seed in range(1, 5))) == []


def test_a_prepared_job_that_threads_share(scale: apyfal.Accelerator) -> None:
    src, dst = pinned(4096, 3), pinned(4096, 0)
    job = scale.prepare(src, dst, a=2, b=1)

    def work() -> None:
        for turn in range(300):
            job(a=turn) if turn % 3 else job()

    assert together(*[work] * 4) == []
    job()
    assert set(dst.tolist()) == {7}


def test_prepared_jobs_of_one_kind(scale: apyfal.Accelerator) -> None:
    def work(value: int) -> None:
        src, dst = pinned(4096, value), pinned(4096, 0)
        job = scale.prepare(src, dst, a=2, b=1)
        for _ in range(300):
            dst[...] = 0
            job()
            assert set(dst.tolist()) == {2 * value + 1}

    assert together(*(partial(work, value) for value in range(4))) == []


def test_parameters_and_data_of_start_are_of_one_call(scale: apyfal.Accelerator) -> None:
    def start(value: int) -> None:
        for _ in range(100):
            scale.start(a=value, b=value)

    before = scale._starts
    assert together(*(partial(start, value) for value in (1, 2, 3, 4))) == []
    assert scale._starts == before + 400
    done = scale.process(np.ones(4, "i4"))
    assert done[0] in (2, 4, 6, 8)


def test_a_start_that_is_refused_changes_nothing(scale: apyfal.Accelerator) -> None:
    scale.start(a=3, b=0)
    with pytest.raises(ParameterError):
        scale.start(a=5, nothing_of_that_name=1)
    assert scale.process(np.ones(1, "i4")).tolist() == [3]


def _stop_while_it_works(made: apyfal.Accelerator | apyfal.AcceleratorPoolExecutor) -> list[BaseException]:
    ran = threading.Semaphore(0)

    def work() -> None:
        while True:
            data = bytes(range(64))
            assert made.process(data).tobytes() == data
            ran.release()

    def end() -> None:
        for _ in range(6):
            ran.acquire(timeout=30)
        made.stop()

    return together(work, work, work, end)


@pytest.mark.parametrize("kind", ["accelerator", "pool"])
def test_jobs_end_or_are_refused_when_it_is_stopped(kind: str) -> None:
    live = errors.live()
    for _ in range(8):
        if kind == "pool":
            raised = _stop_while_it_works(apyfal.AcceleratorPoolExecutor("loopback", emulator={"devices": 2}))
        else:
            raised = _stop_while_it_works(apyfal.Accelerator("loopback"))
        assert len(raised) == 3
        assert all(isinstance(error, (AcceleratorException, CancelledError)) for error in raised), raised
        del raised
    gc.collect()
    assert {name: errors.live()[name] - live[name] for name in ("devices", "runs")} == {"devices": 0, "runs": 0}


def test_submitted_jobs_come_back_once_and_in_order() -> None:
    with apyfal.Accelerator("loopback") as accelerator:

        def work(seed: int) -> None:
            data = [bytes([seed, number % 256]) * 32 for number in range(400)]
            for source, result in zip(data, accelerator.process_map(data), strict=True):
                assert result.tobytes() == source

        assert together(*(partial(work, seed) for seed in range(3))) == []


def test_the_reader_of_results_is_always_woken() -> None:
    """One thread waits for what another is just ending."""
    order = ResultOrder()
    futures = [LightFuture(order) for _ in range(20_000)]

    def end() -> None:
        for number, future in enumerate(futures):
            assert future.set_running_or_notify_cancel()
            future.set_result(number)

    def read() -> None:
        assert [future.result() for future in futures] == list(range(len(futures)))

    assert together(end, read) == []


def test_a_full_queue_of_runs_is_emptied_by_others_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RunQueue()
    monkeypatch.setattr(queue, "collect", lambda every=False: None)

    class Emptied(list[Any]):
        """Between a look at its length and one at what is in it, other threads have discarded all."""

        def __len__(self) -> int:
            length = super().__len__()
            queue._jobs = []
            return length

    job = SimpleNamespace(over=False, ended=lambda timeout=0.0: True, check=lambda: None, cancel=lambda: None)
    queue._jobs = Emptied([(None, job)] * MOST_QUEUED)
    with queue.turn():
        pass
    assert queue._jobs == []


# -- registries -------------------------------------------------------------------------------------------------------
def test_accelerators_are_registered_found_and_listed_at_once() -> None:
    def register(name: str) -> None:
        for turn in range(100):
            registry.register(_named(registry.get("sha3"), f"{name}-{turn}"))

    def find() -> None:
        for _ in range(100):
            assert registry.get("gzip") is registry.get("gzip")
            assert "sha3" in registry.names()

    assert together(partial(register, "threads-a"), partial(register, "threads-b"), find) == []
    with pytest.raises(ConfigurationError, match="already there"):
        registry.register(_named(registry.get("sha3"), "threads-a-0"))
    for name in [name for name in registry._definitions if name.startswith("threads-")]:
        del registry._definitions[name]


def _named(definition: Definition, name: str) -> Definition:
    return dataclasses.replace(definition, name=name)


def test_a_name_is_registered_by_one_thread() -> None:
    for turn in range(50):
        raised = together(*[partial(registry.register, _named(registry.get("sha3"), f"once-{turn}"))] * 3)
        assert [type(error) for error in raised] == [ConfigurationError] * 2
        del registry._definitions[f"once-{turn}"]


def test_devices_open_and_end_while_those_left_are_listed() -> None:
    class Owner:
        def stop(self) -> None: ...

    def work() -> None:
        for _ in range(2000):
            owners = [Owner() for _ in range(3)]
            for owner in owners:
                at_exit.register(owner)
            at_exit.unregister(owners[0])
            del owner, owners  # the others are forgotten with their last references

    def read() -> None:
        for _ in range(2000):
            owners = [known() for known in list(at_exit._open.values())]
            assert all(owner is None or hasattr(owner, "stop") for owner in owners)
            del owners

    before = len(at_exit._open)
    assert together(work, work, read) == []
    assert len(at_exit._open) == before


# -- storage ----------------------------------------------------------------------------------------------------------
def test_a_store_is_mounted_used_replaced_and_unmounted() -> None:
    table = MountTable()

    def use() -> None:
        for _ in range(300):
            try:
                with table.resolve(Location("http.here", "host/key")) as path:
                    assert path.handler is not None
            except InvalidURL:
                pass  # unmounted, or just being so

    def change(seconds: int) -> None:
        for _ in range(150):
            table.mount("http.here", timeout=seconds, replace=True, config={})

    def forget() -> None:
        for _ in range(60):
            with contextlib.suppress(AcceleratorException):  # nothing of that name now
                table.unmount("http.here")

    assert together(use, use, partial(change, 5), partial(change, 6), forget) == []
    table.clear()


def test_a_mount_connects_once() -> None:
    for _ in range(30):
        table = MountTable()
        table.mount("http.here", config={})
        seen: list[object] = []

        def use(table: MountTable = table, seen: list[object] = seen) -> None:
            with table.resolve(Location("http.here", "host/key")) as path:
                seen.append(path.handler)

        assert together(*[use] * 4) == []
        assert len({id(handler) for handler in seen}) == 1
        table.clear()


def test_the_limits_of_a_store_are_made_once() -> None:
    for _ in range(100):
        handler = MemoryHandler()
        found: list[object] = []
        assert together(*[lambda found=found, handler=handler: found.append(limits_for(handler))] * 4) == []
        assert len({id(one) for one in found}) == 1


def test_configurations_are_read_while_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is replaced, as editors do: each reader sees one of its states."""
    file = tmp_path / "accelerator.conf"
    text = f"[storage.shelf]\nprovider = file\nroot = {tmp_path}\n[accelerator.mine]\nkernel = %s\n"
    file.write_text(text % "one")
    monkeypatch.setenv(ENVIRONMENT, str(file))

    def write() -> None:
        for turn in range(200):
            fresh = tmp_path / f"{turn}.new"
            fresh.write_text(text % ("one" if turn % 2 else "two"))
            fresh.replace(file)

    def read() -> None:
        for _ in range(200):
            assert "shelf" in storage.mounts()
            found = Configuration.load(None).section("accelerator.mine").text("kernel", None)
            assert found in ("one", "two")

    assert together(write, read, read) == []


def test_a_transfer_is_cancelled_however_late_it_begins() -> None:
    class Blocked:
        def __init__(self) -> None:
            self.woken = threading.Event()

        def interrupt(self) -> None:
            self.woken.set()

    for _ in range(200):
        token = CancelToken()
        children: list[CancelToken] = []
        blocked = [Blocked() for _ in range(3)]

        def begin(one: Blocked, token: CancelToken = token, children: list[CancelToken] = children) -> None:
            child = CancelToken(token)
            children.append(child)
            child.add(one)

        assert together(*(partial(begin, one) for one in blocked), token.set) == []
        assert all(one.woken.is_set() for one in blocked)
        assert all(child.is_set() for child in children)


def test_many_files_at_once_from_many_threads(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 500)
    urls = [str(tmp_path / str(number)) for number in range(60)]

    def load() -> None:
        for _ in range(5):
            for number, array in enumerate(storage.load_many(urls)):
                assert array.tobytes() == bytes([number]) * 500

    def save(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(5):
            storage.save_many([str(folder / str(n)) for n in range(20)], [np.full(9, n, "u1") for n in range(20)])

    assert together(load, load, partial(save, "a"), partial(save, "b")) == []
    assert (tmp_path / "a" / "7").read_bytes() == bytes([7]) * 9


def test_blocks_of_one_accelerator_in_threads() -> None:
    """The last block that ends closes it, whichever it is."""
    for _ in range(30):
        accelerator = apyfal.Accelerator("loopback")
        entered = threading.Barrier(3)

        def work(accelerator: apyfal.Accelerator = accelerator, entered: threading.Barrier = entered) -> None:
            with accelerator:
                entered.wait()
                assert accelerator.process(b"abc").tobytes() == b"abc"

        assert together(work, work, work) == []
        with pytest.raises(ClosedError):
            accelerator.process(b"abc")
