"""Many small jobs travel together: fewer transfers and runs, the same results, each job's own errors."""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers.web.hostile import Answer, Fault, Hostile, hostile

import apyfal
from apyfal import storage
from apyfal.exceptions import (
    AccessDenied,
    ClosedError,
    DeviceLost,
    KernelError,
    ObjectNotFound,
    ParameterError,
    RunCancelled,
    RunTimeout,
)
from apyfal.storage.batch.native import path_counts

KIB = 1 << 10
COUNT = 300
#: A card that takes a moment for each run, so that jobs wait for each other as they do where there are many.
BUSY = {"run_latency": "2ms"}


def inputs(count: int = COUNT, nbytes: int = 3001) -> list[np.ndarray]:
    """Arrays that differ, of sizes that differ."""
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, nbytes + number, np.uint8) for number in range(count)]


def counters(accelerator: apyfal.Accelerator) -> dict[str, int]:
    """What the card did so far."""
    return accelerator._context.device.counters()


# -- arrays -----------------------------------------------------------------------------------------------------------
def test_one_run_does_many_jobs_and_all_results_are_right() -> None:
    sources, infos = inputs(), []
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        results = list(accelerator.process_map(sources, info_list=infos))
        did = counters(accelerator)
    assert all(np.array_equal(result, source) for result, source in zip(results, sources, strict=True))
    assert all(apyfal.is_pinned(result) and result.flags.writeable for result in results)
    total = sum(source.nbytes for source in sources)
    assert (did["to_device"], did["from_device"]) == (total, total), "no byte moved that no job needs"
    assert did["runs"] < COUNT / 4
    assert [info["bytes_in"] for info in infos] == [source.nbytes for source in sources]
    assert infos[-1]["copy_reasons"] == [
        f"{name}: small, and packed with others into one transfer" for name in ("src", "dst")
    ]
    assert infos[-1]["bytes_copied"] == 2 * sources[-1].nbytes
    assert infos[-1]["seconds"]["total"] > 0


