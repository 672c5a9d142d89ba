"""Round trips of libraries: written and read through `storage.open`, or through the filesystem of fsspec."""

from __future__ import annotations

import gc
import importlib
import io
import mmap
import re
import tarfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import UnsupportedByStore

pytestmark = [
    # pyarrow, dask and h5py leave files to the garbage collector
    pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NUMBERS = np.arange(3000, dtype=np.int32).reshape(30, 100)
SOUND = np.round(np.sin(np.arange(4000) / 20) * 0.5, 2)
PICTURE = (np.arange(40 * 50 * 3) % 251).astype(np.uint8).reshape(40, 50, 3)

Trip = Callable[[str], None]


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def opened(url: str, mode: str = "wb") -> Any:
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return storage.open(url, mode, **text)


def table() -> Any:
    return library("pandas").DataFrame({"a": range(500), "b": [n / 4 for n in range(500)], "c": ["ä"] * 500})


def pandas_file(kind: str, mode: str = "b", **options: Any) -> Trip:
    def trip(url: str) -> None:
        pandas, frame = library("pandas"), table()
        with opened(url, "w" + mode) as file:
            getattr(frame, f"to_{kind}")(file, **options)
        with opened(url, "r" + mode) as file:
            got = getattr(pandas, f"read_{kind}")(file)
        assert got[["a", "b", "c"]].equals(frame)

    return trip


def pandas_url(kind: str, **options: Any) -> Trip:
    def trip(url: str) -> None:
        pandas, frame = library("pandas"), table()
        getattr(frame, f"to_{kind}")(f"apyfal://{url}", **options)
        assert getattr(pandas, f"read_{kind}")(f"apyfal://{url}")[["a", "b", "c"]].equals(frame)

    return trip


def pandas_compressed(compression: str) -> Trip:
    def trip(url: str) -> None:
        pandas, frame = library("pandas"), table()
        frame.to_csv(f"apyfal://{url}", index=False, compression=compression)
        assert pandas.read_csv(f"apyfal://{url}", compression=compression).equals(frame)

    return trip


def arrow(kind: str) -> Trip:
    def trip(url: str) -> None:
        pyarrow = library("pyarrow")
        data = pyarrow.table({"a": np.arange(500), "c": ["ä"] * 500})
        if kind in ("ipc", "stream"):
            make, take = (
                (pyarrow.ipc.new_file, pyarrow.ipc.open_file)
                if kind == "ipc"
                else (pyarrow.ipc.new_stream, pyarrow.ipc.open_stream)
            )
            with opened(url) as file, make(file, data.schema) as writer:
                writer.write_table(data)
            with opened(url, "rb") as file:
                got = take(file).read_all()
        elif kind == "csv":
            csv = importlib.import_module("pyarrow.csv")
            with opened(url) as file:
                csv.write_csv(data, file)
            with opened(url, "rb") as file:
                got = csv.read_csv(file)
        elif kind in ("dataset", "partitions"):
            dataset = importlib.import_module("pyarrow.dataset")
            options = {"partitioning": ["c"]} if kind == "partitions" else {}
            filesystem = storage.filesystem()
            dataset.write_dataset(data, url, filesystem=filesystem, format="parquet", **options)
            got = dataset.dataset(url, filesystem=filesystem, format="parquet", **options).to_table()
            got = got.select(["a", "c"])
        else:
            module = importlib.import_module(f"pyarrow.{kind}")
            write = {"parquet": "write_table", "orc": "write_table", "feather": "write_feather"}[kind]
            with opened(url) as file:
                getattr(module, write)(data, file)
            with opened(url, "rb") as file:
                got = getattr(module, "read_table")(file)  # noqa: B009  # one module of three
        assert got.equals(data)

    return trip


def polars(kind: str) -> Trip:
    def trip(url: str) -> None:
        library_ = library("polars")
        frame = library_.DataFrame({"a": range(500), "c": ["ä"] * 500})
        with opened(url) as file:
            getattr(frame, f"write_{kind}")(file)
        with opened(url, "rb") as file:
            assert getattr(library_, f"read_{kind}")(file).equals(frame)

    return trip


def duckdb(kind: str) -> Trip:
    def trip(url: str) -> None:
        connection = library("duckdb").connect()
        connection.register_filesystem(storage.filesystem())
        name = f"apyfal://{url}"
        connection.execute(f"COPY (SELECT range a, range % 3 b FROM range(500)) TO '{name}' (FORMAT {kind})")
        got = connection.execute(f"SELECT count(*), sum(a) FROM read_{kind}('{name}')").fetchone()
        assert got == (500, 124750)
        connection.close()

    return trip


def dask(kind: str) -> Trip:
    def trip(url: str) -> None:
        frames = library("dask.dataframe")
        frame = table()
        parts = frames.from_pandas(frame, npartitions=3)
        if kind == "csv":
            parts.to_csv(f"apyfal://{url}/*.csv", index=False)
            got = frames.read_csv(f"apyfal://{url}/*.csv").compute(scheduler="sync")
        else:
            parts.to_parquet(f"apyfal://{url}")
            got = frames.read_parquet(f"apyfal://{url}").compute(scheduler="sync")
        assert list(got["a"]) == list(range(500))

    return trip


def hdf5(url: str) -> None:
    h5py = library("h5py")
    with opened(url, "w+b") as file, h5py.File(file, "w") as container:
        container.create_dataset("a", data=NUMBERS, chunks=(10, 10), compression="gzip")
    with opened(url, "rb") as file, h5py.File(file, "r") as container:
        assert np.array_equal(container["a"][...], NUMBERS)


def netcdf(url: str) -> None:
    """The library takes names of files and buffers, so what is written is its own buffer, and what is read ours."""
    netcdf4 = library("netCDF4")
    dataset = netcdf4.Dataset("in memory", "w", memory=1 << 16)
    dataset.createDimension("n", NUMBERS.size)
    dataset.createVariable("a", "i4", ("n",))[:] = NUMBERS.ravel()
    content = dataset.close()
    storage.save(url, np.frombuffer(content, np.uint8))
    with netcdf4.Dataset("in memory", "r", memory=storage.load(url)) as dataset:
        assert np.array_equal(dataset["a"][:], NUMBERS.ravel())


def zipped(method: int) -> Trip:
    def trip(url: str) -> None:
        with opened(url) as file, zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("a", NUMBERS.tobytes())
        with storage.open(url, "r+b") as file, zipfile.ZipFile(file, "a", method) as archive:
            archive.writestr("b", b"b")
        with opened(url, "rb") as file, zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            assert (archive.read("a"), archive.read("b")) == (NUMBERS.tobytes(), b"b")

    return trip


def tarred(mode: str) -> Trip:
    def trip(url: str) -> None:
        entry = tarfile.TarInfo("a")
        entry.size = NUMBERS.nbytes
        # written front to back: "|", unless the file can be read as well
        with opened(url, "w+b") as file, tarfile.open(fileobj=file, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
            archive.addfile(entry, io.BytesIO(NUMBERS.tobytes()))
        with opened(url, "rb") as file, tarfile.open(fileobj=file, mode=f"r:{mode}") as archive:  # type: ignore[call-overload]
            content = archive.extractfile("a")
            assert content is not None
            assert content.read() == NUMBERS.tobytes()

    return trip


def sound(kind: str, mode: str) -> Trip:
    def trip(url: str) -> None:
        soundfile = library("soundfile")
        with opened(url, mode) as file:
            soundfile.write(file, SOUND, 8000, format=kind)
        with opened(url, "rb") as file:
            got, rate = soundfile.read(file)
        assert (rate, len(got)) == (8000, len(SOUND))
        assert np.abs(got - SOUND).max() < 0.05

    return trip


def image(kind: str) -> Trip:
    def trip(url: str) -> None:
        imageio = library("imageio.v3")
        with opened(url, "w+b") as file:
            imageio.imwrite(file, PICTURE, extension=f".{kind}")
        with opened(url, "rb") as file:
            got = imageio.imread(file, extension=f".{kind}")
        assert got.shape == PICTURE.shape
        assert kind in ("jpg", "webp") or np.array_equal(got, PICTURE)

    return trip


def tiff(url: str) -> None:
    tifffile = library("tifffile")
    with opened(url, "w+b") as file:
        tifffile.imwrite(file, PICTURE)
    with opened(url, "rb") as file:
        assert np.array_equal(tifffile.imread(file), PICTURE)


def numpy_text(url: str) -> None:
    with opened(url, "w") as file:
        np.savetxt(file, NUMBERS, fmt="%d")
    with opened(url, "r") as file:
        assert np.array_equal(np.loadtxt(file, dtype=np.int32), NUMBERS)


def raw(url: str) -> None:
    storage.save(url, NUMBERS)
    assert np.array_equal(storage.load(url, np.int32, NUMBERS.shape), NUMBERS)


TRIPS: dict[str, Trip] = {
    "pandas csv": pandas_file("csv", "", index=False),
    "pandas csv, bytes": pandas_file("csv", index=False),
    "pandas json": pandas_file("json", ""),
    "pandas pickle": pandas_file("pickle"),
    "pandas parquet": pandas_file("parquet"),
    "pandas feather": pandas_file("feather"),
    "pandas orc": pandas_file("orc"),
    "pandas csv by url": pandas_url("csv", index=False),
    "pandas json by url": pandas_url("json"),
    "pandas pickle by url": pandas_url("pickle"),
    "pandas parquet by url": pandas_url("parquet"),
    "pandas feather by url": pandas_url("feather"),
    **{f"pandas csv {name}": pandas_compressed(name) for name in ("gzip", "bz2", "xz", "zip")},
    **{
        f"pyarrow {name}": arrow(name)
        for name in ("parquet", "orc", "feather", "ipc", "stream", "csv", "dataset", "partitions")
    },
    **{f"polars {name}": polars(name) for name in ("parquet", "csv", "ipc", "ipc_stream", "ndjson", "avro", "json")},
    **{f"duckdb {name}": duckdb(name) for name in ("parquet", "csv", "json")},
    **{f"dask {name}": dask(name) for name in ("csv", "parquet")},
    "h5py": hdf5,
    "netCDF4": netcdf,
    **{f"zipfile {name}": zipped(getattr(zipfile, f"ZIP_{name}")) for name in ("STORED", "DEFLATED", "BZIP2", "LZMA")},
    **{f"tarfile {name or 'plain'}": tarred(name) for name in ("", "gz", "bz2", "xz")},
    **{f"soundfile {name}": sound(name, "w+b") for name in ("WAV", "FLAC", "OGG", "AIFF", "MP3")},
    **{f"imageio {name}": image(name) for name in ("png", "bmp", "jpg", "tiff", "webp")},
    "tifffile": tiff,
    "numpy text": numpy_text,
    "numpy raw": raw,
}


@pytest.mark.parametrize("name", TRIPS)
def test_round_trip(place: str, name: str) -> None:
    TRIPS[name](f"{place}/file")
    gc.collect(1)


def _sound_forward(url: str) -> None:
    soundfile = library("soundfile")
    with opened(url) as file:
        soundfile.write(file, SOUND, 8000, format="WAV")


def _hdf5_forward(url: str) -> None:
    h5py = library("h5py")
    with opened(url) as file, h5py.File(file, "w") as container:
        container["a"] = [1]


def _tiff_forward(url: str) -> None:
    tifffile = library("tifffile")
    with opened(url) as file:
        tifffile.imwrite(file, PICTURE)


def _stata_forward(url: str) -> None:
    frame = table()
    with opened(url) as file:
        frame.to_stata(file, write_index=False, version=118)


@pytest.mark.parametrize("write", [_sound_forward, _hdf5_forward, _tiff_forward, _stata_forward])
@pytest.mark.parametrize("place", ["memory", "s3"], indirect=True)
def test_a_writer_that_seeks_back_is_refused_with_the_mode_that_works(place: str, write: Trip) -> None:
    """An object of a store is written front to back in ``wb``, also by a library that loses a seek's error."""
    with pytest.raises((OSError, RuntimeError, ValueError, SystemError)) as raised:
        write(f"{place}/file")
    assert "'w+b'" in "".join(traceback.format_exception(raised.value))
    assert not storage.exists(f"{place}/file")


@pytest.mark.parametrize("place", ["memory", "s3"], indirect=True)
def test_duckdb_squeezes_slashes_and_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB makes ``mount:/...`` of the directories of partitions; nothing goes to a local path of that name."""
    monkeypatch.chdir(tmp_path)
    connection = library("duckdb").connect()
    connection.register_filesystem(storage.filesystem())
    with pytest.raises(library("duckdb").Error, match=r"did you mean|cannot look up"):
        connection.execute(f"COPY (SELECT range a, 1 b FROM range(9)) TO 'apyfal://{place}/x' (PARTITION_BY (b))")
    connection.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["memory", "s3"], indirect=True)
def test_no_descriptor_where_there_is_no_file(place: str) -> None:
    storage.save(f"{place}/file", NUMBERS)
    with opened(f"{place}/file", "rb") as file:
        with pytest.raises(io.UnsupportedOperation, match=r"apyfal\.storage\.load"):
            file.fileno()
        with pytest.raises(io.UnsupportedOperation, match=r"apyfal\.storage\.load"):
            np.fromfile(file, np.uint8)
        with pytest.raises(io.UnsupportedOperation):
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with pytest.raises((OSError, ValueError)):
            np.memmap(file, mode="r")


@pytest.mark.parametrize(("mode", "way"), [("wb", "w+b"), ("xb", "x+b"), ("ab", "r+b")])
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_writer_without_a_descriptor_names_the_mode_that_has_one(place: str, mode: str, way: str) -> None:
    if mode == "ab":
        storage.save(f"{place}/file", NUMBERS)
    with pytest.raises(io.UnsupportedOperation, match=f"'{re.escape(way)}'"), opened(f"{place}/file", mode) as file:
        NUMBERS.tofile(file)
    with opened(f"{place}/other", "w+b") as file:
        NUMBERS.tofile(file)
    assert storage.load(f"{place}/other", NUMBERS.dtype).tolist() == NUMBERS.ravel().tolist()


@pytest.mark.parametrize("place", ["local", "memory"], indirect=True)
def test_a_file_that_is_committed_later_is_refused(place: str) -> None:
    with pytest.raises(UnsupportedByStore, match="no transaction"):
        storage.filesystem().open(f"{place}/file", "wb", autocommit=False)
    assert not storage.exists(f"{place}/file")
