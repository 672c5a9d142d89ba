"""Mapped files as buffers."""

from __future__ import annotations

import os

import numpy as np
import pytest

import apyfal
from apyfal._core.device import Device
from apyfal._core.mapped_file import flush, map_file
from apyfal.exceptions import AccessDenied, Misaligned, ObjectChanged, ParameterError, ReadOnly


@pytest.fixture
def path(tmp_path):
    """A file of four pages and a bit."""
    path = tmp_path / "data"
    path.write_bytes(np.arange(16_400, dtype="u4").tobytes()[:16_400])
    return path


def opened(path, flags=os.O_RDONLY):
    """Open a file for the time of one expression."""
    return os.open(path, flags | os.O_CLOEXEC)


def test_a_writable_map_reaches_the_file(path):
    fd = opened(path, os.O_RDWR)
    buffer = map_file(fd, 0, 16_400, writable=True)
    os.close(fd)
    assert buffer.mapped
    assert not buffer.readonly
    assert buffer.address % 4096 == 0
    with memoryview(buffer) as memory:
        memory[:4] = b"abcd"
    flush(buffer)
    assert path.read_bytes()[:4] == b"abcd"
    buffer.close()


def test_a_read_only_map_is_read_only(path):
    fd = opened(path)
    try:
        buffer = map_file(fd, 4096, 100)
    finally:
        os.close(fd)
    array = np.frombuffer(buffer, "u1")
    assert not array.flags.writeable
    assert array.tobytes() == path.read_bytes()[4096:4196]
    assert apyfal.is_pinned(array)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    ("offset", "nbytes", "error"),
    [(0, 0, ParameterError), (0, 16_401, ParameterError), (20_480, 1, ParameterError), (100, 10, Misaligned)],
)
def test_ranges_outside_of_the_file_are_refused(path, offset, nbytes, error):
    fd = opened(path)
    try:
        with pytest.raises(error):
            map_file(fd, offset, nbytes)
    finally:
        os.close(fd)


def test_what_cannot_be_mapped_is_refused(path, tmp_path):
    directory = opened(tmp_path)
    with pytest.raises(ParameterError, match="not a regular file"):
        map_file(directory, 0, 10)
    os.close(directory)
    fd = opened(path)
    with pytest.raises(AccessDenied, match="Permission denied"):
        map_file(fd, 0, 10, writable=True)
    os.close(fd)


def test_drivers_take_writable_maps_in_place_and_refuse_read_only_ones(path):
    device = Device("emulator")
    fd = opened(path, os.O_RDWR)
    writable, readonly = map_file(fd, 0, 16_400, writable=True), map_file(fd, 0, 16_400)
    os.close(fd)
    bo, offset = device.import_memory(writable)
    assert (bo.address, offset) == (writable.address, 0)
    with pytest.raises(ReadOnly):
        device.import_memory(readonly, writable=False)
    device.close()


def test_a_file_that_shrinks_is_an_error_not_a_crash(path):
    device = Device("emulator")
    fd = opened(path, os.O_RDWR)
    buffer = map_file(fd, 0, 16_400, writable=True, populate=False)
    bo, _ = device.import_memory(buffer)
    os.ftruncate(fd, 4096)
    os.close(fd)
    with pytest.raises(ObjectChanged, match="became shorter"):
        bo.sync(0)
    bo.sync(0, 0, 4096)
    device.close()
