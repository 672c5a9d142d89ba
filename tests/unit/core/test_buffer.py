"""Pinned buffers: alignment, the pool, and lifetimes that cannot be broken."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

import apyfal
from apyfal._core import errors
from apyfal._core.buffer import Buffer, pool_stats, set_pool_limit, trim_pool
from apyfal.exceptions import BufferInUse, ClosedError, HostMemoryExhausted, ParameterError


@pytest.fixture
def pool_limit():
    """Let a test set the pool's limit; the default comes back after it."""
    yield set_pool_limit
    set_pool_limit(None)


@pytest.mark.parametrize("nbytes", [0, 1, 4095, 4096, 4097, 131_072, 131_073, 3 << 20])
def test_memory_begins_at_a_page_and_holds_what_was_asked(nbytes):
    with Buffer(nbytes) as buffer:
        assert buffer.address % 4096 == 0
        assert buffer.nbytes == nbytes
        assert nbytes <= buffer.capacity <= max(4096, nbytes + nbytes // 4 + 4096)
        memory = memoryview(buffer)
        memory[:] = bytes(nbytes)
        memory.release()


def test_large_memory_begins_at_a_huge_page():
    with Buffer(4 << 20) as buffer:
        assert buffer.address % (2 << 20) == 0


def test_freed_memory_is_reused_and_idle_memory_can_be_given_back():
    trim_pool()
    buffer = Buffer(5 << 20)
    address = buffer.address
    before = pool_stats()
    buffer.close()
    assert pool_stats()["idle"] == before["idle"] + (5 << 20)
    again = Buffer(5 << 20)
    assert again.address == address
    assert pool_stats()["reuses"] == before["reuses"] + 1
    assert pool_stats()["growths"] == before["growths"]
    again.close()
    trim_pool()
    assert pool_stats()["idle"] == before["idle"]  # what is left are parts of slabs


def test_pool_has_a_limit(pool_limit):
    trim_pool()
    used = pool_stats()["used"]
    pool_limit(used + (8 << 20))
    first = Buffer(6 << 20)
    with pytest.raises(HostMemoryExhausted, match=r"pool of pinned memory is full: 6291456 bytes asked for"):
        Buffer(6 << 20)
    with pytest.raises(MemoryError):
        Buffer(1 << 60)
    first.close()
    Buffer(6 << 20).close()


def test_idle_memory_makes_room_under_the_limit(pool_limit):
    trim_pool()
    used = pool_stats()["used"]
    Buffer(5 << 20).close()
    pool_limit(used + (8 << 20))
    with Buffer(7 << 20) as buffer:
        assert buffer.nbytes == 7 << 20


def test_close_and_resize_are_refused_while_a_view_is_alive():
    buffer = Buffer(4096)
    view = memoryview(buffer)
    array = np.frombuffer(view, np.uint8)[10:20]
    view.release()
    for call in (buffer.close, lambda: buffer.resize(10)):
        with pytest.raises(BufferInUse, match="a view of it is alive"):
            call()
    with pytest.raises(BufferError):
        buffer.close()
    del array
    buffer.resize(8192)
    assert buffer.nbytes == 8192
    buffer.close()
    buffer.close()
    with pytest.raises(ClosedError):
        memoryview(buffer)
    with pytest.raises(ClosedError):
        _ = buffer.nbytes


def test_resize_keeps_the_contents_even_when_the_memory_moves():
    buffer = Buffer(4096)
    with memoryview(buffer) as memory:
        memory[:] = bytes(range(256)) * 16
    buffer.resize(1 << 20)
    with memoryview(buffer) as memory:
        assert bytes(memory[:4096]) == bytes(range(256)) * 16


def test_array_interface_counts_as_a_view_for_good():
    buffer = Buffer(4096)
    interface = buffer.__array_interface__
    assert interface["data"] == (buffer.address, False)
    with pytest.raises(BufferInUse):
        buffer.close()


def test_dlpack_keeps_the_memory_alive():
    used = errors.live()["buffers"]
    buffer = Buffer(4096)
    array = np.from_dlpack(buffer)
    address = buffer.address
    assert array.__array_interface__["data"][0] == address
    with pytest.raises(BufferInUse):
        buffer.close()
    del buffer
    gc.collect()
    ctypes.memset(address, 7, 4096)  # the array is read-only in numpy before 2.2.5
    assert set(array.tobytes()) == {7}
    assert errors.live()["buffers"] == used + 1
    del array
    assert errors.live()["buffers"] == used


def test_empty_gives_arrays_of_every_kind():
    array = apyfal.empty((3, 5), "int16")
    assert array.shape == (3, 5)
    assert array.dtype == np.int16
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert apyfal.empty(0).shape == (0,)
    assert apyfal.empty((2, 0, 3), "u1").shape == (2, 0, 3)
    assert apyfal.empty(4).dtype == np.float64
    like = apyfal.empty_like(np.zeros((2, 3), "c8"))
    assert (like.shape, like.dtype) == ((2, 3), np.dtype("c8"))
    assert apyfal.empty(2, [("a", "u1"), ("b", "f8")]).dtype.names == ("a", "b")
    with pytest.raises(ValueError, match="Python objects"):
        apyfal.empty(3, object)
    with pytest.raises(ValueError, match="negative"):
        apyfal.empty(-1)


def test_memory_is_freed_with_the_last_view():
    before = errors.live()["buffers"]
    array = apyfal.empty(1 << 20, "u1")
    view = array[5:100].reshape(5, 19).T
    del array
    assert errors.live()["buffers"] == before + 1
    view[...] = 3
    del view
    gc.collect()
    assert errors.live()["buffers"] == before


def test_is_pinned_looks_at_the_memory_not_at_the_object():
    array = apyfal.empty(8192, "u1")
    assert apyfal.is_pinned(array)
    assert apyfal.is_pinned(memoryview(array)[100:200])
    assert apyfal.is_pinned(array.view("f8")[3:])
    assert not apyfal.is_pinned(np.empty(8192, "u1"))
    assert not apyfal.is_pinned(b"bytes")
    assert not apyfal.is_pinned(array[::2])
    with pytest.raises(TypeError):
        apyfal.is_pinned(3)


def test_freed_memory_is_not_pinned_any_more():
    array = apyfal.empty(3 << 20, "u1")
    alias = np.ndarray((3 << 20,), "u1", buffer=memoryview(bytearray(3 << 20)))
    assert apyfal.is_pinned(array)
    assert not apyfal.is_pinned(alias)


@pytest.mark.parametrize("wrong", [-1, -(1 << 70)])
def test_negative_sizes_are_refused(wrong):
    with pytest.raises(ParameterError, match="expected 0 or more"):
        Buffer(wrong)


def test_a_buffer_in_a_cycle_is_collected():
    before = errors.live()["buffers"]
    holder = [Buffer(4096)]
    holder.append(holder)
    del holder
    gc.collect()
    assert errors.live()["buffers"] == before
