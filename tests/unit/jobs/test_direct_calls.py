"""Jobs of `process` over arrays that are like one before: decided once, in place or copied, and never another's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pinned import pinned

import apyfal
from apyfal.definition.models import model
from apyfal.exceptions import CopyRefused, KernelError, ParameterError
from apyfal.memory import metered


def test_process_takes_the_short_way_for_equal_jobs_alone(scale: apyfal.Accelerator, direct_runs: list[str]) -> None:
    src, dst = pinned(np.arange(2048), "i4"), pinned(np.zeros(2048), "i4")
    jobs: list[tuple[Any, Any, dict[str, Any], int]] = [
        (src, dst, {}, 0),  # the first of its kind
        (src, dst, {}, 1),
        (pinned(np.arange(2048) + 5, "i4"), dst, {}, 1),  # other memory
        (src, src, {}, 1),
        (src, None, {}, 0),
        (src, None, {}, 1),
        (src[:1024], None, {}, 0),  # another size
        (src.view("u4"), None, {}, 0),  # another type
        (src, dst, {"a": 2}, 0),  # another value
        (src, dst, {"a": 2}, 1),
        (src, dst, {"a": "2"}, 0),  # equal, and another text
        (np.arange(4100, dtype="i4")[1:2049], dst, {}, 1),  # the same shape, elsewhere in memory: copied
        (src[1024:], dst[1024:], {}, 0),
        (src[:1024], src[1024:], {}, 1),  # the halves of one array
        (dst[::2], None, {}, 0),
    ]
    for source, target, parameters, expected in jobs:
        if source is src or (isinstance(source, np.ndarray) and np.shares_memory(source, src)):
            src[...] = np.arange(2048)
        wanted = source * int(parameters.get("a", 1))
        del direct_runs[:]
        result = scale.process(source, target, **parameters)
        np.testing.assert_array_equal(result, wanted)
        assert target is None or result is target
        assert len(direct_runs) == expected, parameters
    with pytest.raises(ParameterError, match="overlap"):
        scale.process(src[:1024], src[512:1536])
    read_only = dst[:]
    read_only.flags.writeable = False
    with pytest.raises(ParameterError, match="read-only"):
        scale.process(src, read_only)


@pytest.mark.parametrize("moved", ["input", "output", "both"])
def test_what_is_copied_on_the_short_way(scale: apyfal.Accelerator, direct_runs: list[str], moved: str) -> None:
    """Arrays that the card cannot use in place: the same values, counts and reasons as on the long way."""

    def elsewhere(count: int) -> np.ndarray:
        return apyfal.empty(count + 1, "i4")[1:]

    src, dst = pinned(np.arange(2048), "i4"), pinned(np.zeros(2048), "i4")
    if moved != "output":
        src = elsewhere(2048)
    if moved != "input":
        dst = elsewhere(2048)
    infos: list[dict[str, Any]] = [{}, {}, {}]
    for number, info in enumerate(infos):
        src[...] = np.arange(2048) + number
        dst[...] = 0
        assert scale.process(src, dst, info_dict=info, a=3) is dst
        np.testing.assert_array_equal(dst, (np.arange(2048) + number) * 3)
    assert direct_runs == ["run_once"] * 2
    names = {"input": ["src"], "output": ["dst"], "both": ["src", "dst"]}[moved]
    for info in infos:
        assert info["bytes_copied"] == len(names) * 8192
        assert [reason.split(":")[0] for reason in info["copy_reasons"]] == names
        same = ("copy_reasons", "bytes_in", "bytes_out", "chunks", "bytes_to_device", "bytes_from_device")
        assert {key: info.get(key) for key in same} == {key: infos[0].get(key) for key in same}
    for info in infos[1:]:
        assert (info["seconds"]["fetch"] > 0) is ("src" in names)
        assert (info["seconds"]["store"] > 0) is ("dst" in names)
    with pytest.raises(CopyRefused, match=f"{names[0]}: .* and copy=False"):
        scale.process(src, dst, copy=False, a=3)
    run = scale.prepare(src, dst, a=3)  # a prepared job copies, too, but not on the short way
    del direct_runs[:]
    np.testing.assert_array_equal(run(), (np.arange(2048) + 2) * 3)
    assert direct_runs == ["run_once"]


def test_what_takes_the_long_way_though_a_job_of_its_kind_was_direct(
    scale: apyfal.Accelerator, direct_runs: list[str]
) -> None:
    count = (4 << 20) // 4 + 1
    # by chance, numpy's own memory begins at a page, and is used in place: not behind the first element of the pool's
    large, src = apyfal.empty(count + 1, "i4")[1:], apyfal.empty(2049, "i4")[1:]
    large[...], src[...] = np.arange(count), np.arange(2048)
    for other in (large, np.arange(2 * 2048, dtype="i4")[::2]):
        for _ in range(3):
            np.testing.assert_array_equal(scale.process(other), other)
    assert not direct_runs  # too large to be copied at once, not contiguous
    for _ in range(2):
        scale.process(src)
    assert direct_runs == ["run_once"]
    np.testing.assert_array_equal(scale.process(src, memory_limit="64 KiB"), src)  # may be smaller than the copy
    assert direct_runs == ["run_once"]


@pytest.mark.parametrize("first", [0, 1], ids=["numbers first", "structs first"])
def test_arrays_of_equal_shapes_and_other_types_are_jobs_of_other_kinds(first: int) -> None:
    """Rows of four numbers and structs of four are vectors to a kernel, and there are four times as many structs."""

    @model("sums", dtype=np.dtype(("f4", (4,))), out_dtype="float32", output="1/4x", replace=True)
    def sums(src: np.ndarray, dst: np.ndarray) -> None:
        dst[...] = src.reshape(-1, 4).sum(axis=1)

    kinds = [np.ones((8, 4), "f4"), np.ones((8, 4), np.dtype([(name, "f4") for name in "xyzw"]))]
    with apyfal.Accelerator("sums") as card:
        for _ in range(3):
            for src in (kinds[first], kinds[1 - first]):
                for array in (src, pinned(src)):
                    result = card.process(array)
                    assert result.nbytes == array.nbytes // 4
                    assert set(result.reshape(-1)) == {4.0}


def test_copies_of_data_that_is_not_cut_are_charged_for_each_job(direct_runs: list[str]) -> None:
    @model("whole", dtype="uint8", chunking="whole", replace=True)
    def whole(src: np.ndarray, dst: np.ndarray) -> None:
        dst[...] = src

    charged: list[int] = []

    class Counting:
        def reserve(self, count: int) -> None:
            charged.append(count)

        def release(self, count: int) -> None:
            pass

    src, dst = apyfal.empty(4097, "u1")[1:], apyfal.empty(4097, "u1")[1:]
    totals = []
    with apyfal.Accelerator("whole") as card, metered(Counting()):
        for _ in range(3):
            charged.clear()
            card.process(src, dst)
            totals.append(sum(charged))
    assert totals == [8192] * 3
    assert len(direct_runs) == 2


def test_what_is_too_large_to_be_copied_at_once_leaves_the_kept_decision_alone(scale: apyfal.Accelerator) -> None:
    count = 5 << 18  # 5 MiB
    whole = pinned(np.arange(count), "i4")
    elsewhere = apyfal.empty(count + 1, "i4")[1:]
    elsewhere[...] = whole
    for _ in range(2):
        np.testing.assert_array_equal(scale.process(elsewhere), whole)
    assert not scale._context.direct
    for _ in range(2):
        scale.process(whole)
    kept = dict(scale._context.direct)
    scale.process(elsewhere)
    assert list(map(id, scale._context.direct.values())) == list(map(id, kept.values()))


def test_read_only_sources_and_those_that_the_kernel_may_write_stay_as_they_are(direct_runs: list[str]) -> None:
    @model("spoils", dtype="uint8", replace=True)
    def spoils(src: np.ndarray, dst: np.ndarray) -> None:
        dst[...] = src + 1
        with contextlib.suppress(ValueError):  # read-only
            src[...] = 0

    read_only = np.frombuffer(bytes(range(200)), np.uint8)
    writable = np.arange(200, dtype=np.uint8)
    with apyfal.Accelerator("spoils") as card:
        for src in (read_only, writable, pinned(np.arange(200), "u1")):
            for _ in range(3):
                np.testing.assert_array_equal(card.process(src), np.arange(200) + 1)
                np.testing.assert_array_equal(src, np.arange(200))
    assert direct_runs


def test_a_failed_run_leaves_a_destination_that_is_copied_as_it_was(direct_runs: list[str]) -> None:
    @model("fails", dtype="uint8", replace=True)
    def fails(src: np.ndarray, dst: np.ndarray) -> None:
        dst[...] = 9
        if src[0]:
            raise ZeroDivisionError("src[0] is 1")

    src, dst = np.zeros(100, np.uint8), np.zeros(100, np.uint8)
    with apyfal.Accelerator("fails") as card:
        for _ in range(2):
            card.process(src, dst)
        src[0], dst[...] = 1, 5
        info: dict[str, Any] = {}
        with pytest.raises(KernelError) as caught:
            card.process(src, dst, info_dict=info)
        assert (info["bytes_in"], info["bytes_out"]) == (100, 0)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert set(dst) == {5}
        src[0] = 0
        card.process(src, dst)
        assert set(dst) == {9}
    assert len(direct_runs) == 3


def test_outputs_that_are_cleared_are_cleared_where_they_are_copied_from(direct_runs: list[str]) -> None:
    @model("half", dtype="uint8", replace=True)
    def half(src: np.ndarray, dst: np.ndarray) -> None:
        dst[: len(dst) // 2] = src[: len(src) // 2]

    src, dst = apyfal.empty(1001, "u1")[1:], apyfal.empty(1001, "u1")[1:]
    with apyfal.Accelerator("half", clear_outputs="yes") as card:
        for number in range(1, 5):
            src[...], dst[...] = number, 99
            assert card.process(src, dst) is dst
            assert (set(dst[:500]), set(dst[500:])) == ({number}, {0})
    assert len(direct_runs) == 3


def test_a_configuration_that_forbids_copies_forbids_them_to_every_job(direct_runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "own.conf").write_text("[process]\ncopy = no\n")
    src, dst = pinned(np.arange(100), "u1"), pinned(np.zeros(100), "u1")
    elsewhere = apyfal.empty(101, "u1")[1:]
    with apyfal.Accelerator("loopback", tmp_path / "own.conf") as card:
        for _ in range(3):
            card.process(src, dst, copy=True)
            with pytest.raises(CopyRefused, match=r"src: .* and copy=False"):
                card.process(elsewhere, dst, copy=True)
            with pytest.raises(CopyRefused, match=r"dst: .* and copy=False"):
                card.process(src, elsewhere)
    assert direct_runs == ["run_once"] * 2