def test_types_shapes_and_parameters_are_kept_apart() -> None:
    sources = [np.full((4, 5), number, ("i2", "f4")[number // 50 % 2]) for number in range(200)]
    with apyfal.Accelerator("scale", emulator=BUSY) as scale:
        futures = [scale.process_submit(source, a=1 + number // 25) for number, source in enumerate(sources)]
        for number, future in enumerate(futures):
            result = future.result()
            assert (result.shape, result.dtype) == ((4, 5), sources[number].dtype)
            assert np.array_equal(result, sources[number] * (1 + number // 25))
        assert counters(scale)["runs"] < len(sources)


def test_accelerators_with_state_run_each_job_by_itself_after_one_transfer() -> None:
    sources = inputs()
    with apyfal.Accelerator("sha3", emulator=BUSY) as sha3:
        results = list(sha3.process_map(sources))
        assert counters(sha3)["runs"] == COUNT
    assert results == [{"digest": hashlib.sha3_256(source).hexdigest()} for source in sources]


def test_outputs_whose_size_only_the_kernel_knows() -> None:
    sources = [np.zeros(2000 + 100 * number, np.uint8) for number in range(100)]
    with apyfal.Accelerator("gzip") as packer:
        packed = list(packer.process_map(sources))
    assert [gzip.decompress(data) for data in packed] == [source.tobytes() for source in sources]
    # 64 KiB become more than a run has room for: such a job runs alone, as often as it takes.
    large = [np.frombuffer(gzip.compress(bytes(number << 10)), np.uint8) for number in range(1, 500, 10)]
    with apyfal.Accelerator("gunzip") as unpacker:
        assert [len(data) for data in unpacker.process_map(large)] == [number << 10 for number in range(1, 500, 10)]


def test_a_callers_arrays_are_filled() -> None:
    sources = inputs()
    targets = [np.zeros_like(source) for source in sources]
    targets[100] = np.zeros(5, np.uint8)
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        futures = [accelerator.process_submit(*pair) for pair in zip(sources, targets, strict=True)]
        with pytest.raises(ParameterError, match="this job's output has 3101"):
            futures[100].result()
        for number, future in enumerate(futures):
            if number != 100:
                assert future.result() is targets[number]
                assert np.array_equal(targets[number], sources[number])


def test_large_jobs_among_small_ones() -> None:
    sources = [np.full(1 << 20 if number % 10 == 9 else 1000, number % 251, np.uint8) for number in range(100)]
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        for result, source in zip(accelerator.process_map(sources), sources, strict=True):
            assert np.array_equal(result, source)


def test_without_leave_to_copy_nothing_is_packed() -> None:
    source = apyfal.empty(4096, np.uint8)
    source[...] = 3
    infos: list[dict] = []
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        assert all(set(result) == {3} for result in accelerator.process_map([source] * 50, copy=False, info_list=infos))
        assert counters(accelerator)["runs"] == 50
    assert {info["bytes_copied"] for info in infos} == {0}


# -- files and objects ------------------------------------------------------------------------------------------------
def test_from_files_to_files_each_with_its_own_error(tmp_path: Path) -> None:
    sources = inputs()
    for number, source in enumerate(sources):
        source.tofile(tmp_path / f"{number}")
    (tmp_path / "50").unlink()
    (tmp_path / "empty").mkdir()
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        futures = [
            accelerator.process_submit(
                tmp_path / f"{number}", tmp_path / ("nowhere/x" if number == 60 else f"{number}.out")
            )
            for number in range(COUNT)
        ]
        for number, future in enumerate(futures):
            if number in (50, 60):
                with pytest.raises(ObjectNotFound):
                    future.result()
            else:
                assert future.result() is None
                assert (tmp_path / f"{number}.out").read_bytes() == sources[number].tobytes()
        assert counters(accelerator)["runs"] < COUNT / 4
    assert not (tmp_path / "50.out").exists()


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    """A store with many small objects, mounted as s3.many."""
    with hostile() as running:
        keys = {"client_id": "key", "secret_id": "secret", "region": "us-east-1"}
        storage.mount("s3.many", endpoint_url=running.endpoint_url, timeout=60, config={}, **keys)
        yield running
        storage.unmount("s3.many")


@pytest.fixture
def store(server: Hostile) -> Iterator[Hostile]:
    """The objects as they were."""
    server.reset()
    for number in range(120):
        server.put(f"b/{number}", bytes([number]) * (64 * KIB + number))
    yield server
    server.reset()


def test_objects_are_fetched_side_by_side_with_one_request_each(store: Hostile) -> None:
    with apyfal.Accelerator("loopback") as accelerator:
        results = accelerator.process_map(
            (f"s3.many://b/{number}" for number in range(120)), (f"s3.many://b/{number}.out" for number in range(120))
        )
        assert list(results) == [None] * 120
        assert counters(accelerator)["runs"] < 60
    for number in range(120):
        assert store.objects[f"b/{number}.out"].data == store.objects[f"b/{number}"].data
    reads = [request for request in store.requests if request.method in ("GET", "HEAD")]
    assert len(reads) < 140, "only the first jobs, whose size nobody knew, asked for it"


def test_objects_travel_by_the_native_transport(store: Hostile) -> None:
    sources = [f"s3.many://b/{number}" for number in range(120)]
    path_counts.take()
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        results = list(accelerator.process_map(sources))
        assert path_counts.take()["native"] > 60
        list(
            accelerator.process_map([np.frombuffer(result, "u1") for result in results], [f"{s}.out" for s in sources])
        )
        assert path_counts.take()["native"] > 60
    for number, result in enumerate(results):
        assert result.tobytes() == store.objects[f"b/{number}"].data == store.objects[f"b/{number}.out"].data


def test_copies_of_objects_are_counted(store: Hostile) -> None:
    """The native transport receives an object in memory of its own; from there it is copied into the batch."""
    sources = [f"s3.many://b/{number}" for number in range(120)]
    infos: list[dict] = []
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        list(accelerator.process_map(sources))  # it knows that they are small
        path_counts.take()
        list(accelerator.process_map(sources, info_list=infos))
    native = path_counts.take()["native"]
    assert native > 60
    packed = " small, and packed with others into one transfer"
    for info in infos:
        assert info["bytes_copied"] == len(info["copy_reasons"]) * info["bytes_in"]
    assert sum(f"src:{packed}" in info["copy_reasons"] for info in infos) == native


def test_objects_of_one_size_are_received_in_their_batch(store: Hostile) -> None:
    sources = [f"s3.many://b/same/{number}" for number in range(120)]
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        for nbytes in (20_000, 20_000, 7_001, 90_001, 1):  # the size of the batch before is right, or not
            for number in range(120):
                store.put(f"b/same/{number}", bytes([number]) * nbytes)
            for change in ({}, {"b/same/70": b"", "b/same/80": b"short", "b/same/90": b"long" * 40_000}):
                for key, data in change.items():
                    store.put(key, data)
                infos: list[dict] = []
                results = list(accelerator.process_map(sources, info_list=infos))
                for number, result in enumerate(results):
                    assert result.tobytes() == store.objects[f"b/same/{number}"].data
                copied = sum(any("src" in reason for reason in info["copy_reasons"]) for info in infos)
                assert copied < 120 if change or nbytes in (20_000, 1) else copied


def test_a_store_that_hangs_for_one_object_costs_that_job(store: Hostile) -> None:
    """The others of its batch had come by then."""
    sources = [f"s3.many://b/{number}" for number in range(40)]
    store.faults.append(Fault("stall", when=lambda r: r.path == "b/30", at=100, times=-1))
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        futures = [accelerator.process_submit(source, timeout=4) for source in sources]
        for number, future in enumerate(futures):
            if number == 30:
                with pytest.raises(RunTimeout):
                    future.result()
            else:
                assert future.result().tobytes() == store.objects[f"b/{number}"].data


@pytest.mark.parametrize("size", [1, 300 * KIB, 9 << 20])
def test_objects_of_other_sizes_than_expected(store: Hostile, size: int) -> None:
    sources = [f"s3.many://b/{number}" for number in range(60)]
    for number in range(40, 60):
        store.put(f"b/{number}", bytes([number]) * (size if number % 7 == 0 else 64 * KIB))
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        for number, result in enumerate(accelerator.process_map(sources)):
            assert result.tobytes() == store.objects[f"b/{number}"].data


def test_an_output_that_cannot_be_stored_fails_its_own_job(store: Hostile) -> None:
    refuse = Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    at = {"when": lambda r: r.method == "PUT" and r.path.endswith("/70.out"), "times": -1}
    store.faults.append(Fault("change", act=lambda request: refuse, **at))
    store.faults.append(Fault("lose", when=lambda r: r.method == "PUT" and r.path.endswith("/71.out")))
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        futures = [
            accelerator.process_submit(f"s3.many://b/{number}", f"s3.many://b/{number}.out") for number in range(120)
        ]
        for number, future in enumerate(futures):
            if number == 70:
                with pytest.raises(AccessDenied):
                    future.result()
            else:
                assert future.result() is None
                assert store.objects[f"b/{number}.out"].data == store.objects[f"b/{number}"].data
    assert "b/70.out" not in store.objects


def test_an_object_that_cannot_be_read_fails_its_own_job(store: Hostile) -> None:
    refuse = Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    store.faults.append(Fault("change", when=lambda r: r.path.endswith("/70"), times=-1, act=lambda request: refuse))
    store.faults.append(Fault("cut", when=lambda r: r.path.endswith("/71"), at=1000))
    with apyfal.Accelerator("sha3") as sha3:
        futures = [sha3.process_submit(f"s3.many://b/{number}") for number in range(120)]
        for number, future in enumerate(futures):
            if number == 70:
                with pytest.raises(AccessDenied):
                    future.result()
            else:
                data = store.objects[f"b/{number}"].data
                assert future.result() == {"digest": hashlib.sha3_256(data).hexdigest()}


def test_an_error_names_its_job(store: Hostile) -> None:
    sources = [f"s3.many://b/{number}" for number in range(100)]
    del store.objects["b/60"]
    with apyfal.Accelerator("loopback") as accelerator:
        with pytest.raises(ObjectNotFound) as raised:
            list(accelerator.process_map(sources))
        assert raised.value.__notes__ == ["in job 60 of process_map, over s3.many://b/60"]
        arrays = [np.zeros(100, np.uint8)] * 3
        targets = [np.zeros(100, np.uint8), np.zeros(99, np.uint8), None]
        with pytest.raises(ParameterError) as refused:
            list(accelerator.process_map(arrays, targets))
        assert refused.value.__notes__ == ["in job 1 of process_map"]


# -- what goes wrong on the card --------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ["fail_to_device", "fail_run", "fail_from_device"])
def test_when_the_card_fails_with_several_jobs_each_runs_again_alone(fault: str) -> None:
    sources = inputs(100)
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        accelerator.process(sources[0])
        futures = [accelerator.process_submit(source) for source in sources[:50]]
        futures[10].result()
        accelerator._context.device.control(fault, 1)
        futures += [accelerator.process_submit(source) for source in sources[50:]]
        failed = 0
        for future, source in zip(futures, sources, strict=True):
            try:
                assert np.array_equal(future.result(timeout=10), source)
            except apyfal.exceptions.DriverError:
                failed += 1
        assert failed <= 1, "a job that was alone when the card failed"
        assert np.array_equal(accelerator.process(sources[0]), sources[0])


def test_bad_data_is_found_in_its_own_job() -> None:
    good = np.frombuffer(gzip.compress(b"good"), np.uint8)
    sources = [np.frombuffer(b"no gzip data", np.uint8) if number == 33 else good for number in range(60)]
    with apyfal.Accelerator("gunzip", emulator=BUSY) as gunzip:
        for number, future in enumerate([gunzip.process_submit(source) for source in sources]):
            if number == 33:
                with pytest.raises(KernelError):
                    future.result()
            else:
                assert future.result().tobytes() == b"good"


def test_a_lost_device_and_a_stop_end_all_that_wait() -> None:
    with apyfal.Accelerator("loopback", emulator={"run_latency": "50ms"}) as accelerator:
        accelerator.process(b"x")
        futures = [accelerator.process_submit(source) for source in inputs(100)]
        accelerator._context.device.control("lose_device", 1)
        for future in futures[20:]:
            with pytest.raises(DeviceLost):
                future.result(timeout=10)
    accelerator = apyfal.Accelerator("loopback", emulator={"run_latency": "300s"})
    accelerator._submitter.size.learn(1)
    futures = [accelerator.process_submit(source) for source in inputs(100)]
    start = time.monotonic()
    accelerator.stop()
    assert time.monotonic() - start < 20
    for future in futures:
        assert future.cancelled() or isinstance(future.exception(timeout=5), (RunCancelled, ClosedError))


def test_a_job_of_one_run_says_that_it_was_stopped() -> None:
    accelerator = apyfal.Accelerator("loopback", emulator={"run_latency": "300s"})
    future = accelerator.process_submit(b"x")
    while not counters(accelerator)["to_device"]:
        time.sleep(0.01)
    accelerator.stop()
    assert isinstance(future.exception(timeout=5), RunCancelled)


def test_without_memory_for_the_group_each_job_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with apyfal.Accelerator("loopback", emulator=BUSY) as accelerator:
        accelerator.process(b"x")
        lent, calls = accelerator._context.borrow_region, []

        def scarce(nbytes: int, bank: int) -> object:
            calls.append(nbytes)
            if len(calls) % 2 == 0:  # the input's was there, the output's is not
                raise apyfal.exceptions.HostMemoryExhausted("there is no more")
            return lent(nbytes, bank)

        monkeypatch.setattr(accelerator._context, "borrow_region", scarce)
        for number, source in enumerate(inputs(40)):
            source.tofile(tmp_path / f"{number}")
        (tmp_path / "7").unlink()
        futures = [accelerator.process_submit(tmp_path / f"{number}") for number in range(40)]
        for number, (future, source) in enumerate(zip(futures, inputs(40), strict=True)):
            if number == 7:
                with pytest.raises(ObjectNotFound):
                    future.result(timeout=10)
            else:
                assert np.array_equal(future.result(timeout=10), source)
        assert len(calls) >= 2


def test_a_run_that_hangs_costs_one_timeout() -> None:
    with apyfal.Accelerator("loopback") as accelerator:
        accelerator.process(b"x")
        accelerator._submitter.size.learn(1)
        accelerator._context.device.control("hang_run", 2)
        futures = [accelerator.process_submit(source, timeout=4) for source in inputs(50)]
        failed = [future for future in futures if isinstance(future.exception(timeout=60), RunTimeout)]
        assert len(failed) <= 4  # those that were run alone behind it waited as long; no batch is lost


# -- how much it brings -----------------------------------------------------------------------------------------------
def rate(accelerator: apyfal.Accelerator, sources: list[np.ndarray]) -> float:
    """Jobs a second of `process_map`."""
    start = time.perf_counter()
    for _ in accelerator.process_map(sources):
        pass
    return len(sources) / (time.perf_counter() - start)


def test_five_times_the_rate_of_a_loop() -> None:
    source = np.ones(64 * KIB, np.uint8)
    with apyfal.Accelerator("loopback", emulator={"latency": "300us", "run_latency": "300us"}) as accelerator:
        start = time.perf_counter()
        for _ in range(100):
            accelerator.process(source)
        alone = 100 / (time.perf_counter() - start)
        rate(accelerator, [source] * 500)
        assert rate(accelerator, [source] * 1500) >= 5 * alone


@pytest.mark.slow
def test_a_hundred_thousand_jobs_in_flat_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    source = np.ones(64 * KIB, np.uint8)
    with apyfal.Accelerator("loopback", emulator={"latency": "50us"}) as accelerator:
        start = time.perf_counter()
        for _ in range(2000):
            accelerator.process(source)
        alone = 2000 / (time.perf_counter() - start)
        for _ in accelerator.process_map([source] * 5000):
            pass
        before, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        for result in accelerator.process_map(source for _ in range(100_000)):
            assert result[-1] == 1
        ratio = 100_000 / (time.perf_counter() - start) / alone
        assert ratio >= 4, "5.7 and more where other programs take three quarters of the processors"
        assert resident() - before < 16 << 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 16 << 10
