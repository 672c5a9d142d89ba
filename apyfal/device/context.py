"""An open device with an accelerator's kernel on it, shared by the jobs of one `Accelerator`."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core.device import TO_DEVICE, Device
from apyfal._core.model import register_model
from apyfal.definition.declared import check_declared
from apyfal.device.drivers import require_driver
from apyfal.device.interface import check_compute_units, interface_of_text, interface_of_xclbin
from apyfal.device.launcher import KernelLauncher, Launcher
from apyfal.device.model_adapter import ModelErrors, adapt_model
from apyfal.device.regions import BufferRegion
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.sharing.program_cache import trim_cache, with_cache
from apyfal.device.sharing.shared_device import SharedDevice
from apyfal.device.waiting import collect_cancelled
from apyfal.exceptions import ParameterError, ProgramError, UnsupportedByDriver
from apyfal.storage.url import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apyfal._core.device import DeviceInfo, Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.definition import Definition
    from apyfal.definition.sizes import SourceSize

__all__ = ["DeviceContext", "frozen"]

_LOG = logging.getLogger("apyfal.device")

#: Combinations of parameters and element types whose bound calls are kept for the next job.
_KEPT_CALLS = 64


def frozen(value: object) -> object:
    """Return a hashable key that is equal for values that mean the same argument.

    With the text of numbers: 0.0 and -0.0 are equal, and so are 1 and True, but they are different arguments.
    """
    if isinstance(value, (np.ndarray, np.void)):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, (list, tuple)):
        return (type(value), *map(frozen, value))
    if isinstance(value, dict):
        return tuple((name, frozen(one)) for name, one in value.items())
    return (value, repr(value))


class DeviceContext:
    """One device, opened for one definition. All methods may be called from any thread.

    Parameters
    ----------
    definition
        Names driver, device, options, program and kernel.
    read_program
        Returns the bytes of the program at a storage URL. Called once, when the kernel is first needed.
    shared
        A device that is open already; ``None``: open one.

    Attributes
    ----------
    shared
        The device and its users.
    device, info
        The open device, and what its driver says of it.
    loaded
        Device memory that `load` filled; ``None``: there is none.
    model_errors
        Exceptions that software models raised.
    direct
        Decisions of earlier jobs that `apyfal.pipeline.direct` reuses, by bound call and shapes.

    Raises
    ------
    ConfigurationError
        There is no such driver, or an option is wrong.
    DriverUnavailable, DeviceNotFound, AccessDenied
        The device cannot be opened here.
    """

    def __init__(
        self, definition: Definition, read_program: Callable[[str], bytes], shared: SharedDevice | None = None
    ) -> None:
        self.definition = definition
        self._read_program = read_program
        self._build = ""  # of the opening: a shared device may be another accelerator's
        if shared is not None:
            if definition.driver == "opencl":
                self._build = definition.options.get("build", " ")
            shared.join(definition.name, definition.driver, definition.options)
        else:
            options = with_cache(definition.driver, definition.options)
            device = Device(require_driver(definition.driver), definition.device, options)
            shared = SharedDevice(device, definition.driver, definition.options)
        self.shared = shared
        self._left = False
        self.device = shared.device
        self.info: DeviceInfo = self.device.info
        self.loaded: BufferRegion | None = None
        self._program: bytes | None = None
        self._kernels: dict[object, Kernel] = {}
        self._checked: set[tuple[np.dtype[Any], ...]] = set()
        self._lock = threading.Lock()
        self._calls: dict[object, BoundCall] = {}
        self._sized: dict[tuple[BoundCall, tuple[SourceSize, ...]], BoundCall] = {}
        self._spare: dict[BoundCall, list[Launcher]] = {}
        self._regions: dict[tuple[int, int], list[BufferRegion]] = {}
        self.model_errors = ModelErrors()
        self.direct: dict[object, Any] = {}
        _LOG.info("opened %r of driver %s for accelerator %r", self.info["name"], definition.driver, definition.name)

    @property
    def starts_at_once(self) -> bool:
        """Whether starting a run never waits: the software card runs everything that may take long in its own threads.

        Other drivers may wait for a transfer to the card, or in a vendor's library.
        """
        return self.definition.driver == "emulator" and self.definition.model is None

    def bind(self, dtypes: tuple[np.dtype[Any] | None, ...], parameters: Mapping[str, object]) -> BoundCall:
        """Return the bound call for a job; calls with the same parameters and element types share one.

        Parameters
        ----------
        dtypes
            Element type of each input's array; ``None``: bytes.
        parameters
            By name; those that are left out have their defaults.

        Raises
        ------
        ParameterError
            A parameter is unknown, missing or wrong, or the kernel cannot take elements of such a type.
        """
        # With the text of the values: 0.0 and -0.0 are equal, and so are 1 and True, but they are different arguments.
        key = (dtypes, *[(name, frozen(value)) for name, value in parameters.items()])
        try:
            return self._calls[key]
        except (KeyError, TypeError):  # not bound yet, or a parameter is not hashable
            pass
        call = self.definition.bind(*dtypes, **parameters)
        with self._lock, contextlib.suppress(TypeError):
            if len(self._calls) >= _KEPT_CALLS:
                self._calls.clear()
                self._spare.clear()
                self._sized.clear()
                self.direct.clear()
            self._calls[key] = call
        return call

    def size(self, call: BoundCall, sources: tuple[SourceSize, ...]) -> BoundCall:
        """Return ``call.of_sources(sources)``; jobs with sources of the same sizes share one."""
        key = (call, sources)
        with self._lock:
            sized = self._sized.get(key)
        if sized is not None:
            return sized
        sized = call.of_sources(sources)
        with self._lock:
            if len(self._sized) >= _KEPT_CALLS:
                for old in self._sized.values():
                    self._spare.pop(old, None)
                self._sized.clear()
            self._sized[key] = sized
        return sized

    @contextlib.contextmanager
    def borrow_launcher(self, call: BoundCall) -> Iterator[Launcher]:
        """Lend a launcher for a call, with the device memory of its arguments; kept for the next job.

        If the block raises, the launcher is dropped: a run may still use it.
        """
        lent = self.acquire_launcher(call)
        yield lent
        self.release_launcher(call, lent)

    def acquire_launcher(self, call: BoundCall) -> Launcher:
        """Return a launcher for a call; `release_launcher` keeps it for the next job."""
        with self._lock:
            spare = self._spare.setdefault(call, [])
            lent = spare.pop() if spare else None
        return self._new_launcher(call) if lent is None else lent

    def release_launcher(self, call: BoundCall, lent: Launcher) -> None:
        """Keep a launcher whose runs succeeded, or are in the driver's queue, for the next job."""
        with self._lock:
            spare = self._spare.get(call)
            if spare is not None:
                spare.append(lent)

    def _new_launcher(self, call: BoundCall) -> Launcher:
        return self.new_kernel_launcher(call)

    def new_kernel_launcher(self, call: BoundCall) -> KernelLauncher:
        """Return a launcher for the kernel of a call."""
        return KernelLauncher(call, self.kernel(call), self.device, self.loaded)

    @contextlib.contextmanager
    def borrow_region(self, nbytes: int, bank: int) -> Iterator[BufferRegion]:
        """Lend a region of imported, pinned memory; kept for the next job.

        If the block raises, the region is dropped: a run may still use it.

        Parameters
        ----------
        nbytes, bank
            Its size, and the memory bank that it is imported into.
        """
        with self._lock:
            regions = self._regions.setdefault((nbytes, bank), [])
            region = regions.pop() if regions else None
        if region is None:
            region = BufferRegion.new(nbytes, self.device, bank)
        yield region
        with self._lock:
            regions.append(region)

    def kernel(self, call: BoundCall) -> Kernel:
        """Return the kernel for a call; load it, or build it for the call's element types, when it is first needed.

        Raises
        ------
        ProgramError
            The program cannot be loaded or built, or has no such kernel.
        StorageError
            The program cannot be read.
        """
        types = tuple(port.dtype for port in (*call.inputs, *call.outputs))
        kernel = self._kernel(types, call) if self._built_for_types else self._kernel(None, None)
        if types not in self._checked:
            self._check_declared(call)
            self._checked.add(types)
        return kernel

    def _check_declared(self, call: BoundCall) -> None:
        """Compare a call with the program's declaration, if the driver or the program's metadata has one."""
        program, name = self._program, redact(self.definition.program or "")
        if program is None or self.definition.driver not in ("opencl", "xrt"):
            return
        ask = None
        try:
            if self.definition.driver == "xrt":
                kernels = interface_of_xclbin(program, name)
            else:
                kernels = interface_of_text(self.device.interface(program, name))
                ask = None if b"\0" in program else lambda more: self.device.interface(program + more.encode(), name)
        except (ProgramError, UnsupportedByDriver):
            return  # loading has worked: this program has no declaration
        kernel = self.definition.kernel.partition(":")[0]
        for one in kernels:
            if one.name == kernel:
                check_declared(call, one.arguments, ask)

    def kernels(self, call: BoundCall) -> tuple[Kernel, ...]:
        """Return the kernels of a call: the first reads its inputs, the last writes its outputs."""
        return (self.kernel(call),)

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
            # One kernel for each combination of element types: the emulator itself knows no types.
            name = f"{definition.name}({','.join(str(port.dtype) for port in (*call.inputs, *call.outputs))})"
            register_model(name, adapt_model(definition.model, call, self.model_errors))
        if definition.program is not None and self._program is None:
            self._program = self._read_program(definition.program)
            _LOG.debug("read program %s: %d bytes", redact(definition.program), len(self._program))
        if definition.driver == "xrt" and self._program is not None:
            check_compute_units(self._program, redact(definition.program or ""), name)
        kernel = self.device.load(
            name,
            self._program,
            name=definition.program or "",
            options=self._build,
            arguments=",".join(argument.name for argument in definition.arguments),
        )
        trim_cache(definition.driver, definition.options)
        return kernel

    def load(self, data: np.ndarray[Any, Any] | DeviceArray) -> None:
        """Copy `data` to the device, into the bank of the argument ``coefficients``. It stays there until `close`.

        Parameters
        ----------
        data
            Contiguous, in pinned memory, which is kept too; or a device array, which is used as it is.

        Raises
        ------
        ProgramError, StorageError
            As `kernel` does.
        ParameterError, ClosedError
            The device array cannot be used here.
        """
        bank = self.bank_of("coefficients")
        if isinstance(data, DeviceArray):
            region = self.region_of(data, "src", bank)
            data.settle()
        else:
            region = BufferRegion.over(data, self.device, bank, written=True)
            region.sync(TO_DEVICE, data.nbytes)
        with self._lock:
            self.loaded = region
            self._spare.clear()
            self.direct.clear()

    def region_of(self, array: DeviceArray, name: str, bank: int) -> BufferRegion:
        """Return the memory of a device array that is to be input or output `name`, which must be in a memory bank.

        Raises
        ------
        ParameterError
            It is on another device, or in another bank.
        ClosedError
            It was closed.
        """
        region = BufferRegion.of(array)
        if array.device is not self.device:
            raise ParameterError(
                f"{name}: a device array of {array.card!r}, opened by another accelerator; expected one of this device "
                f"({self.info['name']!r}), or an accelerator that shares the other: Accelerator(..., device=card)"
            )
        if array.bank != bank:
            raise ParameterError(
                f"{name}: a device array in memory bank {array.bank}, and the kernel reads or writes bank {bank}; "
                f"expected put(..., port={name!r}) or device_empty(..., port={name!r})"
            )
        return region

    def bank_of(self, name: str) -> int:
        """Return the memory bank that the argument `name` must be in; 0 if it has none."""
        names = [argument.name for argument in self.definition.arguments]
        if name not in names or self._built_for_types:
            return 0  # such drivers choose the memory bank themselves
        return self._kernel(None, None).bank(names.index(name))

    def close(self) -> None:
        """Close the device. Closing it twice is fine.

        Raises
        ------
        BufferInUse
            Runs are in flight. The device stays open; call `close` again later.
        """
        collect_cancelled()
        with self._lock:
            if not self._left:
                self.shared.leave()
                self._left = True
        self._kernels.clear()
        self._spare.clear()
        self._regions.clear()
        self.direct.clear()
        self.loaded = None
