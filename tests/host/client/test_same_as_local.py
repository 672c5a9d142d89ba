"""The same call, on a card of this process and on a host's: the same values at the same places, or the same error."""

from __future__ import annotations

import array
import gzip
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, register_hanging

import apyfal
from apyfal.definition import registry
from apyfal.exceptions import AcceleratorException, RunTimeout

VALUES = np.arange(12, dtype=np.float32)
SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: VALUES,
    "Fortran order": lambda: np.asfortranarray(VALUES.reshape(3, 4)),
    "backwards": lambda: VALUES[::-1],
    "scalar": lambda: np.array(3, np.float32),
    "empty": lambda: np.zeros((3, 0), np.float32),
    "big endian": lambda: VALUES.astype(">f4"),
    "double": lambda: VALUES.astype(np.float64),
    "bytes": VALUES.tobytes,
    "bytearray": lambda: bytearray(VALUES.tobytes()),
    "many bytes": lambda: np.arange(200_000, dtype=np.float32).tobytes(),
    "memoryview": lambda: memoryview(VALUES.tobytes()),
    "no bytes": lambda: b"",
    "a part of an element": lambda: b"abc",
    "typed memoryview": lambda: memoryview(VALUES),
    "array of the library": lambda: array.array("f", [1, 2, 3]),
    "file": lambda: io.BytesIO(VALUES.tobytes()),
    "one input": lambda: {"src": VALUES},
    "one input of bytes": lambda: {"src": VALUES.tobytes()},
    "a mapping in a mapping": lambda: {"src": {"src": VALUES.view(np.uint8)}},
    "unknown input": lambda: {"other": VALUES},
}
TARGETS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.zeros(12, np.float32),
    "every second": lambda: np.zeros(24, np.float32)[::2],
    "too short": lambda: np.zeros(11, np.float32),
    "too long": lambda: np.zeros(13, np.float32),
    "other type": lambda: np.zeros(12, np.int32),
    "bytearray": lambda: bytearray(48),
    "file": io.BytesIO,
    "one output": lambda: {"dst": np.zeros(12, np.float32)},
    "one output to a file": lambda: {"dst": io.BytesIO()},
    "one new output": lambda: {"dst": None},
    "a mapping in a mapping": lambda: {"dst": {"dst": np.zeros(12, np.float32)}},
    "unknown output": lambda: {"other": np.zeros(12, np.float32)},
    "output too short": lambda: {"dst": np.zeros(11, np.float32)},
}


@pytest.fixture(scope="module", autouse=True)
def defined() -> None:
    if registry.find("hangs") is None:
        register_hanging()


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, daemon: RunningDaemon) -> dict[str, str | None]:
    if request.param == "tcp":
        return {"host_ip": daemon.url, "token": daemon.token()}
    return {"host_ip": daemon.unix, "token": None}


@pytest.fixture
def both(where: dict[str, str | None], options: dict[str, Any]) -> Iterator[tuple[apyfal.Accelerator, ...]]:
    with apyfal.Accelerator(**options) as here, apyfal.Accelerator(**options, **where) as there:
        yield here, there


def content(value: object) -> object:
    """Return what can be compared of a source, destination or result."""
    if isinstance(value, dict):
        return {name: content(one) for name, one in value.items()}
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    if isinstance(value, bytearray):
        return bytes(value)
    return value if not isinstance(value, np.ndarray) else (value.dtype.str, value.shape, value.tobytes())


def outcome(call: Callable[..., Any], src: object, dst: object, **parameters: object) -> tuple[object, ...]:
    try:
        result = call(src, dst, **parameters)
    except AcceleratorException as error:
        return type(error), str(error)
    places = dst.values() if isinstance(dst, dict) else [dst]
    return content(result), [result is place for place in places], content(dst)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "options",
    [{"accelerator": "scale"}, {"accelerator": "scale", "dtype": "float32"}, {"accelerator": "sha3"}],
    ids=str,
)
def test_sources(both: tuple[apyfal.Accelerator, ...], source: str, options: dict[str, Any]) -> None:
    parameters = {} if options["accelerator"] == "sha3" else {"a": 2, "b": 1}
    here, there = (outcome(card.process, SOURCES[source](), None, **parameters) for card in both)
    assert there == here


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", [{"accelerator": "scale"}, {"accelerator": "loopback"}], ids=str)
def test_destinations(both: tuple[apyfal.Accelerator, ...], target: str, options: dict[str, Any]) -> None:
    here, there = (outcome(card.process, VALUES, TARGETS[target]()) for card in both)
    assert there == here


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.array(2), np.longdouble(2), b"2", None, ""])
@pytest.mark.parametrize("options", [{"accelerator": "scale"}], ids=str)
def test_parameters(both: tuple[apyfal.Accelerator, ...], value: object, options: dict[str, Any]) -> None:
    here, there = (outcome(card.process, VALUES[1:], None, b=value) for card in both)
    if value == b"2":  # which only Python takes for a number
        assert there[0] is apyfal.exceptions.ParameterError
    else:
        assert there == here


TIMES = [
    0,
    0.0,
    -1,
    math.nan,
    math.inf,
    True,
    False,
    "0",
    "5s",
    "x",
    "",
    b"5",
    1e10,
    10**400,
    np.int64(60),
    np.float32(60),
]


