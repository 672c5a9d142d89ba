"""`DeviceArray`: an array in a device's memory, which jobs use there without a transfer."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core.device import FROM_DEVICE, TO_DEVICE
from apyfal.exceptions import ClosedError, ParameterError
from apyfal.memory import empty, plain_array
from apyfal.units import format_size

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal._core.device import BufferObject, Device
    from apyfal.device.sharing.run_queue import Queued

__all__ = ["DeviceArray"]

_TO_GET = "expected .get(), which brings it to the host"
#: Result of ``__dlpack_device__`` for host memory: kDLCPU of DLPack's header, device 0.
_HOST = (1, 0)


class DeviceArray:
    """An array in the memory of an open device; made by `apyfal.Accelerator.put` and `apyfal.Accelerator.device_empty`.

    It is a source and destination of jobs on all accelerators that share the device. Its memory is freed by `close`, at
    the end of a ``with`` block, or when nothing refers to it; a run that uses it keeps it until that run has ended.

    Attributes
    ----------
    shape, dtype
        Of the array, which is C-contiguous.
    bank
        The memory bank that it is in.

    Notes
    -----
    All methods may be called from any thread. It cannot be pickled, and no other process can use it. Where the driver
    can move data only from and to imported memory (``xrt``, some plugins), or where the device has no memory of its
    own, it has a host side of the same size.
    """

    __array_ufunc__ = None  # numpy's operators refuse it, instead of taking it for a scalar

    def __init__(self, device: Device, shape: int | Sequence[int], dtype: DTypeLike, bank: int = 0) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        dimensions = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        self.shape: tuple[int, ...] = tuple(int(length) for length in dimensions)
        if self.dtype.hasobject:
            raise ParameterError(f"dtype {self.dtype} holds Python objects, which no device can read")
        if any(length < 0 for length in self.shape):
            raise ParameterError(f"shape {self.shape}: negative dimensions are not allowed")
        self.bank = bank
        self._device = device
        self._lock = threading.Lock()
        self._bo: BufferObject | None
        self._memory: NDArray[np.uint8] | None = None  # the host side, if there is one
        self._writer: Queued | None = None
        self._users: list[Queued] = []  # queued jobs, of which some may have ended
        if "separate-memory" in device.info["capabilities"] and device.transfers:
            self._bo = device.alloc(max(self.nbytes, 1), bank)
        else:
            block = empty(max(self.nbytes, 1), np.uint8)  # all of it: its buffer object begins where the array does
            self._bo, _ = device.import_memory(block, bank=bank)
            self._memory = block[: self.nbytes]

    @classmethod
    def of(cls, array: NDArray[Any], device: Device, bank: int = 0) -> DeviceArray:
        """Return a new device array with the contents of a host array of any layout."""
        plain = plain_array(array)
        made = cls(device, plain.shape, plain.dtype, bank)
        made.set(plain)
        return made

    # -- attributes ---------------------------------------------------------------------------------------------------
    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.size * self.dtype.itemsize

    @property
    def device(self) -> Device:
        """The open device."""
        return self._device

    @property
    def card(self) -> str:
        """Name of the device."""
        return self._device.info["name"]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._bo is None

    def buffer(self) -> tuple[BufferObject, NDArray[np.uint8] | None]:
        """Return the buffer object of the memory, and its host side if it has one.

        Raises
        ------
        ClosedError
            It was closed.
        """
        with self._lock:
            bo, memory = self._bo, self._memory
        if bo is None:
            raise ClosedError(f"a device array of {self.card!r} was closed")
        return bo, memory

    @property
    def writer(self) -> Queued | None:
        """The queued job that wrote the array last; ``None``: its contents are known to be valid."""
        return self._writer

    def used_by(self, job: Queued, *, writes: bool) -> None:
        """Record that a queued job reads the array, or writes it."""
        with self._lock:
            self._users = [other for other in self._users if not other.over]
            self._users.append(job)
            if writes:
                self._writer = job

    def left_by(self, job: Queued, error: BaseException | None) -> None:
        """Record that a queued job has ended; one that failed stays the writer."""
        with self._lock:
            self._users = [other for other in self._users if other is not job]
            if self._writer is job and error is None:
                self._writer = None

    def written(self) -> None:
        """Record that the contents are valid: they were written after all queued jobs."""
        self._writer = None

    def wait_unused(self) -> None:
        """Wait until no queued job uses the array. Call it before the host writes: transfers are not queued."""
        with self._lock:
            users = self._users
        for job in users:
            job.ended(None)

    def settle(self) -> None:
        """Wait for the queued job that writes the array, if there is one, and raise its error."""
        job = self._writer
        if job is not None:
            job.check()

    # -- data ---------------------------------------------------------------------------------------------------------
    def get(self, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Bring the data to the host.

        Parameters
        ----------
        out
            Where to: an array of the same shape and dtype, of any layout; ``None``: a new one in pinned memory.

        Returns
        -------
        ndarray
            `out`, or the new array.

        Raises
        ------
        ParameterError
            `out` is no such array, or is read-only.
        ClosedError
            The array or its device was closed.
        AcceleratorException
            A queued job that writes the array failed; see `apyfal.Accelerator.enqueue`.
        """
        bo, memory = self.buffer()
        if out is None:
            out = empty(self.shape, self.dtype)
        else:
            self._check(out, "out")
            if not out.flags.writeable:
                raise ParameterError("out: the array is read-only")
        self.settle()
        if memory is not None:
            bo.sync(FROM_DEVICE, 0, self.nbytes)
            out[...] = memory.view(self.dtype).reshape(self.shape) if self.nbytes else out
        elif self.nbytes:
            target = out if out.flags.c_contiguous else empty(self.shape, self.dtype)
            bo.transfer(FROM_DEVICE, _bytes_of(target))
            if target is not out:
                out[...] = target
        return out

    def set(self, array: NDArray[Any]) -> None:
        """Bring an array of the same shape and dtype to the device.

        Raises
        ------
        ParameterError
            It has another shape or dtype.
        ClosedError
            The array or its device was closed.
        """
        self._check(array, "array")
        bo, memory = self.buffer()
        self.wait_unused()
        if memory is not None:
            if self.nbytes:
                memory.view(self.dtype).reshape(self.shape)[...] = array
            bo.sync(TO_DEVICE, 0, self.nbytes)
        elif self.nbytes:
            # drivers pin memory for writing: read-only data goes through writable memory
            usable = array.flags.c_contiguous and array.flags.writeable
            source = array if usable else empty(self.shape, self.dtype)
            if source is not array:
                source[...] = array
            bo.transfer(TO_DEVICE, _bytes_of(source))
        self._writer = None

    def _check(self, array: NDArray[Any], name: str) -> None:
        if not isinstance(array, np.ndarray):
            raise ParameterError(f"{name}: {type(array).__name__}; expected an array of {self.dtype}{self.shape}")
        if array.dtype != self.dtype or array.shape != self.shape:
            raise ParameterError(
                f"{name}: an array of {array.dtype}{array.shape}; expected {self.dtype}{self.shape}, as on the device"
            )

    def close(self) -> None:
        """Free the device memory, once no run uses it. Closing it twice is fine."""
        with self._lock:
            bo, self._bo, self._memory = self._bo, None, None
        del bo

    def __enter__(self) -> DeviceArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- protocols of other libraries ---------------------------------------------------------------------------------
    def __array__(self, dtype: object = None, copy: object = None) -> NDArray[Any]:
        raise TypeError(f"a device array of {self.card!r} is not in the host's memory; {_TO_GET}")

    def __dlpack__(self, **how: Any) -> object:
        """Export the memory without a copy, where the device works in the host's memory; else ``BufferError``."""
        return self._shared().__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the kind and number of the memory for DLPack."""
        self._shared()
        return _HOST

    def _shared(self) -> NDArray[Any]:
        _, memory = self.buffer()
        if memory is None or "shared-memory" not in self._device.info["capabilities"]:
            raise BufferError(f"a device array of {self.card!r} is in memory of the card's own; {_TO_GET}")
        self.settle()
        return memory.view(self.dtype).reshape(self.shape)

    def __reduce__(self) -> Any:
        raise TypeError(f"a device array of {self.card!r} cannot be sent to another process; {_TO_GET}")

    def __repr__(self) -> str:
        where = "closed" if self.closed else f"{format_size(self.nbytes)} on {self.card!r}"
        return f"<apyfal DeviceArray {self.dtype}{self.shape}, {where}>"


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)
