"""What users of comparable tools have reported, tried here; each docstring names repository, number and outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import apyfal
from apyfal import storage


def put(place: str, *names: str) -> None:
    for name in names:
        storage.filesystem().pipe_file(f"{place}/{name}", name.encode())


def names(place: str) -> list[str]:
    return sorted(one.removeprefix(f"{place}/") for one in storage.filesystem().find(place))


@pytest.mark.parametrize("name", ["a[1]", "a?b", "a*", "[", "d[0]/f"])
def test_a_name_that_looks_like_a_pattern_is_copied(place: str, tmp_path: Path, name: str) -> None:
    """fsspec/s3fs #565: a key with ``[`` was read as a pattern by `copy`, and not found.

    Here: `cp` had made a directory of the destination's name, and a file could not be written into such a directory of
    a store in memory. Mended, for `cp`, `get`, `put`, `mv` and `rm`.
    """
    fs = storage.filesystem()
    put(place, name, "a1", "axb")
    fs.cp(f"{place}/{name}", f"{place}/copy")
    fs.get(f"{place}/{name}", str(tmp_path / "got"))
    (tmp_path / "a[1]").write_bytes(b"local")
    fs.put(str(tmp_path / "a[1]"), f"{place}/put")
    fs.mv(f"{place}/copy", f"{place}/moved")
    assert (tmp_path / "got").read_bytes() == fs.cat_file(f"{place}/moved") == name.encode()
    assert fs.cat_file(f"{place}/put") == b"local"
    assert names(place) == sorted([name, "a1", "axb", "moved", "put"])


@pytest.mark.parametrize(("name", "other"), [("f?", "fx"), ("f*", "fxy"), ("f[xy]", "fx")])
def test_removing_a_name_that_looks_like_a_pattern_leaves_others(place: str, name: str, other: str) -> None:
    """danielfrg/s3contents #165: removing ``test?file.txt`` removed ``test_file.txt``, too. Here it had; mended."""
    put(place, name, other)
    storage.filesystem().rm(f"{place}/{name}")
    assert names(place) == [other]
    storage.filesystem().rm(f"{place}/{name}")  # no such name: now it is a pattern
    assert names(place) == []


def test_directory_that_looks_like_a_pattern(place: str, tmp_path: Path) -> None:
    """danielfrg/s3contents #165, second example: a directory ``test?dir`` could not be removed or renamed. Mended."""
    fs = storage.filesystem()
    put(place, "d?/f", "d?/s/g", "dx/h")
    fs.cp(f"{place}/d?", f"{place}/e", recursive=True)
    fs.get(f"{place}/d?", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "s" / "g").read_bytes() == b"d?/s/g"
    fs.rm(f"{place}/d?", recursive=True)
    assert names(place) == ["dx/h", "e/f", "e/s/g"]


def test_an_empty_object(place: str, tmp_path: Path) -> None:
    """piskvorky/smart_open #548 and #667, minio/mc #1876: an empty object could not be read or copied. Right here."""
    storage.save(f"{place}/empty", np.zeros(0, np.uint8))
    with storage.open(f"{place}/empty") as file:
        assert (file.read(), file.seek(0, 2)) == (b"", 0)
    assert storage.load(f"{place}/empty").size == 0
    storage.copy(f"{place}/empty", str(tmp_path / "copied"))
    assert (tmp_path / "copied").read_bytes() == b""


def test_seeking_past_the_end(place: str) -> None:
    """piskvorky/smart_open #549: an error of the store's for a range past the end. Right here."""
    put(place, "x")
    with storage.open(f"{place}/x") as file:
        assert file.seek(1_000_000_000) == 1_000_000_000
        assert file.read() == b""


def test_lines_after_going_back(place: str) -> None:
    """piskvorky/smart_open #95: `readline` after `read` and ``seek(0)`` gave nothing. Right here."""
    put(place, "x")
    with storage.open(f"{place}/x") as file:
        file.read()
        file.seek(0)
        assert file.readline() == b"x"


@pytest.mark.parametrize("name", ["a+%.jpg", "-%13668%-1.wav", "date=2025-09-15", "a%2Bb", "a b#c&d;e", "ä/ö"])
def test_names_that_urls_would_encode(place: str, name: str) -> None:
    """aws/aws-sdk-js #4300, DyfanJones/s3fs #50, rapidsai/kvikio #823: not found, or refused as source of a copy.

    Right here: read, listed, copied inside the store and removed under the name as it is.
    """
    put(place, name)
    assert storage.load(f"{place}/{name}").tobytes() == name.encode()
    storage.copy(f"{place}/{name}", f"{place}/copy")
    assert names(place) == sorted([name, "copy"])
    storage.remove(f"{place}/{name}")
    assert names(place) == ["copy"]


def test_a_pattern_matches_whole_names(place: str) -> None:
    """fsspec/s3fs #138: ``*myfile`` gave ``myfile`` of ``myfile.backup``. Right here."""
    put(place, "myfile.backup")
    for glob in (storage.glob, storage.filesystem().glob):
        assert list(glob(f"{place}/*myfile")) == []
        assert list(glob(f"{place}/myfile*")) == [f"{place}/myfile.backup"]


def test_a_pattern_with_a_range(place: str) -> None:
    """fsspec/filesystem_spec #169: a pattern with a range alone found nothing. Right here."""
    put(place, "d-01", "d-03", "d-09")
    for glob in (storage.glob, storage.filesystem().glob):
        assert list(glob(f"{place}/d-0[1-5]")) == [f"{place}/d-01", f"{place}/d-03"]


def test_a_file_removed_recursively(place: str) -> None:
    """fsspec/filesystem_spec #84: ``rm(recursive=True)`` of a file failed. Right here."""
    put(place, "x", "xy")
    storage.filesystem().rm(f"{place}/x", recursive=True)
    assert names(place) == ["xy"]


def test_a_path_finds_all_below_it(place: str) -> None:
    """fsspec/universal_pathlib #80: ``glob("**/*")`` of a bucket found nothing. Right here."""
    upath = pytest.importorskip("upath", reason="universal_pathlib is not installed")
    put(place, "a", "d/b", "d/e/c")
    found = [one for one in upath.UPath(f"apyfal://{place}").glob("**/*") if one.is_file()]
    assert sorted(one.name for one in found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 2)), np.arange(12.0).reshape(3, 4)[:, ::2]]
)
def test_arrays_in_fortran_order(array: np.ndarray) -> None:
    """OP2/PyOP2 #224, inducer/pyopencl #681, inducer/loopy #581: memory order was taken for that of the elements.

    Right here: a result has the elements in the order in which they are indexed.
    """
    fortran = np.asfortranarray(array)
    with apyfal.Accelerator("scale") as accelerator:
        result = accelerator.process(fortran, a=2, b=1)
    assert np.array_equal(np.asarray(result).reshape(array.shape), array * 2 + 1)
