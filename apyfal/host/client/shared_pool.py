"""The client's shared memory: the regions of a session, and which of them are free."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from typing import Any

import numpy as np

from apyfal.exceptions import AcceleratorException, HostError
from apyfal.host.client.http import Host, Refused, SessionLost
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.shared_memory import Region, attach, machine_id

__all__ = ["SharedPool"]

_KEPT = 4


class SharedPool:
    """Regions of memory that a session shares with a daemon on this machine. Usable from any thread.

    Parameters
    ----------
    host, session
        The daemon, and the id of the session.
    socket_path
        Path of the socket that hands out descriptors.
    """

    def __init__(self, host: Host, session: str, socket_path: str) -> None:
        self._host = host
        self._session = session
        self._socket_path = socket_path
        # Reentrant: a garbage collection inside `acquire` can drop the last view of an array, which calls `release`.
        self._lock = threading.RLock()
        self._closed = False
        self._free: list[Region] = []
        self._mapped: dict[str, Region] = {}

    @classmethod
    def of(cls, host: Host, document: dict[str, Any]) -> SharedPool | None:
        """Return the pool of a session if its daemon runs on this machine; ``None`` otherwise."""
        memory = document.get("memory")
        if not host.address.is_loopback or not isinstance(memory, dict) or memory.get("machine") != machine_id():
            return None
        path = str(memory.get("socket"))
        if not os.access(path, os.W_OK):
            return None
        return cls(host, document["id"], path)

    def acquire(self, nbytes: int) -> Region | None:
        """Return a region of at least `nbytes`, for exclusive use until `release`.

        ``None``: the host has no memory to share, or cannot be asked now. Send the data through the socket then.

        Raises
        ------
        SessionLost
            The host does not know the session.
        """
        with self._lock:
            fitting = sorted(
                (region for region in self._free if region.nbytes >= nbytes), key=lambda found: found.nbytes
            )
            if fitting and fitting[0].nbytes <= 2 * nbytes:
                self._free.remove(fitting[0])
                return fitting[0]
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        body = {"nbytes": size}
        try:
            with self._host.request("POST", f"/v1/sessions/{self._session}/memory", json_body=body) as response:
                made = response.json()
            region = attach(self._socket_path, made["name"], made["ticket"], made["nbytes"])
        except Refused as refused:
            if refused.status == 404:
                raise SessionLost from None
            return None
        except (OSError, HostError):  # too many local connections wait, for example
            return None
        with self._lock:
            self._mapped[region.name] = region
        return region

    def release(self, region: Region) -> None:
        """Return a region to the pool. A few regions are kept for reuse."""
        with self._lock:
            if self._closed:
                surplus: Region | None = region
            else:
                self._free.append(region)
                surplus = self._free.pop(0) if len(self._free) > _KEPT else None
            if surplus is None:
                return
            known = self._mapped.pop(surplus.name, None) is not None
        surplus.close()
        if known:
            with contextlib.suppress(OSError, AcceleratorException):  # otherwise the region is freed with the session
                self._host.json("DELETE", f"/v1/sessions/{self._session}/memory/{surplus.name}")

    def locate(self, array: np.ndarray[Any, Any]) -> SharedArray | None:
        """Return the position of `array` if it is contiguous and lies in a region of this pool; ``None`` otherwise."""
        if not array.flags.c_contiguous or not array.nbytes:
            return None
        with self._lock:
            for region in self._mapped.values():
                offset = array.ctypes.data - region.address
                if offset >= 0 and offset + array.nbytes <= region.nbytes:
                    return SharedArray(region.name, offset, ArrayType.of(array))
        return None

    def close(self) -> None:
        """Unmap free regions now, and the others when they are returned: jobs may still wait for results in them."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
            self._mapped.clear()
        for region in free:
            region.close()

    def empty(self, array: ArrayType) -> np.ndarray[Any, Any] | None:
        """Return a new array in shared memory, returned to the pool with its last view; ``None`` as for `acquire`."""
        region = self.acquire(array.nbytes)
        if region is None:
            return None
        return region.array(SharedArray(region.name, 0, array), on_release=lambda: self.release(region))
