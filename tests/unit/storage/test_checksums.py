"""Checksums of parts, and of the whole that they make."""

from __future__ import annotations

import random
import sys
import zlib

import pytest
from awscrt import checksums as reference

from apyfal.storage import checksums

DATA = random.Random(1).randbytes(100_003)
FUNCTIONS = {"crc64nvme": reference.crc64nvme, "crc32c": reference.crc32c, "crc32": zlib.crc32}


@pytest.mark.parametrize("algorithm", FUNCTIONS)
@pytest.mark.parametrize("cut", [0, 1, 7, 65_536, 100_002, 100_003])
def test_two_parts_make_the_whole(algorithm: str, cut: int) -> None:
    crc = FUNCTIONS[algorithm]
    whole = checksums.combine(algorithm, crc(DATA[:cut]), crc(DATA[cut:]), len(DATA) - cut)
    assert whole == crc(DATA)


@pytest.mark.parametrize(
    ("algorithm", "value"),
    # the check values of the catalogue of parametrised CRC algorithms, for "123456789"
    [("crc64nvme", "ae8b14860a799888"), ("crc32c", "e3069283"), ("crc32", "cbf43926")],
)
def test_check_values(algorithm: str, value: str) -> None:
    hasher = checksums.new_hasher(algorithm)
    hasher.update(memoryview(b"1234"))
    hasher.update(memoryview(b"56789"))
    assert hasher.digest().hex() == value


def test_the_fastest_stated_checksum_is_chosen() -> None:
    assert checksums.best_checksum({"md5": b"", "crc32": b"", "crc64nvme": b""}) == "crc64nvme"
    assert checksums.best_checksum({"md5": b""}) is None


def test_without_awscrt_crc32_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "awscrt", None)
    checksums.crc_function.cache_clear()
    try:
        assert checksums.best_checksum({"crc64nvme": b"", "crc32c": b""}) is None
        assert checksums.best_checksum({"crc64nvme": b"", "crc32": b""}) == "crc32"
        assert checksums.new_hasher("crc64nvme") is None
    finally:
        checksums.crc_function.cache_clear()
