"""Every kind of object with memory: its bytes go to the card as they lie there, or one line says why not.

A subclass of numpy's array, whatever it makes of shapes and products, counts as its memory.
"""

from __future__ import annotations

import array
import ctypes
import hashlib
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pinned import pinned

import apyfal
from apyfal import storage
from apyfal.exceptions import CopyRefused, ParameterError

#: numpy discourages matrices, which scipy still makes.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

VALUES = np.arange(12, dtype=np.int32)


class Subclass(np.ndarray):
    """Shapes of its own, as a matrix has, and products of its own."""

    def reshape(self, *shape: Any, **keywords: Any) -> Any:
        raise AssertionError("a subclass' own method was used")

    __mul__ = view = reshape


class Converting:
    """Gives a new array whenever it is asked, as columns of several types and images do."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return VALUES.copy()


class Sharing(Converting):
    """Gives its own memory, as a column of one type does."""

    def __init__(self) -> None:
        self.values = VALUES.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


def file_mapped(folder: Path) -> np.ndarray:
    VALUES.tofile(folder / "map")
    return np.memmap(folder / "map", np.int32, "r+")


def pandas_column() -> Any:
    return pytest.importorskip("pandas").Series(VALUES.copy())


SOURCES: dict[str, Callable[[Path], Any]] = {
    "matrix": lambda _: np.asmatrix(VALUES.copy().reshape(3, 4)),
    "matrix, one row": lambda _: np.asmatrix(VALUES),
    "pinned matrix": lambda _: np.asmatrix(pinned(VALUES.reshape(3, 4))),
    "transposed matrix": lambda _: np.asmatrix(VALUES.reshape(3, 4).T.copy()).T,
    "own subclass": lambda _: VALUES.copy().view(Subclass),
    "memmap": file_mapped,
    "array.array": lambda _: array.array("i", VALUES.tolist()),
    "ctypes": lambda _: (ctypes.c_int32 * 12)(*VALUES.tolist()),
    "ctypes, two dimensions": lambda _: (ctypes.c_int32 * 4 * 3).from_buffer_copy(VALUES),
    "memoryview": lambda _: memoryview(VALUES.copy()),
    "raw memoryview": lambda _: memoryview(VALUES.tobytes()),
    "bytes": lambda _: VALUES.tobytes(),
    "bytearray": lambda _: bytearray(VALUES.tobytes()),
    "mmap": lambda _: anonymous(),
    "apyfal's Buffer": lambda _: buffer(),
    "__array__, shared": lambda _: Sharing(),
    "__array__, converted": lambda _: Converting(),
    "pandas": lambda _: pandas_column(),
    "arrow": lambda _: pytest.importorskip("pyarrow").py_buffer(VALUES.tobytes()),
    "arrow array": lambda _: pytest.importorskip("pyarrow").array(VALUES),
}


def anonymous() -> mmap.mmap:
    memory = mmap.mmap(-1, VALUES.nbytes)
    memory[:] = VALUES.tobytes()
    return memory


def buffer() -> Any:
    from apyfal._core.buffer import Buffer

    made = Buffer(VALUES.nbytes)
    with memoryview(made) as view:
        view[:] = VALUES.tobytes()
    return made


@pytest.fixture(scope="module")
def scale() -> Any:
    with apyfal.Accelerator("scale", dtype="int32") as accelerator:
        yield accelerator


@pytest.fixture(scope="module")
def sha3() -> Any:
    with apyfal.Accelerator("sha3") as accelerator:
        yield accelerator


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_counts_as_its_memory(name: str, scale: Any, sha3: Any, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    shown = np.asarray(source) if isinstance(source, np.ndarray) else VALUES
    info: dict[str, Any] = {}
    result = scale.process(source, a=3, info_dict=info)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result.ravel(), shown.ravel() * 3)
    assert info["bytes_in"] == VALUES.nbytes
    digest = hashlib.sha3_256(np.ascontiguousarray(shown).tobytes()).hexdigest()
    assert sha3.process(source)["digest"] == digest


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_of_many_jobs_counts_as_its_memory(name: str, scale: Any, tmp_path: Path) -> None:
    """Small jobs that wait are packed into one transfer."""
    sources = [SOURCES[name](tmp_path) for _ in range(8)]
    for source, result in zip(sources, scale.process_map(sources, a=3), strict=True):
        shown = np.asarray(source) if isinstance(source, np.ndarray) else VALUES
        np.testing.assert_array_equal(result.ravel(), shown.ravel() * 3)


#: What states its type, without a declared one: a card must not take it for bytes.
TYPED: dict[str, Callable[[], Any]] = {
    "array.array": lambda: array.array("i", VALUES.tolist()),
    "ctypes": lambda: (ctypes.c_int32 * 12)(*VALUES.tolist()),
    "memoryview": lambda: memoryview(VALUES.copy()),
    "pandas": lambda: pytest.importorskip("pandas").Series(VALUES.copy()),
    "pandas over arrow": lambda: pytest.importorskip("pandas").Series(VALUES, dtype="int32[pyarrow]"),
    "pandas frame": lambda: pytest.importorskip("pandas").DataFrame({"a": VALUES}),
    "polars": lambda: pytest.importorskip("polars").Series(VALUES),
    "arrow array": lambda: pytest.importorskip("pyarrow").array(VALUES),
    "arrow, in chunks": lambda: pytest.importorskip("pyarrow").chunked_array([VALUES[:5], VALUES[5:]]),
    "arrow tensor": lambda: pytest.importorskip("pyarrow").Tensor.from_numpy(VALUES.copy()),
    "arrow batch": lambda: pytest.importorskip("pyarrow").record_batch({"a": VALUES}),
    "arrow table": lambda: pytest.importorskip("pyarrow").table({"a": VALUES}),
}


@pytest.mark.parametrize("name", TYPED)
def test_elements_keep_their_type(name: str) -> None:
    with apyfal.Accelerator("scale") as undeclared:
        result = undeclared.process(TYPED[name](), a=300)
        many = list(undeclared.process_map([TYPED[name]() for _ in range(4)], a=300))
    for one in (result, *many):
        assert one.dtype == np.int32
        np.testing.assert_array_equal(one.ravel(), VALUES * 300)


class Transposing(Converting):
    """Gives a view of what it has just made, as tables of several columns do."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return VALUES.reshape(3, 4).copy().T


