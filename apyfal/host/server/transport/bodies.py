"""Receives request bodies into pinned memory or a spool file, sends outputs, and bounds how slow a peer may be."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.server.policy.quotas import Quota, Share
from apyfal.host.server.policy.refusals import Stalled, TooLarge
from apyfal.host.server.transport.payload_digest import ArrivingDigest, PayloadDigest
from apyfal.host.server.transport.request import caller
from apyfal.host.server.transport.spool import SpoolFile
from apyfal.host.server.transport.threads import in_thread
from apyfal.host.server.transport.zero_copy_body import can_receive_into, receive_into, send_continue
from apyfal.host.settings import HostSettings

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["HASHED_AT_ONCE", "Bodies", "Data", "received"]

#: bodies up to this size are hashed on the event loop, by `apyfal.host.server.jobs.job.fingerprint`
HASHED_AT_ONCE = 64 << 10
_CHUNK = 1 << 20
# Memory of this size and more is allocated in another thread, because the first touch of fresh pages takes long.
_LARGE = 1 << 20
# A spool file is read and written on the event loop. The pieces are small enough not to delay other requests.
_SPOOL_CHUNK = 256 << 10


class Data:
    """A job's input or output: an array in memory, or a spool file, with its share of a quota.

    Parameters
    ----------
    array
        The data in memory, or
    file
        the data in an open file without a name. Owned by this object.
    share
        Share of a quota, with the data's bytes already taken. Owned by this object; `close` returns it.
    more
        Arrays whose content follows that of `array`.

    Attributes
    ----------
    digest
        Digest of the whole content, if one was requested when it was received.
    """

    def __init__(
        self,
        array: np.ndarray[Any, Any] | None = None,
        file: io.FileIO | None = None,
        share: Share | None = None,
        more: Sequence[np.ndarray[Any, Any]] = (),
    ) -> None:
        self.array = array
        self.file = file
        self.nbytes = array.nbytes if array is not None else os.fstat(file.fileno()).st_size if file is not None else 0
        if more:
            self.nbytes += sum(one.nbytes for one in more)
        self.digest: str | None = None
        self._share = share
        self._more = more
        self._content: bytes | None = None

    @classmethod
    def of_bytes(cls, content: bytes) -> Data:
        """Return data in memory that is not pinned, and that `tobytes` does not copy."""
        data = cls(array=np.frombuffer(content, np.uint8))
        data._content = content
        return data

    @property
    def is_bytes(self) -> bool:
        """Return whether the content is what `of_bytes` was given, which counts against no quota."""
        return self._content is not None and self._share is None

    @property
    def memory(self) -> int:
        """Number of bytes that the content keeps allocated: an array can be the front of a larger one."""
        return 0 if self.array is None else sum(max(one.nbytes, _whole(one)) for one in (self.array, *self._more))

    def own(self, share: Share) -> None:
        """Count the data against `share` from now on. Takes ownership of `share`."""
        self._share = share

    def tobytes(self) -> bytes:
        """Return the content as bytes, for small outputs."""
        if self._content is not None:
            return self._content
        if self.array is not None and not self._more:
            return self.array.tobytes()
        if self.array is not None:
            return b"".join(one.tobytes() for one in (self.array, *self._more))
        return b"" if self.file is None else os.pread(self.file.fileno(), self.nbytes, 0)

    def pieces(self, nbytes: int) -> Iterator[memoryview]:
        """Yield the content in pieces of at most `nbytes`. Pieces of an array are views, valid until `close`."""
        if self.array is not None:
            for one in (self.array, *self._more):
                flat: np.ndarray[Any, Any] = np.ascontiguousarray(one).reshape(-1).view(np.uint8)
                for start in range(0, one.nbytes, nbytes):
                    yield flat.data[start : start + nbytes]
        elif self.file is not None:
            for start in range(0, self.nbytes, nbytes):
                yield memoryview(os.pread(self.file.fileno(), nbytes, start))

    def close(self) -> None:
        """Free the memory or file, and return the share. Idempotent."""
        share, self._share = self._share, None
        if share is not None:
            share.close()
        self.array, self._more, self._content = None, (), None
        if self.file is not None:
            self.file.close()
            self.file = None


def received(memory: np.ndarray[Any, Any], array: ArrayType | None, share: Share, digest: str | None) -> Data:
    """Return a body that has arrived in `memory`, of this type and shape. Takes ownership of `share`."""
    data = Data(array=memory if array is None else memory.view(array.dtype).reshape(array.shape), share=share)
    data.digest = digest
    return data


def _whole(array: np.ndarray[Any, Any]) -> int:
    """Return the number of bytes of the memory that `array` is a view of."""
    base = array.base
    while isinstance(base, np.ndarray):
        array, base = base, base.base
    return base.nbytes if isinstance(base, memoryview) else array.nbytes


class _Watch:
    """Closes a connection that makes no progress. Cheaper than a timeout for every chunk."""

    def __init__(self, request: web.Request, timeout: float) -> None:
        self._request = request
        self._timeout = timeout
        self._moved = False
        self.stalled = False
        self._timer = asyncio.get_running_loop().call_later(timeout, self._check)

    def moved(self) -> None:
        self._moved = True

    def _check(self) -> None:
        if self._moved:
            self._moved = False
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)
            return
        self.stalled = True
        if self._request.transport is not None:
            self._request.transport.abort()

    def reason(self) -> ConnectionError:
        """Return the error for a connection that has ended."""
        return Stalled("the request stalled") if self.stalled else ConnectionError("the body ended early")

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class Bodies:
    """Receives the bodies of requests and sends outputs, within the host's limits.

    Parameters
    ----------
    settings
        Of these, ``max_body``, ``spool_above``, ``state_directory`` and ``stall_timeout`` are used.
    memory, disk
        Quotas for bodies in memory and in files.
    allocate
        Allocates pinned memory of the given number of bytes.

    Attributes
    ----------
    spool_above
        Size in bytes from which data goes to a file. Smaller data goes there, too, if the user's share of the memory is
        used up.
    """

    def __init__(
        self, settings: HostSettings, memory: Quota, disk: Quota, allocate: Callable[[int], np.ndarray[Any, Any]]
    ) -> None:
        self._settings = settings
        self.memory = memory
        self.disk = disk
        self.spool_above = min(settings.spool_above, memory.limit_of_user)
        self.allocate = allocate

    async def receive(self, request: web.Request, array: ArrayType | None, *, digest: bool = False) -> Data:
        """Receive the body of a request.

        Parameters
        ----------
        request
            The request; it must have a Content-Length.
        array
            Type and shape of the array in the body; ``None``: the body is the bytes of a file.
        digest
            Whether to compute `Data.digest`, for bodies that are too large to be hashed on the event loop.

        Raises
        ------
        ParameterError
            There is no Content-Length, or it is not the size of `array`.
        TooLarge, TooMany, TooBusy, Stalled
        """
        length = request.content_length
        if length is None:
            raise ParameterError("the request needs a Content-Length")
        if self.goes_to_file(length, array):
            return await self._receive_spooled(request, length, PayloadDigest() if digest else None)
        share = self.memory.share(caller().name, length)
        try:
            memory = await self.allocated(length)
            digesting = ArrivingDigest(memory.data) if digest and length > HASHED_AT_ONCE else None
            await self._receive_into(request, memory.data, digesting)
            mark = None if digesting is None else await digesting.finish()
        except BaseException:
            share.close()
            raise
        return received(memory, array, share, mark)

    def goes_to_file(self, length: int, array: ArrayType | None) -> bool:
        """Check the size of a body, and return whether it goes to a file instead of memory.

        Raises
        ------
        TooLarge
            This host takes no such body.
        ParameterError
            It is not the size of `array`.
        """
        if length > self._settings.max_body:
            limit = self._settings.max_body
            raise TooLarge(f"a body of {length} bytes is larger than the {limit} that this host takes")
        if array is not None and array.nbytes != length:
            raise ParameterError(f"src: an array of {array.nbytes} bytes in a body of {length}")
        return length > self.spool_above and array is None

    async def allocated(self, length: int) -> np.ndarray[Any, Any]:
        """Return pinned memory, allocated in another thread if it is large."""
        return self.allocate(length) if length < _LARGE else await in_thread(self.allocate, length)

    def spool(self, user: str, nbytes: int = 0) -> SpoolFile:
        """Return an empty file for data of `user`. `nbytes` of it are reserved at once."""
        settings = self._settings
        share = self.disk.share(user, nbytes)
        return SpoolFile(settings.state_directory, share, settings.max_body, settings.disk_reserve)

    async def send(self, response: web.StreamResponse, request: web.Request, data: Data) -> None:
        """Send `data` as the body of a response, with its Content-Length."""
        response.content_length = data.nbytes
        await response.prepare(request)
        with _Watch(request, self._settings.stall_timeout) as watch:
            piece = memoryview(b"")
            try:
                async with contextlib.aclosing(self.pieces(data)) as pieces:
                    async for piece in pieces:
                        await response.write(piece)
                        watch.moved()
                await response.write_eof()
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # the server keeps the error for some time, not the memory
                raise
            finally:
                del piece

    async def pieces(self, data: Data) -> AsyncGenerator[memoryview, None]:
        """Yield the content of `data` in pieces to send; pieces of a file are read in another thread."""
        if data.array is not None:
            for piece in data.pieces(_CHUNK):
                yield piece
        elif data.file is not None:
            offset = 0
            while offset < data.nbytes:
                chunk = await in_thread(os.pread, data.file.fileno(), _SPOOL_CHUNK, offset)
                yield memoryview(chunk)
                offset += len(chunk)

    async def _receive_into(self, request: web.Request, out: memoryview, digesting: ArrivingDigest | None) -> None:
        if len(out) and can_receive_into(request):
            with _Watch(request, self._settings.stall_timeout) as watch:

                def moved(nbytes: int) -> None:
                    watch.moved()
                    if digesting is not None:
                        digesting.arrived(nbytes)

                try:
                    await receive_into(request, out, moved)
                except ConnectionError as error:
                    raise watch.reason() from error
            return
        send_continue(request)
        arrived = request.content.read_nowait()
        out[: len(arrived)] = arrived
        if len(arrived) < len(out):
            done = len(arrived)
            async for chunk in self._pieces(request, len(out) - done):
                out[done : done + len(chunk)] = chunk
                done += len(chunk)
                if digesting is not None:
                    digesting.arrived(done)

    async def _pieces(self, request: web.Request, length: int) -> AsyncIterator[bytes]:
        """Yield `length` bytes of the body as they arrive."""
        with _Watch(request, self._settings.stall_timeout) as watch:
            while length:
                chunk = await request.content.readany()
                if not chunk:
                    raise watch.reason()
                yield chunk
                length -= len(chunk)
                watch.moved()

    async def _receive_spooled(self, request: web.Request, length: int, digest: PayloadDigest | None) -> Data:
        file = self.spool(caller().name, length)
        try:
            send_continue(request)
            async for chunk in self._pieces(request, length):
                await in_thread(file.write, chunk)
                if digest is not None:
                    await in_thread(digest.update, chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        data = Data(file=file)
        data.digest = None if digest is None else digest.hexdigest()
        return data
