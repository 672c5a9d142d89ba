"""Sources and sinks over local files and open file objects."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from apyfal.exceptions import InvalidURL, IsADirectory, ObjectNotFound, ParameterError, StorageError
from apyfal.storage.endpoints.factory import Source, open_sink, open_source

DATA = bytes(range(256)) * 1000


def read_all(source: Source, step: int = 7777) -> bytes:
    out = bytearray()
    buffer = memoryview(bytearray(step))
    while count := source.readinto(buffer):
        out += buffer[:count]
    return bytes(out)


def fail_half_way(destination: object) -> None:
    def write() -> None:
        with open_sink(destination) as sink:
            sink.write(memoryview(b"part"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "FILE://localhost{}", "path"])
def test_local_source(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "data #1?.bin"
    path.write_bytes(DATA)
    with open_source(path if spelling == "path" else spelling.format(path)) as source:
        assert source.size == len(DATA)
        assert source.path == str(path)
        out = memoryview(bytearray(10))
        assert source.pread(out, 300) == 10
        assert out == DATA[300:310]
        assert read_all(source) == DATA
        assert source.readinto(out) == 0


def test_local_source_in_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with open_source(path) as source:
        assert source.size == 0
        assert source.readinto(memoryview(bytearray(1))) == 0


def test_a_file_that_does_not_say_its_size_is_a_stream() -> None:
    with open_source("/proc/self/status") as source:
        assert source.size is None
        assert source.path is None
        assert not source.seekable
        assert b"Name:" in read_all(source)


def test_truncation_while_reading_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with open_source(path) as source:
        assert source.readinto(memoryview(bytearray(100))) == 100
        os.truncate(path, 100)
        with pytest.raises(StorageError, match="100 of 256000 bytes"):
            source.readinto(memoryview(bytearray(100)))


def test_missing_things_and_directories(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="missing"):
        open_source(tmp_path / "missing")
    with pytest.raises(IsADirectory):
        open_source(tmp_path)
    with pytest.raises(IsADirectory):
        open_sink(tmp_path)
    with pytest.raises(ObjectNotFound):
        open_sink(tmp_path / "no" / "file")
    with pytest.raises(InvalidURL, match="NUL"):
        open_source("a\0b")


def test_a_pipe_without_the_other_end_is_an_error_not_a_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(StorageError, match="no process has this pipe open for writing"):
        open_source(fifo)
    with pytest.raises(StorageError, match="No such device"):
        open_sink(fifo)


def test_reading_a_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # lets the writer open before the source does
    writer = os.open(fifo, os.O_WRONLY)
    os.close(reader)

    def write() -> None:
        with open(writer, "wb") as file:
            file.write(DATA)

    thread = threading.Thread(target=write)
    with open_source(fifo) as source:
        assert source.size is None
        thread.start()
        assert read_all(source) == DATA
    thread.join()


def test_an_inherited_descriptor_goes_on_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        os.lseek(file.fileno(), 100, os.SEEK_SET)
        with open_source(f"/dev/fd/{file.fileno()}") as source:
            assert source.size == len(DATA) - 100
            assert source.path is None
            assert read_all(source) == DATA[100:]


def test_a_sink_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    sink = open_sink(str(path), len(DATA))
    sink.write(memoryview(DATA))
    assert path.read_bytes() == b"old"
    sink.abort()
    sink.abort()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]
    with open_sink(path) as sink:
        sink.write(memoryview(DATA)[:1000])
        sink.write(memoryview(DATA)[1000:])
    assert path.read_bytes() == DATA
    fail_half_way(path)
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


def test_a_sink_without_room(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No space left|too large"):
        open_sink(tmp_path / "out", 1 << 60)
    assert os.listdir(tmp_path) == []


def test_file_objects() -> None:
    file = io.BytesIO(b"skip" + DATA)
    file.seek(4)
    with open_source(file) as source:
        assert source.size == len(DATA)
        out = memoryview(bytearray(10))
        assert source.pread(out, 300) == 10
        assert out == DATA[300:310]
        assert read_all(source) == DATA
    assert not file.closed

    target = io.BytesIO()
    target.write(b"before")
    fail_half_way(target)
    assert target.getvalue() == b"before"
    with open_sink(target) as sink:
        sink.write(memoryview(DATA))
    assert target.getvalue() == b"before" + DATA


def test_file_objects_with_the_least_interface() -> None:
    class OnlyRead:
        rest = DATA

        def read(self, size: int) -> bytes:
            data, self.rest = self.rest[: min(size, 999)], self.rest[min(size, 999) :]
            return data

    class OnlyWrite:
        data = b""

        def write(self, data: memoryview) -> int:
            self.data += data[:70_000]
            return min(len(data), 70_000)

    with open_source(OnlyRead()) as source:
        assert source.size is None
        assert read_all(source) == DATA
    target = OnlyWrite()
    with open_sink(target) as sink:
        sink.write(memoryview(DATA))
    assert target.data == DATA


def test_bad_file_objects(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="text mode"):
        open_source(io.StringIO("text"))
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ParameterError, match="closed"):
        open_source(closed)
    with (tmp_path / "f").open("wb") as file, pytest.raises(ParameterError, match="not opened to read"):
        open_source(file)
    with pytest.raises(ParameterError, match="not a storage location"):
        open_source(3)
