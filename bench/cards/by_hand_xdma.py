"""The job of `bench_drivers` as one writes it with ctypes over XDMA's nodes, and the stand-in card behind them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["OPTIONS", "by_hand", "set_card"]

#: Of the driver, for the stand-in's kernel that copies bytes.
OPTIONS = {"memory": "2GiB", "control": "0x1000", "registers": "src:0x10:buffer, dst:0x1c:buffer, bytes:0x28:64"}

# A kernel of its own: the driver's, at 0x1000, has the driver's addresses in its registers.
_CONTROL, _SRC, _DST, _BYTES = 0x00 // 4, 0x10 // 4, 0x1C // 4, 0x28 // 4
_START, _IDLE = 1, 4
_INPUT, _OUTPUT = 4 << 30, 5 << 30  # card addresses outside of what the driver uses


def by_hand(src: np.ndarray, dst: np.ndarray) -> Callable[[], None]:
    """The job with everything that can be prepared prepared."""
    set_card(model=1)  # this kernel copies, too
    libc: Any = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    root = Path(os.environ["APYFAL_XDMA_ROOT"])
    to, back, user = (os.open(root / f"xdma0_{node}", os.O_RDWR) for node in ("h2c_0", "c2h_0", "user"))
    address = libc.mmap(None, ctypes.c_size_t(0x2000), 3, 1, user, ctypes.c_long(0))  # read and write, shared
    registers = (ctypes.c_uint32 * 0x800).from_address(address)
    for register, value in ((_SRC, _INPUT), (_DST, _OUTPUT), (_BYTES, src.nbytes)):
        registers[register], registers[register + 1] = value & 0xFFFFFFFF, value >> 32
    pwrite, pread = libc.pwrite, libc.pread
    source, target = (ctypes.c_void_p(array.ctypes.data) for array in (src, dst))
    size, into, out = ctypes.c_size_t(src.nbytes), ctypes.c_long(_INPUT), ctypes.c_long(_OUTPUT)

    def job() -> None:
        pwrite(to, source, size, into)
        registers[_CONTROL] = _START
        while not registers[_CONTROL] & _IDLE:
            pass
        pread(back, target, size, out)

    return job


def set_card(**settings: int) -> None:
    """Change the stand-in card's settings."""
    from fixtures.xdma.card import Card

    Card().set(**settings)
