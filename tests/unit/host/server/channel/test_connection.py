"""What a channel's connection sends: in order, from where it lies, whatever the peer takes at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from apyfal.host.protocol.frames import FROM_CLIENT
from apyfal.host.server.channel import socket_writer
from apyfal.host.server.channel.connection import FrameConnection

LARGE = 8 << 20  # more than a socket takes


class Handler:
    """Counts what it is told. Nothing arrives."""

    def __init__(self) -> None:
        self.writable = self.lost = 0

    def on_writable(self) -> None:
        """Count."""
        self.writable += 1

    def on_lost(self) -> None:
        """Count."""
        self.lost += 1


class Both:
    """A connection, its handler, and the peer."""

    def __init__(self, connection: FrameConnection, handler: Handler, peer: socket.socket) -> None:
        self.connection = connection
        self.handler = handler
        self.peer = peer

    async def received(self, nbytes: int) -> bytes:
        """Receive at the peer."""
        got = bytearray()
        while len(got) < nbytes and (some := await asyncio.get_running_loop().sock_recv(self.peer, nbytes - len(got))):
            got += some
        return bytes(got)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Both]:
    """Connect a `FrameConnection` with a socket."""
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    handler: Any = Handler()
    connection = FrameConnection(transport, handler, bytearray(1 << 16), FROM_CLIENT)
    connection.take_over()
    try:
        yield Both(connection, handler, peer)
    finally:
        connection.abort()
        peer.close()
        await asyncio.sleep(0)


def run(test: Callable[[Both], Awaitable[None]]) -> None:
    """Run a test over two connected ends."""

    async def main() -> None:
        async with connected() as both:
            await asyncio.wait_for(test(both), 30)

    asyncio.run(main())


def content(nbytes: int) -> Any:
    """Return bytes that differ from piece to piece."""
    return np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)


@pytest.mark.parametrize("nbytes", [1, 4096, 1 << 20, LARGE])
def test_pieces_arrive_in_order(nbytes: int) -> None:
    data = content(nbytes)

    async def test(both: Both) -> None:
        both.connection.write(b"twelve bytes", data.data)
        both.connection.write(b"small")  # while the large one may still wait
        both.connection.write_behind(b"head", data.data)
        expected = b"twelve bytes" + data.tobytes() + b"small" + b"head" + data.tobytes()
        assert await both.received(len(expected)) == expected

    run(test)


def test_a_head_is_sent_with_what_follows_it() -> None:
    async def test(both: Both) -> None:
        both.connection.write_behind(b"head", content(LARGE).data)
        assert len(both.peer.recv(1 << 16)) > len(b"head")

    run(test)


def test_more_pieces_than_one_system_call_takes() -> None:
    async def test(both: Both) -> None:
        pieces = [bytes([number % 251]) * 3 for number in range(3000)]
        both.connection.write(*pieces)
        assert await both.received(9000) == b"".join(pieces)

    run(test)


def test_what_waits_is_not_copied() -> None:
    data = content(LARGE)

    async def test(both: Both) -> None:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            both.connection.write_behind(b"head", data.data)
            assert not both.connection.is_writable  # most of it waits
            while not both.connection.is_writable:
                both.peer.recv(1 << 16)
                await asyncio.sleep(0)
            assert tracemalloc.get_traced_memory()[1] - before < 256 << 10
        finally:
            tracemalloc.stop()

    run(test)


def test_memory_of_what_waits_can_be_freed() -> None:
    async def test(both: Both) -> None:
        data = content(LARGE)
        expected, kept = data.tobytes(), weakref.ref(data)
        both.connection.write_behind(b"head", data.data)
        both.connection.write(b"the next head")
        del data
        assert kept() is not None
        both.connection.detach()
        assert kept() is None
        assert await both.received(LARGE + 17) == b"head" + expected + b"the next head"

    run(test)


def test_results_are_held_back_while_the_peer_does_not_read() -> None:
    async def test(both: Both) -> None:
        connection = both.connection
        connection.write(content(LARGE).data)
        assert not connection.is_writable
        now = asyncio.get_running_loop().time()
        assert connection.stalled_for(now) == 0.0
        assert connection.stalled_for(now + 7) == 7.0
        drained = asyncio.ensure_future(connection.drain())
        await both.received(LARGE)
        await drained
        assert connection.is_writable
        assert both.handler.writable == 1
        assert connection.stalled_for(now + 9) == 0.0

    run(test)


def test_the_last_frame_comes_behind_what_waits_and_then_the_end() -> None:
    async def test(both: Both) -> None:
        data = content(LARGE)
        both.connection.write(data.data)
        both.connection.end(b"the last")
        both.connection.write(b"too late")
        assert await both.received(LARGE + 100) == data.tobytes() + b"the last"
        assert both.handler.lost == 1
        assert not both.handler.writable  # nothing is sent any more

    run(test)


def test_nothing_waits_at_the_end() -> None:
    async def test(both: Both) -> None:
        both.connection.end(b"the last")
        assert await both.received(100) == b"the last"

    run(test)


@pytest.mark.parametrize("waits", [False, True])
def test_the_peer_is_gone(waits: bool) -> None:
    async def test(both: Both) -> None:
        if waits:
            both.connection.write(content(LARGE).data)
        both.peer.close()
        if not waits:
            both.connection.write(b"to nobody")
        while not both.handler.lost:
            await asyncio.sleep(0.001)
        assert both.connection.ended
        with pytest.raises(ConnectionError):
            await both.connection.drain()

    run(test)


def test_no_descriptor_is_left_to_wait_with(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(both: Both) -> None:
        data, refused = content(LARGE), []

        def dup(self: object) -> socket.socket:
            refused.append(self)
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(asyncio.trsock.TransportSocket, "dup", dup)
        both.connection.write(data.data)
        assert await both.received(1 << 20) == data[: 1 << 20].tobytes()
        while len(refused) < 3:
            await asyncio.sleep(socket_writer._RETRY / 4)
        monkeypatch.undo()
        assert await both.received(LARGE - (1 << 20)) == data[1 << 20 :].tobytes()

    run(test)


def test_a_descriptor_more_is_open_only_while_something_waits() -> None:
    def numbers(both: Both) -> int:
        """Return how many descriptors the other end's connection has."""
        ours = both.connection._transport.get_extra_info("socket").fileno()
        count = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                count += os.path.sameopenfile(int(name), ours)
        return count

    async def test(both: Both) -> None:
        assert numbers(both) == 1
        both.connection.write(content(LARGE).data)
        assert numbers(both) == 2
        await both.received(LARGE)
        await both.connection.drain()
        while both.connection._writer is not None and both.connection._writer.waiting:
            await asyncio.sleep(0)
        assert numbers(both) == 1

    run(test)


class _Secure:
    """A transport for TLS, which keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[object] = []

    def get_extra_info(self, name: str) -> object:
        """There is TLS, and everything else."""
        return self

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing."""

    def set_protocol(self, protocol: object) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def write(self, data: object) -> None:
        """Keep a piece."""
        self.pieces.append(data)

    def writelines(self, pieces: tuple[object, ...]) -> None:
        """Keep some."""
        assert sys.version_info >= (3, 11), "these are joined there"
        self.pieces += pieces


def test_over_tls_pieces_are_not_joined_either() -> None:
    async def main() -> None:
        secure: Any = _Secure()
        handler: Any = Handler()
        connection = FrameConnection(secure, handler, bytearray(1), FROM_CLIENT)
        connection.take_over()
        head, data = b"head", content(1 << 20).data
        connection.write_behind(head, data)
        assert [id(one) for one in secure.pieces] == [id(head), id(data)]

    asyncio.run(main())
