"""What a channel's connection hands to its transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apyfal.host.server.channel.connection import JOINED, FrameConnection


class _Transport:
    """Keeps what is written, one call after the other."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.largest_copy = 0

    def write(self, data: bytes | memoryview) -> None:
        if not isinstance(data, memoryview):
            self.largest_copy = max(self.largest_copy, len(data))
        self.calls.append(bytes(data))

    def close(self) -> None:
        pass


def _connection(transport: Any) -> FrameConnection:
    async def make() -> FrameConnection:
        handler: Any = None  # nothing arrives
        return FrameConnection(transport, handler, bytearray(1))

    return asyncio.run(make())


@pytest.mark.parametrize("nbytes", [1, JOINED - 1, JOINED, JOINED + 1, 1 << 20])
def test_a_head_is_sent_with_what_follows_it(nbytes: int) -> None:
    transport, head = _Transport(), b"twelve bytes"
    content = bytes(index * 7 % 251 for index in range(nbytes))
    _connection(transport).write_behind(head, memoryview(content))
    assert b"".join(transport.calls) == head + content
    assert len(transport.calls[0]) == len(head) + min(nbytes, JOINED)
    assert len(transport.calls) == (2 if nbytes > JOINED else 1)
    assert transport.largest_copy <= len(head) + JOINED  # the rest is not copied


def test_nothing_follows_the_last_frame() -> None:
    transport = _Transport()
    connection = _connection(transport)
    connection.end(b"the last")
    connection.write_behind(b"head", memoryview(bytes(2 * JOINED)))
    assert transport.calls == [b"the last"]
