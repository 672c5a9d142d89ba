"""What every card must do with data that stays on it. Each function is one case; it gets the name of its card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from drivers.support.cards import Card, card

import apyfal
from apyfal._core.buffer import trim_pool
from apyfal.exceptions import BufferInUse, ClosedError, KernelError, ParameterError, RunCancelled, RunTimeout


def _open(row: Card, **more: Any) -> apyfal.Accelerator:
    return apyfal.Accelerator(**{**row.increment, **more})


def _values(count: int, seed: int = 0) -> np.ndarray:
    values = apyfal.empty(count, np.int32)
    values[:] = np.random.default_rng(seed).integers(-(1 << 31), 1 << 31, count)
    return values


def _one_more(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) + np.uint32(1)).view(np.int32)


def _counters(accelerator: apyfal.Accelerator) -> tuple[int, int] | None:
    device = accelerator._context.device
    if "counters" not in device.info["capabilities"]:
        return None
    counters = device.counters()
    return counters["to_device"], counters["from_device"]


def device_arrays_stay_on_the_card(name: str) -> None:
    """Three jobs, each on the result of the one before: the data moves to the card once, and back when asked for."""
    row = card(name)
    values = _values(100_003)
    with _open(row) as accelerator:
        before = _counters(accelerator)
        first = accelerator.put(values)
        second = accelerator.device_empty(values.shape, values.dtype)
        info: dict[str, Any] = {}
        for src, dst in ((first, second), (second, first), (first, second)):
            assert accelerator.process(src, dst, info_dict=info, copy=False, **row.parameters) is dst
            assert info["bytes_moved"] == {"to_device": 0, "from_device": 0}
            assert (info["bytes_in"], info["bytes_out"]) == (values.nbytes, values.nbytes)
            assert info["bytes_copied"] == 0
        np.testing.assert_array_equal(first.get(), _one_more(_one_more(values)))
        out = np.zeros((values.size, 2), np.int32)[:, 1]  # not contiguous
        assert second.get(out) is out
        np.testing.assert_array_equal(out, _one_more(_one_more(_one_more(values))))
        if before is not None:
            after = _counters(accelerator)
            assert after is not None
            assert [new - old for new, old in zip(after, before, strict=True)] == [values.nbytes, 2 * values.nbytes]


def device_arrays_meet_the_host(name: str, folder: str) -> None:
    """From a file in chunks to the card, from there to a file, and to an array: what is reported is what was moved."""
    row = card(name)
    values = _values((5 << 20) + 7)
    source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
    apyfal.storage.save(source, values)
    with _open(row) as accelerator:
        kept = accelerator.device_empty(values.size, np.int32)
        jobs: list[tuple[Any, Any, tuple[int, int]]] = [
            (source, kept, (values.nbytes, 0)),
            (kept, target, (0, values.nbytes)),
            (kept, None, (0, values.nbytes)),
            (values[::-1][::-1], kept, (values.nbytes, 0)),
        ]
        for src, dst, moved in jobs:
            info: dict[str, Any] = {}
            before = _counters(accelerator)
            result = accelerator.process(src, dst, info_dict=info, memory_limit="64MiB", **row.parameters)
            assert (info["bytes_moved"]["to_device"], info["bytes_moved"]["from_device"]) == moved
            after = _counters(accelerator)
            if before is not None and after is not None:
                assert (after[0] - before[0], after[1] - before[1]) == moved
        assert result is kept
        np.testing.assert_array_equal(kept.get(), _one_more(values))
    np.testing.assert_array_equal(np.fromfile(target, np.int32), _one_more(_one_more(values)))


def device_arrays_end_with_their_device(name: str) -> None:
    """Closed once or twice, at the end of a block, or let go of: one clear line after that, and no memory left."""
    row = card(name)
    values = _values(50_000)
    with _open(row) as accelerator:
        device = accelerator._context.device
        used = device.counters()["memory_used"] if "counters" in device.info["capabilities"] else None
        for _ in range(50):
            with accelerator.put(values) as array:
                pass
            array.close()
            accelerator.put(values)
        if used is not None:
            trim_pool(0)  # imports of pooled memory are kept with it
            assert device.counters()["memory_used"] < used + 4 * values.nbytes
        for use in (array.get, lambda: accelerator.process(array, **row.parameters)):
            with pytest.raises(ClosedError, match=r"device array of .* was closed"):
                use()
        left = accelerator.put(values)
    with pytest.raises(ClosedError, match="is closed"):
        left.get()
    with _open(row) as accelerator, pytest.raises(ParameterError, match="opened by another accelerator"):
        accelerator.process(left, **row.parameters)


def accelerators_share_a_device(name: str) -> None:
    """One writes what the other reads, on the card; it is closed with the last. XDMA has one kernel."""
    row = card(name)
    values = _values(30_000)
    first = _open(row)
    try:
        with _open(row, device=first) as second:
            assert second._context.device is first._context.device
            middle, end = (first.device_empty(values.size, np.int32) for _ in range(2))
            first.process(values, middle, **row.parameters)
            if row.driver == "xdma":
                with pytest.raises(BufferInUse, match="already has a kernel; its register map is for one"):
                    second.process(middle, end, **row.parameters)
                return
            second.process(middle, end, **row.parameters)
            first.stop()
            np.testing.assert_array_equal(
                second.process(end, **row.parameters), _one_more(_one_more(_one_more(values)))
            )
    finally:
        first.stop()
    with pytest.raises(ClosedError):
        end.get()


def zeros_are_made_on_the_card_if_it_can(name: str) -> None:
    """An output that begins at zero: counted if the zeros had to be brought there; `clear_outputs = no` needs none."""
    row = card(name)
    values = _values(60_000)
    for clear in ("yes", "no"):
        with _open(row, chunking="whole", clear_outputs=clear) as accelerator:
            source, target = accelerator.put(values), accelerator.put(values)
            before = _counters(accelerator)
            info: dict[str, Any] = {}
            accelerator.process(source, target, info_dict=info, **row.parameters)
            np.testing.assert_array_equal(target.get(), _one_more(values))
            moved = info["bytes_moved"]["to_device"]
            assert moved in ((0, values.nbytes) if clear == "yes" else (0,))
            after = _counters(accelerator)
            if before is not None and after is not None:
                assert after[0] - before[0] == moved


def _section(keywords: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return keywords of `apyfal.Accelerator` as a section of a configuration."""
    section: dict[str, str] = {}
    for key, value in keywords.items():
        each = {f"{key}.{option}": one for option, one in value.items()} if isinstance(value, Mapping) else {key: value}
        section.update({name: str(one) for name, one in each.items() if one is not None})
    if parameters:
        section["parameters"] = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    return section


