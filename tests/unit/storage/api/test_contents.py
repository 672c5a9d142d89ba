"""read_bytes, read_text, write_bytes and write_text, on local files and on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import ObjectNotFound, ParameterError


@pytest.fixture(params=["local", "store"])
def url(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> str:
    return "mem://b/file" if request.param == "store" else str(tmp_path / "file")


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc")[1:], b"bc"),
        (np.arange(4, dtype="<u2").reshape(2, 2), bytes([0, 0, 1, 0, 2, 0, 3, 0])),
        (np.empty((0, 3)), b""),
    ],
)
def test_bytes(url: str, data: Any, stored: bytes) -> None:
    assert storage.write_bytes(url, data) == len(stored)
    assert storage.read_bytes(url) == stored


@pytest.mark.parametrize("data", ["text", 3, None, [1], memoryview(b"abc")[::2]])
def test_what_is_not_bytes_leaves_the_destination(url: str, data: Any) -> None:
    storage.write_bytes(url, b"old")
    with pytest.raises(ParameterError, match="expected contiguous bytes"):
        storage.write_bytes(url, data)
    assert storage.read_bytes(url) == b"old"


def test_text(url: str) -> None:
    assert storage.write_text(url, "é\n", "utf-16-le", newline="\r\n") == 2
    assert storage.read_bytes(url) == "é\r\n".encode("utf-16-le")
    assert storage.read_text(url, "utf-16-le") == "é\n"
    assert storage.read_text(url, "utf-16-le", newline="") == "é\r\n"
    assert storage.read_text(url, "ascii", "ignore", newline="").replace("\0", "") == "\r\n"


@pytest.mark.parametrize(("data", "error"), [(b"x", ParameterError), (None, ParameterError), ("é", UnicodeEncodeError)])
def test_what_is_not_text_leaves_the_destination(url: str, data: Any, error: type[Exception]) -> None:
    storage.write_bytes(url, b"old")
    with pytest.raises(error):
        storage.write_text(url, data, "ascii")
    assert storage.read_bytes(url) == b"old"


def test_nothing_to_read(url: str) -> None:
    for function in (storage.read_bytes, storage.read_text):
        with pytest.raises(ObjectNotFound):
            function(url)
