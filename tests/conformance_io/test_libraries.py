"""Libraries that take file objects, reading and writing through `apyfal.storage.open`, on a local path and on S3."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from apyfal import storage

DATA = np.random.default_rng(1).integers(0, 255, 6 << 20, np.uint8)


@pytest.fixture
def url(place: str) -> str:
    return f"{place}/file"


def test_zipfile(url: str) -> None:
    with storage.open(url, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", DATA.tobytes())
        archive.writestr("two", b"2")
    with storage.open(url) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.read("two") == b"2"
        assert archive.read("one") == DATA.tobytes()


@pytest.mark.parametrize("mode", ["", ":gz", "|"])
def test_tarfile(url: str, mode: str) -> None:
    with storage.open(url, "wb") as file, tarfile.open(fileobj=file, mode=f"w{mode or '|'}") as archive:
        entry = tarfile.TarInfo("one")
        entry.size = len(DATA)
        archive.addfile(entry, io.BytesIO(DATA.tobytes()))
    with storage.open(url) as file, tarfile.open(fileobj=file, mode=f"r{mode}") as archive:
        member = archive.next()
        assert member is not None
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == DATA.tobytes()


def test_gzip_and_csv_and_json(url: str) -> None:
    with storage.open(url, "wb") as file, gzip.open(file, "wt", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([[1, "ä"], [2, "b\nc"]])
    with storage.open(url) as file, gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        assert list(csv.reader(text)) == [["1", "ä"], ["2", "b\nc"]]
    with storage.open(url, "w", encoding="utf-8") as file:
        json.dump({"ä": [1, 2]}, file)
    with storage.open(url, "r", encoding="utf-8") as file:
        assert json.load(file) == {"ä": [1, 2]}


def test_numpy(url: str) -> None:
    with storage.open(url, "wb") as file:
        np.save(file, DATA)
    with storage.open(url) as file:
        assert np.array_equal(np.load(file), DATA)
    with storage.open(url, "wb") as file:
        np.savez_compressed(file, a=DATA, b=np.arange(3))
    with storage.open(url) as file, np.load(file) as arrays:
        assert np.array_equal(arrays["a"], DATA)
        assert arrays["b"].sum() == 3


def test_pandas(url: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"a": range(1000), "b": [f"row {n}" for n in range(1000)]})
    with storage.open(url, "w", encoding="utf-8", newline="") as file:
        frame.to_csv(file, index=False)
    with storage.open(url, "r", encoding="utf-8") as file:
        assert pandas.read_csv(file).equals(frame)
    with storage.open(url) as file:
        assert pandas.read_csv(file).equals(frame)
    with storage.open(url, "wb") as file:
        frame.to_pickle(file)
    with storage.open(url) as file:
        assert pandas.read_pickle(file).equals(frame)


# pyarrow leaves the files that it opens through a filesystem of fsspec to the garbage collector
@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")
def test_pyarrow_parquet(url: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = pyarrow.table({"a": np.arange(500_000), "b": np.random.default_rng(2).random(500_000)})
    with storage.open(url, "wb") as file:
        parquet.write_table(table, file, row_group_size=50_000)
    with storage.open(url) as file:
        assert parquet.read_table(file).equals(table)
    with storage.open(url) as file:
        assert parquet.ParquetFile(file).read_row_group(3, ["a"])["a"][0].as_py() == 150_000
    filesystem = storage.filesystem()
    assert parquet.read_table(url, filesystem=filesystem, columns=["b"]).num_rows == 500_000
    dataset = f"{url}.dataset"
    parquet.write_to_dataset(table.slice(0, 1000), dataset, filesystem=filesystem)
    assert parquet.read_table(dataset, filesystem=filesystem).num_rows == 1000
    gc.collect()  # while its warnings are expected


def test_h5py(url: str) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with storage.open(url, "w+b") as file, h5py.File(file, "w") as container:
        container.create_dataset("a", data=DATA, chunks=(1 << 20,))
    with storage.open(url) as file, h5py.File(file, "r") as container:
        assert np.array_equal(container["a"][...], DATA)
        assert container["a"][-1] == DATA[-1]