def _chain(row: Card, stages: str, **sections: Mapping[str, Any]) -> apyfal.Accelerator:
    config = {"accelerator.chain": {"stages": stages}, "accelerator.one": _section(row.increment, row.parameters)}
    config |= {f"accelerator.{name}": _section(keywords, row.parameters) for name, keywords in sections.items()}
    return apyfal.Accelerator("chain", config)


def a_chain_moves_its_input_once(name: str, folder: str) -> None:
    """Three kernels, one transfer in and one out, of an array, of a file in chunks, and of device arrays: then none."""
    row = card(name)
    source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
    with _chain(row, "one, one, one") as chain:
        for count in (1, 1000, 100_003, (5 << 20) + 7):
            values = _values(count)
            expected = _one_more(_one_more(_one_more(values)))
            apyfal.storage.save(source, values)
            kept = chain.put(values)
            jobs: list[tuple[Any, Any, tuple[int, int]]] = [
                (values, None, (values.nbytes, values.nbytes)),
                (source, target, (values.nbytes, values.nbytes)),
                (kept, kept, (0, 0)),
            ]
            for src, dst, moved in jobs:
                before = _counters(chain)
                info: dict[str, Any] = {}
                result = chain.process(src, dst, info_dict=info, memory_limit="64MiB")
                assert (info["bytes_moved"]["to_device"], info["bytes_moved"]["from_device"]) == moved
                after = _counters(chain)
                if before is not None and after is not None:
                    assert (after[0] - before[0], after[1] - before[1]) == moved
                if dst is None:
                    np.testing.assert_array_equal(result, expected)
            np.testing.assert_array_equal(np.fromfile(target, np.int32), expected)
            np.testing.assert_array_equal(kept.get(), expected)


def stages_of_a_chain_are_in_order(name: str) -> None:
    """Each run on what the one before it wrote, by four jobs at once on one accelerator."""
    row = card(name)
    sources = [_values(20_000 + 64 * seed, seed) for seed in range(24)]
    with _chain(row, ", ".join(["one"] * 7)) as chain:
        for values, result in zip(sources, chain.process_map(sources), strict=True):
            np.testing.assert_array_equal(result, (values.view(np.uint32) + np.uint32(7)).view(np.int32))


def a_stage_that_fails_is_named(name: str) -> None:
    """The error is that of the first stage that failed; the next job is as good as any."""
    row = card(name)
    if row.name not in ("xrt", "opencl-fake"):
        return  # the others have no kernel that fails by itself
    assert row.failing is not None
    assert row.hang is not None
    values = _values(1000)
    with _chain(row, "one, failing, one", failing=row.failing) as chain:
        for _ in range(3):
            with pytest.raises(KernelError, match="fail"):
                chain.process(values)
    with _chain(row, "one, hanging, one", hanging=row.hang) as chain:
        with pytest.raises(RunTimeout):
            chain.process(values, timeout=0.3)
        assert row.release is not None
        row.release(values)
        assert chain.process(values, timeout=20).size == values.size  # which is behind the one that hung
    with _chain(row, "one, one") as chain:
        np.testing.assert_array_equal(chain.process(values), _one_more(_one_more(values)))


