"""Checksums that can be computed part by part, in any order, and combined over the whole.

CRC-64/NVME and CRC-32C need ``awscrt`` (the extra ``s3``): it computes them at memory speed. CRC-32 is in zlib. MD5
and the SHA family cannot be combined: they are verified only if a body arrives in one piece and in order.
"""

from __future__ import annotations

import hashlib
import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Protocol

__all__ = ["COMBINABLE", "Hasher", "best_checksum", "combine", "crc_function", "digest_bytes", "new_hasher"]

#: Algorithm to width in bytes and reflected polynomial, fastest to verify first.
#: Polynomials: NVM Express base specification (CRC-64/NVME), RFC 3720 (CRC-32C), RFC 1952 (CRC-32).
COMBINABLE: Mapping[str, tuple[int, int]] = {
    "crc64nvme": (8, 0x9A6C9329AC4BC9B5),
    "crc32c": (4, 0x82F63B78),
    "crc32": (4, 0xEDB88320),
}

Crc = Callable[[memoryview, int], int]


@cache
def crc_function(algorithm: str) -> Crc | None:
    """Return ``f(data, previous) -> crc``, or ``None`` if it cannot be computed fast on this machine."""
    try:
        from awscrt import checksums
    except ImportError:
        return zlib.crc32 if algorithm == "crc32" else None
    functions: dict[str, Any] = {  # it takes any buffer, and says that it takes bytes
        "crc64nvme": checksums.crc64nvme,
        "crc32c": checksums.crc32c,
        "crc32": checksums.crc32,
    }
    return functions.get(algorithm)


def best_checksum(stated: Mapping[str, bytes]) -> str | None:
    """Choose, from the checksums that a store states, the one to verify in parts; ``None`` if there is none."""
    for algorithm in COMBINABLE:
        if algorithm in stated and crc_function(algorithm) is not None:
            return algorithm
    return None


def digest_bytes(algorithm: str, value: int) -> bytes:
    """Return a CRC as the bytes that stores state: big-endian."""
    return value.to_bytes(COMBINABLE[algorithm][0], "big")


def combine(algorithm: str, first: int, second: int, second_length: int) -> int:
    """Return the CRC of two pieces of data in a row, from the CRC of each.

    Parameters
    ----------
    algorithm
        One of `COMBINABLE`.
    first, second
        The CRCs.
    second_length
        Bytes that `second` is of.
    """
    width, polynomial = COMBINABLE[algorithm]
    # Appending n zero bytes multiplies the CRC by x**(8 n) modulo the polynomial; the usual inversions before and
    # after cancel out.
    return _multiply(_power(8 * width, polynomial, 8 * second_length), first, 8 * width, polynomial) ^ second


def _multiply(a: int, b: int, bits: int, polynomial: int) -> int:
    """Multiply two reflected polynomials modulo `polynomial`."""
    product = 0
    mask = 1 << (bits - 1)
    while a:
        if a & mask:
            product ^= b
            a ^= mask
        mask >>= 1
        b = (b >> 1) ^ polynomial if b & 1 else b >> 1
    return product


@lru_cache(maxsize=64)
def _power(bits: int, polynomial: int, exponent: int) -> int:
    """Return x**exponent modulo `polynomial`, reflected."""
    result = 1 << (bits - 1)  # 1
    square = 1 << (bits - 2)  # x
    while exponent:
        if exponent & 1:
            result = _multiply(square, result, bits, polynomial)
        square = _multiply(square, square, bits, polynomial)
        exponent >>= 1
    return result


class Hasher(Protocol):
    """A checksum over data that arrives in order."""

    def update(self, data: memoryview, /) -> object:
        """Add data."""

    @abstractmethod
    def digest(self) -> bytes:
        """Return the checksum of all data so far."""


class _Running:
    def __init__(self, algorithm: str, function: Crc) -> None:
        self._algorithm = algorithm
        self._function = function
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return digest_bytes(self._algorithm, self._value)


def new_hasher(algorithm: str) -> Hasher | None:
    """Return a hasher for data in order; ``None`` if this machine cannot compute `algorithm`."""
    if algorithm in COMBINABLE:
        function = crc_function(algorithm)
        return _Running(algorithm, function) if function is not None else None
    if algorithm in ("md5", "sha1", "sha256"):
        return hashlib.new(algorithm, usedforsecurity=False)
    return None
