from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from apyfal.exceptions import ParameterError
from apyfal.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("64KiB", 65536),
        ("64kib", 65536),
        ("64K", 65536),
        ("64KB", 64000),
        (" 256 MiB ", 256 << 20),
        ("1.5GiB", 3 << 29),
        ("2T", 2 << 40),
        ("1PB", 10**15),
        (12345678901234567890, 12345678901234567890),
        ("12345678901234567891", 12345678901234567891),
        (np.int64(5), 5),
        (np.uint64(1 << 63), 1 << 63),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MiB",
        "-1",
        "1 2",
        "1e3",
        "0x10",
        "1.0001B",
        "٣",
        True,
        None,
        1.5,
        b"1",
        -1,
        np.int64(-1),
        np.float32(2),
        "9" * 5000,
    ],
)
def test_parse_size_refuses(text: object) -> None:
    with pytest.raises(ParameterError, match="is not a size"):
        parse_size(text)  # type: ignore[arg-type]  # that is what is tested


def test_size_unit_is_suggested() -> None:
    with pytest.raises(ParameterError, match="unknown unit 'MiBs'; did you mean 'MiB'"):
        parse_size("5MiBs")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("500 ms", 0.5),
        ("250us", 250e-6),
        ("1.5min", 90.0),
        ("2h", 7200.0),
        (3, 3.0),
        (0.25, 0.25),
        (np.int64(3), 3.0),
        (np.float32(0.25), 0.25),
        (Fraction(1, 4), 0.25),
        ("36500d", 3153600000.0),
        (0, 0.0),
        (-0.0, 0.0),
    ],
)
def test_parse_duration(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1", "5 parsecs", float("nan"), float("inf"), -1, False, None, np.bool_(True), b"1", [1], "inf", "1e3",
     "36501d", 1e10, 1e300, 10**400, -(10**400), "9" * 400, "9" * 5000, np.float32("nan"), np.int64(-1),
     1j, Decimal(1)],
)  # fmt: skip
def test_parse_duration_refuses(text: object) -> None:
    with pytest.raises(ParameterError, match=r"is not a duration: .*expected|is not a duration: unknown unit"):
        parse_duration(text)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (1 << 60, "1024.0 PiB")]
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00034, "340 us"),
        (0.5, "500.0 ms"),
        (1.24, "1.2 s"),
        (59.99, "60.0 s"),
        (61, "1 min 01 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
