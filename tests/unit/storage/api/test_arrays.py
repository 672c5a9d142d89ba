"""`apyfal.storage.load` and `save`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import ObjectNotFound, ParameterError
from apyfal.memory import empty, is_pinned
from apyfal.storage.endpoints.factory import open_sink

DATA = np.random.default_rng(0).integers(0, 1 << 30, 3_000_000, dtype=np.int32)


@pytest.fixture(params=["local", "store"])
def url(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> str:
    return str(tmp_path / "file") if request.param == "local" else "mem://bucket/file"


def test_round_trip(url: str) -> None:
    storage.save(url, DATA)
    again = storage.load(url, "int32")
    assert again.dtype == np.int32
    assert np.array_equal(again, DATA)
    assert storage.load(url).nbytes == DATA.nbytes
    assert storage.load(url, "int32", (1000, 3000)).shape == (1000, 3000)
    assert storage.load(url, "int32", (-1, 3)).shape == (1_000_000, 3)
    assert storage.load(url, "int32", 3_000_000).shape == (3_000_000,)


def test_where_it_lies(tmp_path: Path, store: MemoryHandler) -> None:
    storage.save(tmp_path / "f", DATA)
    storage.save("mem://b/f", DATA)
    mapped, received = storage.load(tmp_path / "f"), storage.load("mem://b/f")
    assert not mapped.flags.writeable
    assert received.flags.writeable
    assert is_pinned(received)


def test_large_local_files_are_written_around_the_cache(tmp_path: Path) -> None:
    data = empty((64 << 20) + 4097, np.uint8)
    data[:] = np.arange(len(data)) % 251
    storage.save(tmp_path / "f", data)
    assert np.array_equal(storage.load(tmp_path / "f"), data)
    with open_sink(tmp_path / "f", len(data)) as sink:  # in pieces that are aligned and not
        for begin, end in ((0, 5 << 20), (5 << 20, 5 << 20 | 1), (5 << 20 | 1, 9 << 20), (9 << 20, len(data))):
            sink.write(data[begin:end].data)
    assert np.array_equal(storage.load(tmp_path / "f"), data)


def test_out(url: str) -> None:
    storage.save(url, DATA)
    out = np.zeros((3000, 1000), np.int32)
    assert storage.load(url, out=out) is out
    assert np.array_equal(out.reshape(-1), DATA)
    for wrong in (np.zeros(10), np.zeros(DATA.nbytes + 1, np.uint8)):
        with pytest.raises(ParameterError, match=r"12000000|do not fit"):
            storage.load(url, out=wrong)
    for wrong in (np.zeros((3000, 2000), np.int32)[:, ::2], np.zeros(3, object)):
        with pytest.raises(ParameterError, match="into out"):
            storage.load(url, out=wrong)
    with pytest.raises(ParameterError, match="expected a numpy array"):
        storage.load(url, out=bytearray(10))  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0),
        np.array(3.5),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(20)[::3],
        np.array(["a", "bc"]),
        np.array([("x", 1)], dtype=[("a", "S4"), ("b", "i8")]),
        np.array(["2026-01-01"], "datetime64[D]"),
        np.zeros((0, 3), np.int8),
    ],
    ids=str,
)
def test_any_array(url: str, array: np.ndarray) -> None:
    storage.save(url, array)
    again = storage.load(url, array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape


def test_file_objects_and_streams() -> None:
    file = io.BytesIO()
    storage.save(file, DATA)
    file.seek(0)
    assert np.array_equal(storage.load(file, np.int32), DATA)
    file.seek(4)
    assert storage.load(file, np.int32)[0] == DATA[1]
    file.seek(0)
    out = np.empty_like(DATA)
    storage.load(file, out=out)
    assert np.array_equal(out, DATA)
    assert b"Name:" in storage.load("/proc/self/status").tobytes()


def test_what_does_not_fit(url: str) -> None:
    storage.save(url, np.zeros(10, np.uint8))
    with pytest.raises(ParameterError, match="10 bytes, no whole number of int32"):
        storage.load(url, np.int32)
    for shape in (3, (3, 3), (-1, 3), (-1, -1), (-2, 5), (0, -1)):
        with pytest.raises(ParameterError, match="do not make the shape"):
            storage.load(url, shape=shape)
    with pytest.raises(ParameterError, match="Python objects"):
        storage.load(url, object)
    with pytest.raises(ParameterError, match="Python objects"):
        storage.save(url, np.array([None]))
    with pytest.raises(ObjectNotFound):
        storage.load(url + "no")
