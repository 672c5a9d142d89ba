"""Memory that a client and the daemon on the same machine both map, so that arrays are not sent at all.

The daemon allocates each region (a sealed memfd, so that no client can shrink it during a transfer), and sends its
descriptor over a Unix socket (SCM_RIGHTS) to a peer that presents the region's ticket. The client gets the ticket from
the API, as an authenticated user. The region is freed when both sides have closed it.

Both sides map it like a file for a card, so that it counts as pinned memory: a card's driver imports it once, not for
each job.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hmac
import os
import secrets
import socket
import struct
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apyfal._core.mapped_file import map_file
from apyfal.exceptions import ClosedError, HostError, ParameterError
from apyfal.host.protocol.array_types import SharedArray

__all__ = ["Region", "TicketServer", "attach", "machine_id"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SHRINK") else 0
_TICKET_BYTES = 64
_MAX_REQUEST = 256
_TIMEOUT = 5.0
#: Connections of one local user, and of all, that have not sent their ticket yet: each takes a descriptor.
_WAITING_OF_USER = 16
_WAITING = 64
#: Seconds for which no connection is accepted after the process had no descriptor for one.
_PAUSE = 0.5
_CREDENTIALS = struct.Struct("iII")  # struct ucred, socket(7): pid, uid, gid


def machine_id() -> str:
    """Return an identifier of this machine since its last boot. Processes with equal identifiers can share memory."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Region:
    """A piece of shared memory. Pages are allocated when they are first touched.

    Parameters
    ----------
    nbytes
        Size in bytes.
    descriptor
        Descriptor of an existing region, owned by this object from now on; ``None``: create a new, sealed one.

    Attributes
    ----------
    name, ticket
        The region's name in jobs, and the secret for which its descriptor is handed out.
    nbytes
        Size in bytes.
    """

    def __init__(self, nbytes: int, descriptor: int | None = None, name: str | None = None) -> None:
        self.name = name or secrets.token_hex(16)
        self.ticket = secrets.token_hex(_TICKET_BYTES // 2)
        self.nbytes = nbytes
        if descriptor is None:
            descriptor = os.memfd_create("apyfal-shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(descriptor, nbytes)
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            except BaseException:
                os.close(descriptor)
                raise
        self.descriptor = descriptor
        try:
            self._memory = map_file(descriptor, 0, nbytes, writable=True, populate=False)
        except BaseException:
            os.close(descriptor)
            raise
        self._bytes = np.frombuffer(memoryview(self._memory), dtype=np.uint8)

    @property
    def address(self) -> int:
        """Address of the region in this process."""
        return int(self._bytes.ctypes.data)

    def array(self, shared: SharedArray, on_release: Callable[[], object] | None = None) -> np.ndarray[Any, Any]:
        """Return the part that `shared` describes as an array. The array keeps the memory mapped.

        Parameters
        ----------
        shared
            Position, type and shape within this region.
        on_release
            Called when the array and all its views are gone.

        Raises
        ------
        ParameterError
            The part lies outside the region, or is not aligned for its type.
        ClosedError
            The region was closed.
        """
        if self.descriptor < 0:
            raise ClosedError("this shared memory was closed")
        start, nbytes = shared.offset, shared.array.nbytes
        if start + nbytes > self.nbytes:
            raise ParameterError(f"shared memory: {nbytes} bytes at {start} lie outside of its {self.nbytes}")
        if start % max(1, shared.array.dtype.alignment):
            raise ParameterError(f"shared memory: offset {start} is not aligned for {shared.array.dtype}")
        part = self._bytes[start : start + nbytes]
        if on_release is not None:
            # A view in numpy refers to the owner of the buffer, not to the array that it was made from. So the owner is
            # an object with its own lifetime.
            owner = (ctypes.c_ubyte * max(nbytes, 1)).from_buffer(self._memory, start if nbytes else 0)
            weakref.finalize(owner, on_release).atexit = False
            part = np.frombuffer(memoryview(owner), np.uint8, max(nbytes, 1))[:nbytes]
        return part.view(shared.array.dtype).reshape(shared.array.shape)

    def close(self) -> None:
        """Release this side's reference. Arrays in the region stay valid; it is unmapped with the last of them."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            del self._bytes, self._memory


class TicketServer:
    """Sends descriptors of regions to peers that present a ticket. Runs on the daemon's event loop.

    Parameters
    ----------
    path
        Path of the Unix socket.
    find
        Returns the region with the given name; ``None``: there is none.
    """

    def __init__(self, path: Path, find: Callable[[str], Region | None]) -> None:
        self.path = path
        self._find = find
        self._socket: socket.socket | None = None
        self._waiting: Counter[int] = Counter()  # connections by local user

    def start(self) -> None:
        """Start to listen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)  # access depends on the ticket only; the directory above can restrict it further
        self._socket.listen(16)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _accept(self) -> None:
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # no descriptor is left: the loop would call this again at once
            loop.remove_reader(self._socket)
            loop.call_later(_PAUSE, self._resume)
            return
        user = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
        if self._waiting[user] >= _WAITING_OF_USER or self._waiting.total() >= _WAITING:
            connection.close()
            return
        self._waiting[user] += 1
        connection.setblocking(False)
        timer = loop.call_later(_TIMEOUT, self._end, connection, user)
        loop.add_reader(connection, self._answer, connection, user, timer)

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _answer(self, connection: socket.socket, user: int, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        with contextlib.suppress(OSError):
            region = self.region_of(connection.recv(_MAX_REQUEST))
            if region is not None:
                socket.send_fds(connection, [b"ok"], [region.descriptor])
            else:
                connection.send(b"no")
        self._end(connection, user)

    def region_of(self, request: bytes) -> Region | None:
        """Return the region that a request ``name ticket`` has the right to; ``None``: there is none."""
        name, _, ticket = request.decode("ascii", "replace").partition(" ")
        region = self._find(name)
        right = region is not None and hmac.compare_digest(ticket.encode(), region.ticket.encode())
        return region if right else None

    def _end(self, connection: socket.socket, user: int) -> None:
        self._waiting[user] -= 1
        if not self._waiting[user]:
            del self._waiting[user]
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()


def attach(path: str, name: str, ticket: str, nbytes: int) -> Region:
    """Map a region that the daemon has created; called by the client.

    Raises
    ------
    HostError
        The daemon does not know the ticket.
    OSError
        There is no daemon at `path`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        connection.send(f"{name} {ticket}".encode("ascii"))
        answer, descriptors, _, _ = socket.recv_fds(connection, 16, 1)
    if answer != b"ok" or len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise HostError("the host does not share this memory")
    os.set_inheritable(descriptors[0], False)
    if os.fstat(descriptors[0]).st_size < nbytes:
        os.close(descriptors[0])
        raise HostError("the host shares less memory than it said")
    return Region(nbytes, descriptors[0], name)
