"""The software models' numbers, down to the last bit, against numpy, NIST's vectors and the system's gzip."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import apyfal
from apyfal.exceptions import AcceleratorException

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64"]

# npst.from_dtype makes numbers of a small type by throwing away those that it does not hold.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])

# One card for the whole module: opening one takes longer than an example.
_cards: dict[str, apyfal.Accelerator] = {}


@pytest.fixture(scope="module", autouse=True)
def cards() -> Iterator[None]:
    for name in ("scale", "histogram", "gzip", "gunzip", "sha3", "trng"):
        _cards[name] = apyfal.Accelerator(name)
    yield
    for card in _cards.values():
        card.stop()
    _cards.clear()


def _same_bits(result: np.ndarray, expected: np.ndarray) -> bool:
    """Equal in every bit, but for NaNs, whose payload no standard fixes."""
    both_nan = np.isnan(result) & np.isnan(expected) if result.dtype.kind == "f" else np.zeros(result.shape, bool)
    unsigned = np.dtype(f"u{result.itemsize}")
    return bool(np.all((result.view(unsigned) == expected.view(unsigned)) | both_nan))


# -- scale ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@settings(_UNHURRIED, max_examples=25)
@given(data=st.data())
def test_scale_of_integers_wraps_as_numpy_does(dtype: str, data: st.DataObject) -> None:
    whole = npst.from_dtype(np.dtype(dtype))
    a, b = data.draw(whole), data.draw(whole)
    source = data.draw(npst.arrays(dtype, st.integers(1, 300), elements=whole))
    with np.errstate(over="ignore"):
        expected = source * a + b
    assert np.array_equal(_cards["scale"].process(source, a=a.item(), b=b.item()), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(_UNHURRIED, max_examples=40)
@given(data=st.data())
def test_scale_of_floats_rounds_twice_as_numpy_does(dtype: str, data: st.DataObject) -> None:
    finite = npst.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    a, b = data.draw(finite), data.draw(finite)
    source = data.draw(npst.arrays(dtype, st.integers(1, 300), elements=npst.from_dtype(np.dtype(dtype))))
    with np.errstate(all="ignore"):
        expected = source * a + b
    assert _same_bits(_cards["scale"].process(source, a=float(a), b=float(b)), expected)


def test_scale_keeps_the_sign_of_zero() -> None:
    zero = np.array([-0.0], np.float32)
    for b in (-0.0, 0.0, -0.0):
        assert _same_bits(_cards["scale"].process(zero, a=1.0, b=b), zero + np.float32(b))


def test_scale_of_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for a, b in ((1, 0), (3.14, -2.7), (-1e-3, 6e-8), (1000, 1)):
        with np.errstate(all="ignore"):
            expected = halves * np.float16(a) + np.float16(b)
        assert _same_bits(_cards["scale"].process(halves, a=float(np.float16(a)), b=float(np.float16(b))), expected)


# -- histogram -----------------------------------------------------------------------------------------------------


def _too_many(source: np.ndarray, bins: int, low: float, high: float) -> bool:
    """Whether two edges are one number: an error in numpy since 2.2, and a count of nothing before."""
    try:
        edges = np.histogram_bin_edges(source, bins, (low, high))
    except ValueError:
        return True
    return bool((edges[:-1] >= edges[1:]).any())


def _histogram(source: np.ndarray, bins: int, low: float, high: float) -> None:
    if _too_many(source, bins, low, high):
        with pytest.raises(AcceleratorException, match="too many for the range"):
            _cards["histogram"].process(source, bins=bins, range=(low, high))
        return
    try:
        expected, _ = np.histogram(source, bins, (low, high))
    except IndexError:  # numpy's estimate for half precision can be past its last bin, and then it has no answer
        _cards["histogram"].process(source, bins=bins, range=(low, high))
        return
    assert np.array_equal(_cards["histogram"].process(source, bins=bins, range=(low, high)), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
@settings(_UNHURRIED, max_examples=25)
@given(data=st.data())
def test_histogram_of_integers_is_numpys(dtype: str, data: st.DataObject) -> None:
    low = data.draw(st.floats(-1e6, 1e6))
    high = low + data.draw(st.floats(1e-3, 1e6))
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    near = st.integers(min(max(int(low), least), most), min(max(int(high), least), most))
    elements = npst.from_dtype(np.dtype(dtype)) | near
    source = data.draw(npst.arrays(dtype, st.integers(1, 60), elements=elements, fill=st.nothing()))
    _histogram(source, data.draw(st.integers(1, 1000)), low, high)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(_UNHURRIED, max_examples=50)
@given(data=st.data())
def test_histogram_of_floats_on_the_edges_is_numpys(dtype: str, data: st.DataObject) -> None:
    """Elements at the edges and one place beside them, where one wrong rounding shows."""
    low = data.draw(st.floats(-1000, 1000))
    high = low + data.draw(st.floats(0.01, 1000))
    bins = data.draw(st.integers(1, 300))
    edges = np.linspace(low, high, bins + 1).astype(dtype)
    extremes = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    around = [edges, np.nextafter(edges, edges.dtype.type(-np.inf)), np.nextafter(edges, edges.dtype.type(np.inf))]
    _histogram(np.concatenate([*around, extremes]), bins, low, high)


def test_histogram_of_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for bins, low, high in ((7, -3.3, 5.1), (256, 0.0, 1.0), (100, -30000.0, 35000.0), (10, 1e-7, 3e-6)):
        _histogram(halves, bins, low, high)


def test_histogram_of_a_range_without_distances() -> None:
    with pytest.raises(AcceleratorException, match="a finite difference"):
        _cards["histogram"].process(np.zeros(10, np.float16), bins=3, range=(-60000, 60000))


# -- sha3 ----------------------------------------------------------------------------------------------------------


def test_sha3_gives_nists_digests() -> None:
    """NIST's example values for SHA3: "SHA3-256_1600.pdf" and its siblings, 200 bytes of 0xa3."""
    message = b"\xa3" * 200
    published = {
        "sha3-224": "9376816aba503f72f96ce7eb65ac095deee3be4bf9bbc2a1cb7e11e0",
        "sha3-256": "79f38adec5c20307a98ef76e8324afbfd46cfd81b22e3973c65fa1bd9de31787",
        "sha3-384": "1881de2ca7e41ef95dc4732b8f5f002b189cc1e42b74168ed1732649ce1dbcdd76197a31fd55ee989f2d7050dd473e8f",
        "sha3-512": "e76dfad22084a8b1467fcf2ffa58361bec7628edf5f3fdc0e4805dc48caeeca8"
        "1b7c13c30adf52a3659584739a2df46be589c51ca1a4a8416df6545a1ce8ba00",
    }
    for kind, digest in published.items():
        assert _cards["sha3"].process(message, type=kind) == {"digest": digest}


