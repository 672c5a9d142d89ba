"""An open device with an accelerator's kernel on it: what the jobs of one `Accelerator` share."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core.device import TO_DEVICE, Device
from apyfal._core.model import register_model
from apyfal.batching.fan_out import FanOut
from apyfal.device.drivers import require_driver
from apyfal.device.launcher import KernelLauncher
from apyfal.device.regions import BufferRegion
from apyfal.memory import empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apyfal._core.device import DeviceInfo, Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.definition import Definition

__all__ = ["DeviceContext"]

#: Combinations of parameters and element type whose kernel arguments are kept for the next job.
_KEPT = 64
#: Small objects that are fetched, or stored, at once by each of the threads that run jobs.
_SIDE_BY_SIDE = 8


class DeviceContext:
    """One device, opened for one definition.

    Parameters
    ----------
    definition
        Names driver, device, options, program and kernel.

    Attributes
    ----------
    receiving, storing
        Fetch and store the data of small jobs that travel together, and learn how many at once.

    Raises
    ------
    DriverUnavailable, DeviceNotFound, AccessDenied, ConfigurationError
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.device = Device(require_driver(definition.driver), definition.device, definition.options)
        self.info: DeviceInfo = self.device.info
        self.loaded: BufferRegion | None = None
        self._program: bytes | None = None
        self._kernels: dict[object, Kernel] = {}
        self._lock = threading.Lock()
        self._calls: dict[object, BoundCall] = {}
        self._spare: dict[BoundCall, list[KernelLauncher]] = {}
        self._slots: dict[tuple[int, int], list[BufferRegion]] = {}
        self.receiving, self.storing = FanOut(_SIDE_BY_SIDE), FanOut(_SIDE_BY_SIDE)

    def call(self, dtypes: tuple[np.dtype[Any] | None, ...], parameters: Mapping[str, object]) -> BoundCall:
        """Bind one job's parameters and element types; what was bound lately is kept.

        Raises
        ------
        ParameterError
        """
        # Equal values may mean different things: 0.0 and -0.0, 1 and True.
        key = (dtypes, *parameters.items(), *map(repr, parameters.values()))
        try:
            return self._calls[key]
        except (KeyError, TypeError):  # not bound yet, or a parameter that has no hash
            pass
        call = self.definition.bind(*dtypes, **parameters)
        with self._lock, contextlib.suppress(TypeError):
            if len(self._calls) >= _KEPT:
                self._calls.clear()
                self._spare.clear()
            self._calls[key] = call
        return call

    @contextlib.contextmanager
    def invocation(self, call: BoundCall, kernel: Kernel) -> Iterator[KernelLauncher]:
        """Lend a call's kernel arguments, with the device memory that they keep; after a failure, not again."""
        with self._lock:
            spare = self._spare.setdefault(call, [])
            lent = spare.pop() if spare else None
        if lent is None:
            lent = KernelLauncher(call, kernel, self.device, self.loaded)
        yield lent
        with self._lock:
            if call in self._spare:
                spare.append(lent)

    @contextlib.contextmanager
    def lent(self, nbytes: int, bank: int) -> Iterator[BufferRegion]:
        """Lend pinned memory that the device knows already; after a failure, when it may be in use still, not again."""
        with self._lock:
            slots = self._slots.setdefault((nbytes, bank), [])
            slot = slots.pop() if slots else None
        if slot is None:
            slot = BufferRegion.new(nbytes, self.device, bank)
        yield slot
        with self._lock:
            slots.append(slot)

    def kernel(self, call: BoundCall) -> Kernel:
        """Return the kernel for a call; loaded, or built for the call's element types, when first needed.

        Raises
        ------
        ProgramError, StorageError
        """
        if not self._built_for_types:
            return self._kernel(None, None)
        return self._kernel(tuple(port.dtype for port in (*call.inputs, *call.outputs)), call)

    @property
    def _built_for_types(self) -> bool:
        return self.definition.model is not None or self.definition.driver == "opencl"

    def _kernel(self, key: object, call: BoundCall | None) -> Kernel:
        with self._lock:
            kernel = self._kernels.get(key)
            if kernel is None:
                kernel = self._kernels[key] = self._load(call)
            return kernel

    def _load(self, call: BoundCall | None) -> Kernel:
        definition = self.definition
        name = definition.kernel
        if definition.model is not None and call is not None:
            # One kernel for each choice of element types: the emulator does not know them.
            name = f"{definition.name}({','.join(str(port.dtype) for port in (*call.inputs, *call.outputs))})"
            register_model(name, _over_arrays(definition.model, call))
        if definition.program is not None and self._program is None:
            self._program = _read(definition.program)
        return self.device.load(
            name,
            self._program,
            name=definition.program or "",
            arguments=",".join(argument.name for argument in definition.arguments),
        )

    def load(self, data: np.ndarray[Any, Any]) -> None:
        """Put `data` (contiguous, pinned) on the device, where the kernel wants it, to stay there until `close`.

        Raises
        ------
        ProgramError, StorageError
        """
        slot = BufferRegion.over(data, self.device, self._bank_of("coefficients"), written=True)
        slot.sync(TO_DEVICE, data.nbytes)
        with self._lock:
            self.loaded = slot
            self._spare.clear()

    def _bank_of(self, name: str) -> int:
        names = [argument.name for argument in self.definition.arguments]
        if name not in names or self._built_for_types:
            return 0  # drivers whose kernels are built for their types place memory themselves
        return self._kernel(None, None).bank(names.index(name))

    def close(self) -> None:
        """Close the device; `BufferInUse` while runs are in flight."""
        self.device.close()
        self._kernels.clear()
        self._spare.clear()
        self._slots.clear()
        self.loaded = None


def _read(url: str) -> bytes:
    from apyfal.storage.endpoints.factory import open_source

    with open_source(url) as source:
        content = bytearray()
        block = empty(1 << 20, np.uint8)
        while count := source.readinto(block.data):
            content += block.data[:count]
        return bytes(content)


def _over_arrays(function: Callable[..., object], call: BoundCall) -> Callable[..., None]:
    """Let a function over numpy arrays take the emulator's memory views, in the kernel's order."""
    import inspect

    dtypes = {port.name: port.dtype for port in (*call.inputs, *call.outputs)} | {"report": np.dtype(np.uint64)}
    keywords = {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    names = [(argument.name, argument.dtype is None) for argument in call.arguments]

    def run(*values: Any) -> None:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for (name, is_buffer), value in zip(names, values, strict=True):
            given = _array(value, dtypes.get(name, np.dtype(np.uint8))) if is_buffer else value
            if name in keywords:
                named[name] = given
            else:
                positional.append(given)
        function(*positional, **named)

    return run


def _array(device_memory: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    view = memoryview(device_memory)
    return np.frombuffer(view, dtype) if view.nbytes else np.empty(0, dtype)  # frombuffer refuses no bytes