def queued_jobs_run_in_order(name: str) -> None:
    """Jobs of two accelerators on one device: each on what the one before it wrote; nothing moves between them."""
    row = card(name)
    values = _values(100_003)
    with _open(row) as first:
        second = first if row.driver == "xdma" else _open(row, device=first)
        kept, other, third = first.put(values), *(first.device_empty(values.shape, values.dtype) for _ in range(2))
        arrays = [kept, other, third]
        before = _counters(first)
        infos: list[dict[str, Any]] = [{} for _ in range(150)]  # more than can be in flight
        jobs = [
            (first, second)[number % 2].enqueue(
                arrays[number % 3], arrays[(number + 1) % 3], info_dict=info, **row.parameters
            )
            for number, info in enumerate(infos)
        ]
        assert jobs[-1].result(60) is arrays[len(jobs) % 3]
        assert all(job.done() for job in jobs)
        after = _counters(first)
        for info in infos:
            assert info["bytes_moved"] == {"to_device": 0, "from_device": 0}
            assert (info["bytes_in"], info["bytes_out"], info["chunks"]) == (values.nbytes, values.nbytes, 1)
        if before is not None:
            assert before == after
        for back in range(3):
            expected = (values.view(np.uint32) + np.uint32(len(jobs) - back)).view(np.int32)
            np.testing.assert_array_equal(arrays[(len(jobs) - back) % 3].get(), expected)
        # a job of the host's own is behind the queued ones, and queued ones are behind it
        first.enqueue(kept, other, **row.parameters)
        np.testing.assert_array_equal(second.process(other, **row.parameters), _one_more(_one_more(kept.get())))
        if second is not first:
            second.stop()


def queued_jobs_need_no_host(name: str) -> None:
    """While a job is at work on the card, others are queued behind it: the host waits for none of them."""
    row = card(name)
    if row.hang is None:
        return
    values = _values(1000)
    values[0] = 0  # for kernels that wait for another value there
    with apyfal.Accelerator(**row.hang) as hanging:
        second = hanging if row.driver == "xdma" else _open(row, device=hanging)
        source = hanging.put(values)
        targets = [hanging.device_empty(values.shape, values.dtype) for _ in range(3)]
        first = hanging.enqueue(source, targets[0], **row.parameters)
        behind = [second.enqueue(targets[at], targets[at + 1], **row.parameters) for at in range(2)]
        assert not first.done()
        assert not any(job.done() for job in behind)
        with pytest.raises(RunTimeout, match=r"did not end within 0\.05 s; it stays queued"):
            behind[1].result(0.05)
        if row.release is None:
            first.cancel()
            for job in (first, *behind):
                with pytest.raises(RunCancelled):
                    job.result(20)
            with pytest.raises(RunCancelled):
                targets[2].get()
        else:
            row.release(np.from_dlpack(source) if row.name in ("opencl-pocl", "opencl-intel") else values)
            assert behind[1].result(20) is targets[2]
            assert first.done()
        if second is not hanging:
            second.stop()


def what_is_behind_a_failed_job_fails(name: str) -> None:
    """The error of a queued job is that of all that use its result, of its array, and of `process` on that."""
    row = card(name)
    if row.failing is None or row.name == "emulator":
        return  # the software card fails the first run, whichever it is
    values = _values(1000)
    says = "no buffer of this run covers" if row.driver == "rtl" else "fail"
    with apyfal.Accelerator(**row.failing) as failing, _open(row, device=failing) as second:
        source = failing.put(values)
        targets = [failing.device_empty(values.shape, values.dtype) for _ in range(3)]
        jobs = [
            failing.enqueue(source, targets[0]),
            second.enqueue(targets[0], targets[1], **row.parameters),
            second.enqueue(targets[1], targets[2], **row.parameters),
        ]
        for job in reversed(jobs):
            with pytest.raises(KernelError, match=says):
                job.result(20)
        for target in targets:
            with pytest.raises(KernelError, match=says):
                target.get()
        with pytest.raises(KernelError, match=says):
            second.process(targets[2], **row.parameters)
        targets[0].set(values)
        second.process(targets[0], targets[1], **row.parameters)
        assert second.enqueue(targets[1], targets[2], **row.parameters).result(20) is targets[2]
        np.testing.assert_array_equal(targets[2].get(), _one_more(_one_more(values)))
