"""Memory that two processes share: sealed, pinned once, handed to who has its ticket, and kept while it is used."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apyfal import is_pinned
from apyfal._core.device import Device
from apyfal.exceptions import ClosedError, HostError, ParameterError
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.shared_memory import Region, TicketServer, attach

SIZE = 1 << 20


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region(SIZE)
    yield made
    made.close()


def part(region: Region, offset: int = 0, count: int = SIZE, dtype: str = "u1") -> SharedArray:
    return SharedArray(region.name, offset, ArrayType(np.dtype(dtype), (count,)))


def test_nobody_can_cut_it_short(region: Region) -> None:
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(region.descriptor, size)


def test_a_card_takes_it_in_once(region: Region) -> None:
    array = region.array(part(region))
    assert is_pinned(array)
    device = Device("emulator")
    try:
        device.import_memory(array)
        used = device.counters()["memory_used"]
        assert used >= SIZE
        del array
        again, offset = device.import_memory(region.array(part(region, 4096, 10)))
        assert (again.nbytes, offset) == (SIZE, 4096)
        assert device.counters()["memory_used"] == used
    finally:
        device.close()


@pytest.mark.parametrize(("offset", "count", "dtype"), [(1, SIZE, "u1"), (SIZE, 1, "u1"), (2, 1, "f4")])
def test_arrays_outside_of_it_or_across_its_grain(region: Region, offset: int, count: int, dtype: str) -> None:
    with pytest.raises(ParameterError):
        region.array(part(region, offset, count, dtype))


def test_arrays_outlive_it_and_say_when_they_are_gone() -> None:
    region = Region(SIZE)
    released = threading.Event()
    array = region.array(part(region), on_release=released.set)
    array[:] = 7
    view = array[5:]
    region.close()
    with pytest.raises(ClosedError):
        region.array(part(region))
    del array
    gc.collect()
    assert (view == 7).all()
    assert not released.is_set()
    del view
    gc.collect()
    assert released.is_set()


def test_the_ticket_opens_it(region: Region, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    server = TicketServer(path, lambda name: region if name == region.name else None)

    async def ask() -> tuple[Region, list[BaseException | Region]]:
        server.start()
        try:
            right = await asyncio.to_thread(attach, str(path), region.name, region.ticket, SIZE)
            wrong = [
                await asyncio.gather(asyncio.to_thread(attach, str(path), *what, SIZE), return_exceptions=True)
                for what in ((region.name, "0" * 64), ("0" * 32, region.ticket), (region.name, ""))
            ]
            return right, [outcome for outcomes in wrong for outcome in outcomes]
        finally:
            server.stop()

    mine, refused = asyncio.run(ask())
    try:
        region.array(part(region))[:] = np.arange(SIZE) % 251
        np.testing.assert_array_equal(mine.array(part(region)), region.array(part(region)))
        assert [type(outcome) for outcome in refused] == [HostError] * 3
        assert not path.exists()
    finally:
        mine.close()


def silent(path: Path, count: int) -> list[socket.socket]:
    """Connect, and say nothing."""
    peers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
    for peer in peers:
        peer.connect(str(path))
    return peers


def test_silent_local_users_hold_few_descriptors(region: Region, tmp_path: Path) -> None:
    server = TicketServer(tmp_path / "memory", lambda name: region if name == region.name else None)

    async def crowd() -> tuple[int, Region]:
        server.start()
        try:
            peers: list[socket.socket] = []
            for _ in range(5):  # no more than the kernel's queue at a time
                peers += await asyncio.to_thread(silent, server.path, 10)
                await asyncio.sleep(0.05)
            held = server._waiting.total()
            for peer in peers:
                peer.close()
            await asyncio.sleep(0.05)
            assert not server._waiting
            return held, await asyncio.to_thread(attach, str(server.path), region.name, region.ticket, SIZE)
        finally:
            server.stop()

    held, mine = asyncio.run(crowd())
    mine.close()
    assert held == 16


def test_without_descriptors_it_waits_and_goes_on(
    region: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TicketServer(tmp_path / "memory", lambda name: region if name == region.name else None)
    tried = 0
    accept = TicketServer._accept

    def counted(self: TicketServer) -> None:
        nonlocal tried
        tried += 1
        accept(self)

    monkeypatch.setattr(TicketServer, "_accept", counted)

    async def short_of_descriptors() -> bytes:
        server.start()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        (peer,) = silent(server.path, 1)
        peer.send(f"{region.name} {region.ticket}".encode())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno() + 1, before[1]))
            spare = []
            with contextlib.suppress(OSError):
                while True:  # the lower numbers that are free
                    spare.append(os.dup(0))
            await asyncio.sleep(0.2)
            assert tried == 1
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for number in spare:
                os.close(number)
            answer, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 16, 1)
            os.close(descriptors[0])
            return answer
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            peer.close()
            server.stop()

    assert asyncio.run(short_of_descriptors()) == b"ok"
