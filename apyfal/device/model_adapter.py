"""Python functions as kernels of the emulator: memory views become arrays, and exceptions keep their traceback."""

from __future__ import annotations

import inspect
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundCall

__all__ = ["ModelErrors", "adapt_model"]

#: Exceptions that are kept until their job asks for them; there are never more runs in flight.
_MAX_KEPT = 64
#: Characters of its text by which an exception is found again; the driver's message has room for more than that.
_COMPARED = 100


class ModelErrors:
    """Exceptions that models raised on the emulator's threads, kept for the jobs that failed because of them.

    The emulator passes a failure on as text. `take` finds the exception by that text, so that the job's error can have
    it as its cause.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[str, BaseException]] = deque(maxlen=_MAX_KEPT)

    def keep(self, text: str, error: BaseException) -> None:
        """Keep an exception, and the text by which `take` finds it."""
        with self._lock:
            self._kept.append((text[:_COMPARED], error))

    def take(self, message: str) -> BaseException | None:
        """Return the oldest kept exception whose type and text are in `message`, and forget it."""
        with self._lock:
            for text, error in self._kept:
                if text in message:
                    self._kept.remove((text, error))
                    return error
        return None


#: Content of a report before a run: otherwise the report of the previous run could be taken for that of this one.
_UNWRITTEN = 2**64 - 1


def adapt_model(function: Callable[..., object], call: BoundCall, errors: ModelErrors) -> Callable[..., None]:
    """Return a function for `apyfal._core.model.register_model` that calls `function` with arrays.

    Parameters
    ----------
    function
        Takes the kernel's arguments by position, keyword-only ones by name: buffers as one-dimensional arrays over
        device memory, scalars as numbers, vectors as arrays, structs as elements of a structured array. The arrays over
        device memory are valid until it returns.
    call
        Says which arguments are buffers, and their element types.
    errors
        Receives what the function raises.
    """
    dtypes = {port.name: port.dtype for port in (*call.inputs, *call.outputs)} | {"report": np.dtype(np.uint64)}
    keyword_only = {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    arguments = [(argument.name, argument.dtype is None) for argument in call.arguments]
    composite = {one.name: one.dtype for one in call.arguments if one.dtype is not None and one.dtype.kind == "V"}
    # Outputs into which several runs write are not cleared here: a run does not know whether it is the first.
    cleared = {port.name for port in call.outputs if call.starts_at_zero(port) and call.granularity is None}
    sources = {port.name for port in call.inputs}
    report = next((place for place, (name, _) in enumerate(arguments) if name == "report"), None)

    def run(*values: Any) -> None:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        arrays: list[weakref.ref[np.ndarray[Any, Any]]] = []
        value: Any = None
        for (name, is_buffer), value in zip(arguments, values, strict=True):
            if is_buffer:
                value = _array(value, dtypes.get(name, np.dtype(np.uint8)))
                arrays.append(weakref.ref(value))
            elif name in composite:
                value = np.frombuffer(value, composite[name])[0]
            if name in keyword_only:
                named[name] = value
            else:
                positional.append(value)
        value = None
        _clear(arguments, values, cleared, sources)
        if report is not None:
            _array(values[report], dtypes["report"])[:] = _UNWRITTEN
        try:
            _check_returned(function(*positional, **named), positional, named)
            if report is not None and _UNWRITTEN in _array(values[report], dtypes["report"])[:3].tolist():
                raise ValueError(
                    "the model has not written its report; expected report[:3] = bytes consumed, bytes produced, status"
                )
        except BaseException as error:
            positional.clear()
            named.clear()
            _clear_frames(error)
            stand_in = _stand_in(error)
            if all(array() is None for array in arrays):  # an exception that holds device memory must not outlive it
                errors.keep(f"{type(stand_in).__name__}: {stand_in}", error)
            raise stand_in from None

    return run


def _clear(arguments: list[tuple[str, bool]], values: tuple[Any, ...], cleared: set[str], sources: set[str]) -> None:
    """Set outputs to zero that are not inputs at the same time."""
    if not cleared:
        return
    views = {name: memoryview(value) for (name, is_buffer), value in zip(arguments, values, strict=True) if is_buffer}
    memory = {name: np.frombuffer(view, np.uint8) for name, view in views.items() if view.nbytes}
    for name in cleared & memory.keys():
        if not any(np.may_share_memory(memory[name], memory[source]) for source in sources & memory.keys()):
            memory[name][...] = 0


def _array(device_memory: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    view = memoryview(device_memory)
    return np.frombuffer(view, dtype) if view.nbytes else np.empty(0, dtype)  # frombuffer refuses an empty buffer


def _check_returned(value: object, positional: list[Any], named: dict[str, Any]) -> None:
    """Raise if a model returned its result instead of writing it into its output, or did not run (a generator).

    Anything else is ignored, as are the output itself and views of it: ``np.multiply(src, 2, out=dst)``.
    """
    if value is None:
        return
    if inspect.isgenerator(value) or inspect.isawaitable(value) or inspect.isasyncgen(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(f"the model returned a {type(value).__name__}, of which nothing ran; expected a plain function")
    if isinstance(value, np.ndarray):
        given = (one for one in (*positional, *named.values()) if isinstance(one, np.ndarray))
        if not any(np.may_share_memory(value, one) for one in given):
            raise TypeError(
                "the model returned an array, which is lost; expected it to write into its output: dst[:] = ..."
            )


def _clear_frames(error: BaseException) -> None:
    """Drop the adapter's frame from a traceback, and the local variables of the others: they hold device memory."""
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


def _stand_in(error: BaseException) -> BaseException:
    """Return an exception with the same class name and text, for the emulator, which keeps only the text.

    The emulator drops the traceback of what it is given, and cannot take text that is not UTF-8.
    """
    name = type(error).__name__
    try:
        text = str(error)
        text.encode()
    except Exception as failure:  # whatever its __str__ raises, or characters that UTF-8 does not have
        return RuntimeError(f"{name}, whose text cannot be shown: {type(failure).__name__}")
    kind: type[Exception] = type(name, (Exception,), {})
    return kind(text)