@pytest.mark.parametrize("timeout", TIMES, ids=str)
@pytest.mark.parametrize("way", ["process", "prepare", "call", "submit", "map"])
@pytest.mark.parametrize("options", [{"accelerator": "hangs"}], ids=str)
def test_time_limits(both: tuple[apyfal.Accelerator, ...], way: str, timeout: Any, options: dict[str, Any]) -> None:
    """No time at all ends a job that takes longer; what is no time is the same error."""
    ways: dict[str, Callable[[apyfal.Accelerator], Callable[..., Any]]] = {
        "process": lambda card: card.process,
        "prepare": lambda card: lambda src, dst, timeout: card.prepare(src, dst, timeout=timeout)(),
        "call": lambda card: lambda src, dst, timeout: card.prepare(src, dst)(timeout=timeout),
        "submit": lambda card: lambda src, dst, timeout: card.process_submit(src, dst, timeout=timeout).result(60),
        "map": lambda card: lambda src, dst, timeout: list(card.process_map([src] * 3, timeout=timeout))[-1],
    }
    here, there = (outcome(ways[way](card), np.zeros(8, np.uint8), None, timeout=timeout) for card in both)
    assert there == here
    assert (here[0] is RunTimeout) == (timeout in (0, "0") and not isinstance(timeout, bool))


def jobs_of(card: apyfal.Accelerator) -> Callable[..., Any]:
    """Return a function that runs a job among equal ones, which travel together."""

    def run(src: object, dst: object, **parameters: object) -> Any:
        more = [None if dst is None else np.zeros_like(dst) for _ in range(3)]
        return list(card.process_map([src] * 4, [*more, dst], **parameters))[-1]

    return run


@pytest.mark.parametrize("value", [float("nan"), np.array(2), b"2"])
@pytest.mark.parametrize("options", [{"accelerator": "scale"}], ids=str)
def test_parameters_of_a_batch(both: tuple[apyfal.Accelerator, ...], value: object, options: dict[str, Any]) -> None:
    here, there = (outcome(jobs_of(card), VALUES[1:], None, b=value) for card in both)
    if value == b"2":
        assert there[0] is apyfal.exceptions.ParameterError
    else:
        assert there == here


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [50, 60, 5000, 1 << 20])
@pytest.mark.parametrize("options", [{"accelerator": "gunzip"}], ids=str)
def test_arrays_that_the_kernel_does_not_fill(
    both: tuple[apyfal.Accelerator, ...],
    where: dict[str, str | None],
    count: int,
    together: bool,
    options: dict[str, Any],
) -> None:
    """The rest is the caller's: neither zero, nor what the host's memory had before, which was another user's."""
    _, there = both
    packed = np.frombuffer(gzip.compress(bytes(range(50))), np.uint8)
    expected = np.full(count, 7, np.uint8)
    expected[:50] = range(50)
    with apyfal.Accelerator("loopback", **where) as other:
        for size in (packed.nbytes, count, 64 << 10):
            other.process(np.full(size, 9, np.uint8))
    targets: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: np.full(count, 7, np.uint8),
        "shared": lambda: there.empty(count, np.uint8),
        "every second": lambda: np.full(2 * count, 7, np.uint8)[::2],
    }
    for make in targets.values():
        for _ in range(6):  # the host prepares jobs that come often
            dst = make()
            dst[...] = 7
            assert (jobs_of(there) if together else there.process)(packed, dst) is dst
            np.testing.assert_array_equal(dst, expected)
        dst = make()
        dst[...] = 7
        info: dict[str, Any] = {}
        there.process({"src": packed}, {"dst": dst}, info_dict=info)
        assert info["bytes_out"] == 50
        there.process(packed, dst, info_dict=info)
        assert info["bytes_copied"] == 50 * len(info["copy_reasons"])  # each of the output, and none of the whole array


@pytest.mark.parametrize("options", [{"accelerator": "scale"}], ids=str)
def test_a_start_that_was_refused_changes_nothing(
    both: tuple[apyfal.Accelerator, ...], options: dict[str, Any]
) -> None:
    _, there = both
    there.start(a=3)
    with pytest.raises(apyfal.exceptions.ParameterError):
        there.start(a=b"2")
    there._renew(there._session, restart=True)
    np.testing.assert_array_equal(there.process(VALUES), VALUES * 3)


class Failing(io.BytesIO):
    """A file whose second call fails."""

    def __init__(self, error: BaseException, count: int = 0) -> None:
        super().__init__(bytes(count))
        self._error = error
        self._calls = 0

    def _count(self) -> None:
        self._calls += 1
        if self._calls > 1:
            raise self._error

    def readinto(self, out: Any, /) -> int:
        self._count()
        return super().readinto(out)

    def write(self, data: Any, /) -> int:
        self._count()
        return super().write(data)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), TimeoutError("mine"), ValueError("mine")], ids=repr
)
@pytest.mark.parametrize("end", ["src", "one of src", "dst"])
@pytest.mark.parametrize("options", [{"accelerator": "loopback"}], ids=str)
def test_a_file_of_the_client_that_fails(
    both: tuple[apyfal.Accelerator, ...], end: str, error: Exception, options: dict[str, Any]
) -> None:
    """Its own error, at once: not as if the host could not be reached."""
    _, there = both
    data = np.zeros(4 << 20, np.uint8)
    src: object = data if end == "dst" else Failing(error, data.nbytes)
    if end == "one of src":
        src = {"src": src}
    with pytest.raises(type(error)) as raised:
        there.process(src, Failing(error) if end == "dst" else None)
    assert raised.value is error
    np.testing.assert_array_equal(there.process(data), data)
