"""Memory that a client and the daemon on the same machine both map, so that arrays do not travel at all.

The daemon makes each region (a sealed memfd, so that no client can shrink it under a running transfer) and hands its
descriptor over a Unix socket (SCM_RIGHTS) to whoever shows the region's ticket, which the client got from the API as an
authenticated user. The region is freed when both sides have closed it.

Both sides map it as they would a file for a card, so that it counts as pinned memory: a card's driver takes it in once,
and not for each job.
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
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apyfal._core.mapped_file import map_file
from apyfal.exceptions import ClosedError, HostError, ParameterError
from apyfal.host.protocol.messages import SharedArray

__all__ = ["Region", "TicketServer", "attach", "machine_id"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SHRINK") else 0
_TICKET_BYTES = 64
_TIMEOUT = 5.0


def machine_id() -> str:
    """Name this running machine: two processes that read the same can share memory."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Region:
    """A piece of shared memory; pages are there once they are touched.

    Parameters
    ----------
    nbytes
        Its size.
    descriptor
        Of an existing one, which is taken over; ``None`` makes a new, sealed one.

    Attributes
    ----------
    name, ticket
        What names it in jobs; what its descriptor is handed out for.
    nbytes
        Its size.
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
        """Where it is mapped in this process."""
        return int(self._bytes.ctypes.data)

    def array(self, shared: SharedArray, on_release: Callable[[], object] | None = None) -> np.ndarray[Any, Any]:
        """View the part that `shared` names. The view keeps the memory alive.

        Parameters
        ----------
        shared
            Of this region.
        on_release
            Called when the array and all views of it are gone.

        Raises
        ------
        ParameterError
            It lies outside, or is not aligned.
        ClosedError
            The region was given up.
        """
        if self.descriptor < 0:
            raise ClosedError("this shared memory was given up")
        start, nbytes = shared.offset, shared.array.nbytes
        if start + nbytes > self.nbytes:
            raise ParameterError(f"shared memory: {nbytes} bytes at {start} lie outside of its {self.nbytes}")
        if start % max(1, shared.array.dtype.alignment):
            raise ParameterError(f"shared memory: offset {start} is not aligned for {shared.array.dtype}")
        part = self._bytes[start : start + nbytes]
        if on_release is not None:
            # numpy's views hold the buffer's owner, not the array they are made of: this owner is one of their own.
            owner = (ctypes.c_ubyte * max(nbytes, 1)).from_buffer(self._memory, start if nbytes else 0)
            weakref.finalize(owner, on_release).atexit = False
            part = np.frombuffer(memoryview(owner), np.uint8, max(nbytes, 1))[:nbytes]
        return part.view(shared.array.dtype).reshape(shared.array.shape)

    def close(self) -> None:
        """Give up this side's hold. Arrays in it stay usable: the mapping goes with the last of them."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            del self._bytes, self._memory


class TicketServer:
    """Hands descriptors of regions to who shows a ticket. Runs on the daemon's event loop.

    Parameters
    ----------
    path
        Of the Unix socket.
    find
        Ticket prefix to region: (name) -> region or ``None``.
    """

    def __init__(self, path: Path, find: Callable[[str], Region | None]) -> None:
        self.path = path
        self._find = find
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)  # the ticket is what is checked; the directory above may be closed to others
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
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_TIMEOUT, self._end, connection)
            loop.add_reader(connection, self._answer, connection, timer)

    def _answer(self, connection: socket.socket, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        with contextlib.suppress(OSError):
            request = connection.recv(256).decode("ascii", "replace")
            name, _, ticket = request.partition(" ")
            region = self._find(name)
            if region is not None and hmac.compare_digest(ticket.encode(), region.ticket.encode()):
                socket.send_fds(connection, [b"ok"], [region.descriptor])
            else:
                connection.send(b"no")
        self._end(connection)

    @staticmethod
    def _end(connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()


def attach(path: str, name: str, ticket: str, nbytes: int) -> Region:
    """Map a region that the daemon made, as a client.

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
