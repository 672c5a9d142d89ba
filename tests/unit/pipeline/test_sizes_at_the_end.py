"""Arrays for outputs whose size is known at the end only: of streams, and of kernels that report it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ParameterError

DATA = bytes(range(50))
SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda data: data,
    "array": lambda data: np.frombuffer(data, np.uint8),
    "file": io.BytesIO,
    "stream": lambda data: Stream(data),
}
#: arrays of 60 bytes, each 7
TARGETS: dict[str, Callable[[], np.ndarray]] = {
    "plain": lambda: np.full(60, 7, np.uint8),
    "pinned": lambda: _pinned(60),
    "every second": lambda: np.full(120, 7, np.uint8)[::2],
    "backwards": lambda: np.full(60, 7, np.uint8)[::-1],
}


class Stream(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any, /) -> int:
        return self._data.readinto(out)


def _pinned(count: int) -> np.ndarray:
    array = apyfal.empty(count, np.uint8)
    array[...] = 7
    return array


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("length", [0, 50])
def test_what_a_kernel_does_not_write_stays(length: int, source: str, target: str) -> None:
    data = DATA[:length]
    dst = TARGETS[target]()
    with apyfal.Accelerator("gunzip") as gunzip:
        assert gunzip.process(SOURCES[source](gzip.compress(data)), dst) is dst
    assert dst.tobytes() == data + b"\7" * (60 - length)


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_kernel_does_not_write_stays_in_a_batch(target: str) -> None:
    packed = np.frombuffer(gzip.compress(DATA), np.uint8)
    targets = [TARGETS[target]() for _ in range(8)]
    with apyfal.Accelerator("gunzip") as gunzip:
        results = list(gunzip.process_map([packed] * 8, targets))
        for result, dst in zip(results, targets, strict=True):
            assert result is dst
            assert dst.tobytes() == DATA + b"\7" * 10
        with pytest.raises(ParameterError, match="dst: it has 49 bytes, and the output has more"):
            list(gunzip.process_map([packed] * 8, [np.zeros(49, np.uint8) for _ in range(8)]))


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_compressed_into_an_array_in_place(source: str) -> None:
    """The output of a kernel that reports its size can be larger than its input."""
    dst = _pinned(60)
    with apyfal.Accelerator("gzip") as accelerator:
        accelerator.process(SOURCES[source](b""), dst)
    assert gzip.decompress(dst.tobytes().rstrip(b"\7")) == b""


@pytest.mark.parametrize("target", TARGETS)
def test_a_stream_fills_the_array_or_fails(target: str) -> None:
    """As data of a known size does."""
    dst = TARGETS[target]()
    with apyfal.Accelerator("loopback") as loopback:
        with pytest.raises(ParameterError, match="dst: an array of 60 bytes; this job's output has 50"):
            loopback.process(Stream(DATA), dst)
        loopback.process(Stream(DATA + bytes(10)), dst)
    assert dst.tobytes() == DATA + bytes(10)


@pytest.mark.parametrize("target", [None, *TARGETS])
def test_a_part_of_an_element_is_an_error(target: str | None) -> None:
    dst = None if target is None else TARGETS[target]()[:56].copy().view(np.float64)
    with (
        apyfal.Accelerator("gunzip", out_dtype="float64") as gunzip,
        pytest.raises(ParameterError, match="50 bytes is not a whole number of float64 elements"),
    ):
        gunzip.process(gzip.compress(DATA), dst)


def test_a_part_of_an_element_is_an_error_in_a_batch() -> None:
    packed = np.frombuffer(gzip.compress(DATA), np.uint8)
    with (
        apyfal.Accelerator("gunzip", out_dtype="float64") as gunzip,
        pytest.raises(ParameterError, match="50 bytes is not a whole number of float64 elements"),
    ):
        list(gunzip.process_map([packed] * 8))
