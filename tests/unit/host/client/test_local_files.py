"""A client's files get each byte of an output once, however often the connection breaks."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apyfal.host.client.local_files import LocalFileFailed, ReceivingFile
from apyfal.host.client.payload import CopyCounter, OutputPayload

DATA = bytes(range(256)) * (3 << 12)  # three pieces


class Pipe(io.RawIOBase):
    """What is written stays written; it can fail."""

    def __init__(self, error: OSError | None = None) -> None:
        self.content = bytearray()
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self._error is not None and self.content:
            raise self._error
        self.content += data
        return len(data)

    def getvalue(self) -> bytes:
        return bytes(self.content)


class Cut:
    """A response that ends after so many bytes."""

    def __init__(self, after: int, data: bytes = DATA) -> None:
        self._body = io.BytesIO(data[:after])

    def readinto(self, out: memoryview) -> None:
        if self._body.readinto(out) < len(out):
            raise ConnectionError("the response ended early")


def with_content() -> io.BytesIO:
    file = io.BytesIO()
    file.write(b"before")
    return file


@pytest.mark.parametrize("make", [Pipe, io.BytesIO, with_content])
@pytest.mark.parametrize("cuts", [(0,), (1 << 20,), (1 << 20, 2 << 20), (2 << 20, 1 << 20), (2 << 20, 100, 2 << 20)])
def test_an_open_file(make: Callable[[], Any], cuts: tuple[int, ...]) -> None:
    file = make()
    before = file.getvalue()
    output = ReceivingFile(file)
    for after in cuts:
        with pytest.raises(ConnectionError):
            output.receive(Cut(after), len(DATA))
    output.receive(Cut(len(DATA)), len(DATA))
    assert file.getvalue() == before + DATA
    output.receive(Cut(len(DATA)), len(DATA))  # asked again for the output of another port
    assert file.getvalue() == before + DATA


def test_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    output = ReceivingFile(tmp_path / "file")
    with pytest.raises(ConnectionError):
        output.receive(Cut(1 << 20), len(DATA))
    assert (tmp_path / "file").read_bytes() == b"before"
    assert not output.is_touched
    output.receive(Cut(len(DATA)), len(DATA))
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got = bytearray()
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR)  # so that it stays open from one attempt to the next

    def read() -> None:
        while len(got) < len(DATA):
            got.extend(os.read(descriptor, 1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    output = ReceivingFile(str(tmp_path / "pipe"))
    with pytest.raises(ConnectionError):
        output.receive(Cut(2 << 20), len(DATA))
    output.receive(Cut(len(DATA)), len(DATA))
    reader.join(20)
    os.set_blocking(descriptor, False)
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 1)
    os.close(descriptor)
    assert bytes(got) == DATA


def test_several_outputs() -> None:
    """The connection breaks within the second one."""
    low, high = io.BytesIO(), Pipe()
    output = OutputPayload({"low": low, "high": high}, None, None, CopyCounter(allowed=True))
    half = len(DATA) // 2
    parts = {"low": {"nbytes": half}, "high": {"nbytes": len(DATA) - half}}
    document = {"output": {"nbytes": len(DATA), "parts": parts}}
    output.require_untouched()
    with pytest.raises(ConnectionError):
        output.receive(Cut(half + (1 << 20)), document)
    output.receive(Cut(len(DATA)), document)
    assert low.getvalue() + high.getvalue() == DATA


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), TimeoutError("mine"), ConnectionResetError("x")])
def test_errors_of_the_file_are_not_the_networks(error: OSError) -> None:
    output = ReceivingFile(Pipe(error))
    with pytest.raises(LocalFileFailed) as failed:
        output.receive(Cut(len(DATA)), len(DATA))
    assert failed.value.error is error