# -- gzip ----------------------------------------------------------------------------------------------------------


@settings(_UNHURRIED, max_examples=40)
@given(
    parts=st.lists(st.binary(max_size=3000) | st.builds(bytes, st.integers(0, 200_000)), min_size=1, max_size=4),
    padding=st.integers(0, 600),
)
def test_gunzip_of_any_members_and_padding(parts: list[bytes], padding: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(padding)
    assert _cards["gunzip"].process(packed).tobytes() == b"".join(parts)


@settings(_UNHURRIED, max_examples=40)
@given(data=st.data())
def test_damage_is_never_taken_for_data(data: st.DataObject) -> None:
    """One changed byte is an error, or says nothing about the content: the time, unused bits."""
    content = data.draw(st.binary(min_size=1, max_size=500))
    packed = bytearray(gzip.compress(content, mtime=0))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        result = _cards["gunzip"].process(bytes(packed)).tobytes()
    except AcceleratorException:
        return
    assert result == content


@pytest.mark.parametrize("level", range(10))
def test_gzip_of_what_does_not_compress(level: int, tmp_path: Path) -> None:
    noise = _cards["trng"].process(nbytes=300_001)
    packed = _cards["gzip"].process(noise, level=level)
    done = subprocess.run(["gzip", "-dc"], input=packed.tobytes(), capture_output=True, check=True)
    assert done.stdout == noise.tobytes()
    assert packed.nbytes < 300_001 * 1.001 + 100


def test_gzip_gives_equal_files_for_equal_data() -> None:
    data = np.arange(100_000, dtype=np.uint32)
    assert np.array_equal(_cards["gzip"].process(data), _cards["gzip"].process(data))
