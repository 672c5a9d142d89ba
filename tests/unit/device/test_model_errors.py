"""What a software model raises is the cause of the job's error, with its type, traceback and own cause."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import apyfal
from apyfal.definition import registry
from apyfal.exceptions import KernelError


class Custom(Exception):
    """With arguments that a copy could not be made from."""

    def __init__(self, first: int, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def plain() -> None:
    raise ValueError("my own bug")


def with_cause() -> None:
    try:
        {}["key"]
    except KeyError as error:
        raise RuntimeError("consequence") from error


def with_context() -> None:
    try:
        {}["key"]
    except KeyError:
        raise RuntimeError("later")  # noqa: B904  # without "from" on purpose


def raise_(error: BaseException) -> None:
    raise error


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})


@pytest.fixture(params=["process", "submit", "map", "pool", "chunks"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], None]], BaseException]]:
    """Run a model that calls a function, one way or another; return the error of the job."""

    def run(failing: Callable[[], None]) -> BaseException:
        @apyfal.accelerators.model("failing", dtype="uint8", chunking="elements")
        def failing_model(src: np.ndarray, dst: np.ndarray) -> None:
            failing()

        size = 20 << 20 if request.param == "chunks" else 100
        data = np.zeros(size, "u1")
        with pytest.raises(KernelError) as caught:
            _run(request.param, data)
        return caught.value

    return run


def _run(way: str, data: np.ndarray) -> None:
    if way == "pool":
        with apyfal.AcceleratorPoolExecutor("failing", 1) as pool:
            pool.process_submit(data).result(30)
        return
    with apyfal.Accelerator("failing") as accelerator:
        if way == "submit":
            accelerator.process_submit(data).result(30)
        elif way == "map":
            list(accelerator.process_map([data]))
        else:
            accelerator.process(data)


Run = Callable[[Callable[[], None]], BaseException]


@pytest.mark.parametrize(
    ("failing", "kind", "text"),
    [
        (plain, ValueError, "my own bug"),
        (lambda: print(1 / 0), ZeroDivisionError, "division by zero"),
        (lambda: raise_(Custom(1, "two")), Custom, "1 and two"),
        (lambda: raise_(KeyError("key")), KeyError, "'key'"),
        (lambda: raise_(AssertionError()), AssertionError, ""),
        (lambda: raise_(ValueError("ä" * 5000)), ValueError, "ä" * 5000),
        (lambda: raise_(SystemExit(3)), SystemExit, "3"),
        (lambda: raise_(ValueError("100 %s %d")), ValueError, "100 %s %d"),
    ],
)
def test_the_exception_is_the_cause(run: Run, failing: Callable[[], None], kind: type, text: str) -> None:
    error = run(failing)
    assert type(error.__cause__) is kind
    assert str(error.__cause__) == text
    assert f"{kind.__name__}: {text[:40]}" in str(error)
    shown = "".join(traceback.format_exception(error))
    assert "in failing_model" in shown


@pytest.mark.parametrize(("failing", "which"), [(with_cause, "__cause__"), (with_context, "__context__")])
def test_the_exceptions_own_cause_is_kept(run: Run, failing: Callable[[], None], which: str) -> None:
    cause = run(failing).__cause__
    assert isinstance(cause, RuntimeError)
    assert isinstance(getattr(cause, which), KeyError)
    assert "in with_c" in "".join(traceback.format_exception(cause))


@pytest.mark.parametrize("error", [Unprintable(), ValueError("\ud800")])
def test_an_exception_without_text_fails_the_job_all_the_same(error: Exception) -> None:
    @apyfal.accelerators.model("failing", dtype="uint8")
    def failing_model(src: np.ndarray, dst: np.ndarray) -> None:
        raise error

    with (
        apyfal.Accelerator("failing") as accelerator,
        pytest.raises(KernelError, match=f"{type(error).__name__}, whose text cannot be shown") as caught,
    ):
        accelerator.process(b"abc")
    assert caught.value.__cause__ is error


def test_device_memory_does_not_outlive_its_run() -> None:
    """Neither in the frames of the traceback, nor in the exception: there would be freed memory behind it."""
    arrays: list[weakref.ref[np.ndarray]] = []

    @apyfal.accelerators.model("failing", dtype="uint8", chunking="elements")
    def failing_model(src: np.ndarray, dst: np.ndarray, *, keep: int = 0) -> None:
        part = src[1:]
        arrays.extend(map(weakref.ref, (src, dst, part)))
        raise ValueError(part) if keep else ValueError("text")

    with apyfal.Accelerator("failing") as accelerator:
        for keep in (0, 1):
            with pytest.raises(KernelError) as caught:
                accelerator.process(b"abc", keep=keep)
            assert (caught.value.__cause__ is None) is bool(keep)
            gc.collect()
            assert all(array() is None for array in arrays)
