"""The digest of a payload: of its content, not of how it arrived."""

from __future__ import annotations

import asyncio
import random

import pytest

from apyfal.host.server.transport.payload_digest import ArrivingDigest, PayloadDigest

SIZES = [0, 1, 7, 8, 4095, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 3]


def digest_of(content: bytes | bytearray, *cuts: int) -> str:
    digest = PayloadDigest()
    for start, stop in zip((0, *cuts), (*cuts, len(content)), strict=True):
        digest.update(memoryview(content)[start:stop])
    return digest.hexdigest()


@pytest.mark.parametrize("size", SIZES)
def test_cuts_do_not_matter_and_every_byte_does(size: int) -> None:
    rng = random.Random(size)
    content = bytearray(rng.randbytes(size))
    whole = digest_of(content)
    for _ in range(8):
        assert digest_of(content, *sorted(rng.randrange(size + 1) for _ in range(rng.randrange(6)))) == whole
    for place in {0, size // 2, size - 1, *(rng.randrange(size) for _ in range(8))} if size else ():
        bit = 1 << rng.randrange(8)
        content[place] ^= bit
        assert digest_of(content) != whole, place
        content[place] ^= bit
    assert digest_of(content + b"\0") != whole


def test_blocks_in_another_order_are_another_payload() -> None:
    first, second = random.Random(1).randbytes(1 << 20), random.Random(2).randbytes(1 << 20)
    assert digest_of(first + second) != digest_of(second + first)
    words = bytearray(1 << 21)
    words[0] = words[1 << 20] = 1
    assert digest_of(words) != digest_of(bytes(1 << 21))


def test_what_arrives_has_the_same_digest() -> None:
    content = random.Random(3).randbytes((13 << 20) + 5)

    async def arrive(step: int) -> str:
        memory = bytearray(len(content))
        digest = ArrivingDigest(memoryview(memory))
        for start in range(0, len(content), step):
            memory[start : start + step] = content[start : start + step]
            digest.arrived(min(start + step, len(content)))
            await asyncio.sleep(0.001)
        return await digest.finish()

    for step in (len(content), 3 << 20, 700_001):
        assert asyncio.run(arrive(step)) == digest_of(content)
