"""Replays what fuzzing has found, and a few thousand mutations of the seeds, the same in each run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
WORDS = [b"\0", b"\xff", b"\xb2", b"\r\n", b" ", b"-1", b"9" * 20, b"9" * 5000, b"%00", b"\xed\xa0\x80", b"[" * 3000]
MUTATIONS = {"http_answer": 1500, "journal": 100, "tokens": 500, "sessions": 1000, "handlers": 300, "channels": 100}


def mutated(seed: bytes, others: list[bytes], source: random.Random) -> bytes:
    """Change an input in one to six places: bits, bytes, pieces taken out, doubled, or of another input."""
    data = bytearray(seed)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            data[at:at] = source.choice(
                [b"\0", b"\xff", b"\r\n", b" ", b"-1", b"99999999999999999999", b"%00", b"\xed\xa0\x80"]
            )
        elif kind == 2:
            del data[at : at + source.randint(1, 8)]
        elif kind == 3:
            data[at:at] = data[at : at + source.randint(1, 64)] * source.randint(1, 4)
        else:
            other = source.choice(others)
            start = source.randrange(len(other) + 1)
            data[at:at] = other[start : start + source.randint(1, 32)]
    return bytes(data)


def test_every_target_has_seeds() -> None:
    assert TARGETS.keys() == SEEDS.keys()
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_what_may_be_raised(name: str) -> None:
    source = random.Random(name)
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    inputs = [*SEEDS[name], *kept]
    for data in inputs:
        TARGETS[name](data)
    for _ in range(MUTATIONS.get(name, 3000)):
        data = mutated(source.choice(inputs), inputs, source)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}: {data!r}") from error
