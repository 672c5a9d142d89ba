"""The job of `bench_drivers` as one writes it with ctypes over XRT's C interface, and the stand-in card below it."""

from __future__ import annotations

import atexit
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Xrt", "by_hand", "set_card"]

_HANDLES = ("DeviceOpen", "PLKernelOpen", "BOAllocUserPtr", "RunOpen")


class Xrt:
    """XRT's library with the types that ctypes has to know."""

    def __init__(self) -> None:
        self.library: Any = ctypes.CDLL("libxrt_coreutil.so.2")
        for name in _HANDLES:
            getattr(self.library, f"xrt{name}").restype = ctypes.c_void_p

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, f"xrt{name}")


def by_hand(src: np.ndarray, dst: np.ndarray) -> Callable[[], None]:
    """The job with everything that can be prepared prepared."""
    xrt = Xrt()
    program = Path(os.environ["APYFAL_TEST_XCLBIN"]).read_bytes()
    device = ctypes.c_void_p(xrt.DeviceOpen(0))
    uuid = ctypes.create_string_buffer(16)
    xrt.DeviceLoadXclbin(device, program)
    xrt.DeviceGetXclbinUUID(device, uuid)
    kernel = ctypes.c_void_p(xrt.PLKernelOpen(device, uuid, b"loopback"))
    size, none = ctypes.c_size_t(src.nbytes), ctypes.c_size_t(0)
    source, target = (
        ctypes.c_void_p(
            xrt.BOAllocUserPtr(
                device,
                ctypes.c_void_p(array.ctypes.data),
                size,
                ctypes.c_uint64(0),
                ctypes.c_uint32(xrt.KernelArgGroupId(kernel, index)),
            )
        )
        for index, array in enumerate((src, dst))
    )
    run = ctypes.c_void_p(xrt.RunOpen(kernel))
    xrt.RunSetArg(run, 0, source)
    xrt.RunSetArg(run, 1, target)
    xrt.RunSetArg(run, 2, ctypes.c_uint64(src.nbytes))
    sync, start, wait = xrt.BOSync, xrt.RunStart, xrt.RunWaitFor
    forever = ctypes.c_uint(0)

    def close() -> None:
        """XRT's own exit handlers may abort the process over what is still open."""
        xrt.RunClose(run)
        for buffer in (source, target):
            xrt.BOFree(buffer)
        xrt.KernelClose(kernel)
        xrt.DeviceClose(device)

    atexit.register(close)

    def job() -> None:
        sync(source, 0, size, none)
        start(run)
        wait(run, forever)
        sync(target, 1, size, none)

    return job


def set_card(**settings: int) -> None:
    """Change the stand-in card's settings, once XRT has loaded it."""
    from fixtures.xrt.installation import Card

    Card(Path(os.environ["XILINX_XRT"])).set(**settings)
