"""Decide whether a driver can use memory in place, or it must be copied once, and why.

========================================  ===========================================================================
memory                                    used in place when
========================================  ===========================================================================
of the pool (`apyfal.empty`), or a view   it is contiguous, and begins where the block begins, or at a multiple of the
of it                                     driver's ``offset_align`` in it, if the driver has the capability ``offset``
a mapped file                             the same; and it is mapped shared and writable, because drivers pin memory for
                                          writing (read-only if the driver has the capability ``import-read-only``)
any other array or buffer                 it is contiguous, its address is a multiple of the driver's ``import_align``
                                          and its size of ``size_align``; read-only memory as above
========================================  ===========================================================================

An array that does not fit into the device's own memory is cut by the pipeline (`apyfal.pipeline.binding`).
Everything else is copied once, through pinned memory, and counted in ``info_dict`` with the reason; with ``copy=False``
it is an error. Data from a file or a store is received in pinned memory, without such a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from apyfal.memory import is_pinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal._core.device import DeviceInfo

__all__ = ["MAY_WRITE", "flat_bytes", "reason_to_copy"]

#: why an input is copied whatever its memory is like
MAY_WRITE: Final = "the kernel may write to it: its argument is not const"


def reason_to_copy(array: NDArray[Any], device: DeviceInfo, *, written: bool) -> str | None:
    """Return why a device cannot use the memory of an array in place.

    Parameters
    ----------
    array
        Any, of any layout.
    device
        What the driver says of the device.
    written
        Whether the device writes to the array.

    Returns
    -------
    str or None
        The reason; ``None``: the memory can be used in place.
    """
    if "import" not in device["capabilities"]:
        return "the driver cannot use host memory in place"
    if not array.flags.c_contiguous:
        return "not contiguous"
    if not array.flags.writeable and (written or "import-read-only" not in device["capabilities"]):
        return "read-only memory (drivers pin memory for writing)"
    if is_pinned(array):
        return _offset_reason(array, device)
    address = array.__array_interface__["data"][0]
    if address % device["import_align"]:
        return f"address not a multiple of {device['import_align']}"
    if array.nbytes % device["size_align"]:
        return f"size not a multiple of {device['size_align']}"
    if device["max_buffer"] and array.nbytes > device["max_buffer"]:
        return f"larger than the driver's largest buffer, {device['max_buffer']} bytes"
    return None


def _offset_reason(array: NDArray[Any], device: DeviceInfo) -> str | None:
    # Blocks begin at a page and offset_align is at most a page: an offset has the alignment of its address.
    address = array.__array_interface__["data"][0]
    align = device["offset_align"] if "offset" in device["capabilities"] else 4096
    if address % align:
        return f"begins inside a pinned buffer, not at a multiple of {align}"
    return None


def flat_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of a contiguous array as a one-dimensional view."""
    return (array if array.ndim == 1 else array.reshape(-1)).view(np.uint8)