@pytest.mark.parametrize(
    ("make", "is_copy"),
    [
        (Converting, True),
        (Transposing, True),
        (Sharing, False),
        (VALUES.copy, False),
        (VALUES.tobytes, False),
    ],
)
def test_a_copy_that_an_object_makes_of_itself_is_counted(make: Callable[[], Any], is_copy: bool, scale: Any) -> None:
    reason = "src: converted to an array by its own __array__"
    info: dict[str, Any] = {}
    scale.process(make(), info_dict=info)
    assert (reason in info["copy_reasons"]) == is_copy
    if is_copy:
        assert info["bytes_copied"] >= VALUES.nbytes
        with pytest.raises(CopyRefused, match="its own __array__"):
            scale.process(make(), copy=False)
    found: list[dict[str, Any]] = []
    list(scale.process_map([make() for _ in range(4)], info_list=found))
    assert all((reason in one["copy_reasons"]) == is_copy for one in found)


TARGETS = (
    "matrix",
    "pinned matrix",
    "own subclass",
    "memmap",
    "array.array",
    "ctypes",
    "memoryview",
    "__array__, shared",
)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("many", [False, True])
def test_results_are_written_into_memory_of_every_kind(many: bool, name: str, scale: Any, tmp_path: Path) -> None:
    target = SOURCES[name](tmp_path)
    if many:
        list(scale.process_map([VALUES] * 4, [np.empty_like(VALUES)] * 3 + [target], a=5))
    else:
        scale.process(VALUES, target, a=5)
    np.testing.assert_array_equal(np.asarray(target).ravel(), VALUES * 5)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "mask": (lambda: np.ma.MaskedArray(VALUES, mask=VALUES % 2), r"a masked array: its mask would be lost; expected"),
    "pinned mask": (lambda: np.ma.MaskedArray(pinned(VALUES), mask=VALUES % 2), r"a masked array: its mask would be"),
    "objects": (lambda: np.array([1, None], dtype=object), "object"),
    "a GPU's memory": (
        lambda: SimpleNamespace(__cuda_array_interface__={"shape": (3,), "typestr": "<i4", "data": (16, False)}),
        "SimpleNamespace: its memory is a GPU's; expected a copy in the host's memory",
    ),
    "text": (lambda: array.array("u" if sys.version_info < (3, 13) else "w", "abc"), "<U1"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way", ["process", "process_map", "dst"])
def test_what_would_lose_a_part_of_what_it_says_is_refused(name: str, way: str, scale: Any) -> None:
    make, message = REFUSED[name]
    ways: dict[str, Callable[[], object]] = {
        "process": lambda: scale.process(make(), a=3),
        "process_map": lambda: list(scale.process_map([make()] * 3, a=3)),
        "dst": lambda: scale.process(VALUES, make(), a=3),
    }
    with pytest.raises(ParameterError, match=message) as raised:
        ways[way]()
    assert "\n" not in str(raised.value).removesuffix("\nin job 0 of process_map")


def test_results_are_not_written_into_a_copy(scale: Any) -> None:
    with pytest.raises(ParameterError, match="Converting: results cannot be written to it, it gives a copy"):
        scale.process(VALUES, Converting(), a=3)


def test_a_mask_is_not_lost_on_the_way_to_a_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="masked array"):
        storage.save(tmp_path / "file", np.ma.MaskedArray(VALUES, mask=VALUES % 2))
    storage.save(tmp_path / "file", np.asmatrix(VALUES))
    assert (tmp_path / "file").read_bytes() == VALUES.tobytes()
