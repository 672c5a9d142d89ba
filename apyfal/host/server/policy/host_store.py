"""The store behind ``host://`` on the daemon: files below the allowed directories, for the transfer engine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol

from apyfal.exceptions import ObjectChanged, StorageError
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.host_files import Claim, HostEntry, PendingFile
from apyfal.host.server.policy.limits import MAX_BODY
from apyfal.host.server.policy.quotas import require_free_space
from apyfal.host.server.policy.refusals import TooLarge
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload

__all__ = ["Account", "HostStore"]

_ANY = 1 << 62


class Account(Protocol):
    """The user whose quota files below ``host://`` count against."""

    def claim(self) -> Claim:
        """Return the claim of a file that is about to be written."""
        ...

    def forget(self, removed: os.stat_result) -> None:
        """Stop counting a removed file, whoever wrote it."""


class HostStore(Handler):
    """Files of this machine below the allowed directories, as a store. Paths are those after ``host://``.

    Parameters
    ----------
    directories
        The allowed directories; borrowed.
    max_size
        Size in bytes of the largest file that may be written.
    reserve
        Bytes of a file system that must stay free.
    account
        The account whose quota written files count against; ``None``: they count against no quota.
    """

    scheme: ClassVar[str] = "host"
    limits = Limits(min_part=1, max_part=_ANY, max_parts=_ANY, max_put=_ANY)

    def __init__(
        self,
        directories: AllowedDirectories,
        max_size: int = MAX_BODY,
        reserve: int = 0,
        account: Account | None = None,
    ) -> None:
        self._directories = directories
        self._max_size = max_size
        self._reserve = reserve
        self._account = account

    def describe(self, path: str) -> ObjectInfo:
        return _info(self._directories.stat(path))

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        return _Reader(self._directories.open(path), path, start, stop, version_of)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        with contextlib.ExitStack() as stack:
            claim = self._claimed(len(data))
            if claim is not None:
                stack.callback(claim.close)
            pending = stack.enter_context(self._directories.create(path, exclusive=exclusive))
            if claim is not None:
                pending.begin(claim)
            self._write_all(pending.fd, data, 0, path)
            return _info(pending.commit(claim))

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        claim = self._claimed(size or 0)
        with contextlib.ExitStack() as stack:
            if claim is not None:
                stack.callback(claim.close)
            pending = stack.enter_context(self._directories.create(path, exclusive=exclusive))
            if claim is not None:
                pending.begin(claim)
            stack.pop_all()  # from now on they are the upload's
        return _Upload(pending, path, self._write_all, claim)

    def _claimed(self, size: int) -> Claim | None:
        """Return the claim of a new file of `size` bytes; ``None``: it counts against nobody's quota."""
        if self._account is None:
            return None
        claim = self._account.claim()
        claim.grow(size)
        return claim

    def remove(self, path: str) -> None:
        removed = self._directories.remove(path)
        try:
            if self._account is not None:
                self._account.forget(removed.status)
        finally:
            removed.close()

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List a directory in the order of names. `recursive` yields only files, and follows no link to a directory.

        Thus each directory is listed once, whatever the number of links to it.
        """
        cancel = current_cancel()
        for entry in self._directories.scan(path):
            if cancel is not None:
                cancel.check()
            if not (recursive and entry.is_directory):
                yield _info(entry)
            elif not entry.is_link:
                yield from self.list(entry.path, recursive=True)

    def _write_all(self, descriptor: int, data: memoryview, offset: int, path: str) -> None:
        if offset + len(data) > self._max_size:
            raise TooLarge(f"host://{path}: more than {self._max_size} bytes, the largest file that this host takes")
        require_free_space(descriptor, len(data), self._reserve)
        done = 0
        try:
            while done < len(data):
                done += os.pwritev(descriptor, [data[done:]], offset + done)
        except OSError as error:
            raise StorageError(f"cannot write host://{path}: {error.strerror}", path=path) from error

    def makedirs(self, path: str) -> None:
        self._directories.makedirs(path)


def _info(entry: HostEntry) -> ObjectInfo:
    return ObjectInfo(
        path=entry.path,
        size=None if entry.is_directory else entry.size,
        etag=None if entry.is_directory else entry.etag,
        mtime=entry.mtime_ns / 1e9,
        is_directory=entry.is_directory,
    )


class _Reader(RangeReader):
    """A range of one open file."""

    def __init__(self, descriptor: int, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> None:
        self._descriptor = descriptor
        self._path = path
        status = os.fstat(descriptor)
        self.info = _info(HostEntry(path, status.st_size, status.st_mtime_ns, status.st_ino, False))
        if version_of is not None and version_of.etag not in (None, self.info.etag):
            self.close()
            raise ObjectChanged(f"host://{path} changed while it was being read", path=path)
        self._position = start
        self._stop = stop

    def readinto(self, out: memoryview) -> int:
        if self._stop is not None:
            out = out[: max(0, self._stop - self._position)]
        try:
            count = os.preadv(self._descriptor, [out], self._position)
        except OSError as error:
            raise StorageError(f"cannot read host://{self._path}: {error.strerror}", path=self._path) from error
        if count == 0 and len(out) and self._stop is not None:
            raise ObjectChanged(f"host://{self._path} ended before byte {self._stop}", path=self._path)
        self._position += count
        return count

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _Upload(Upload):
    """A file written in parts. The position of part `n` follows from the size of the first part."""

    def __init__(
        self,
        pending: PendingFile,
        path: str,
        write_all: Callable[[int, memoryview, int, str], None],
        claim: Claim | None,
    ) -> None:
        self._pending = pending
        self._claim = claim
        self._path = path
        self._write_all = write_all
        self._known = threading.Condition()
        self._part_size: int | None = None
        self._done: ObjectInfo | None = None

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        with self._known:
            if number == 1:
                self._part_size = len(data)
                self._known.notify_all()
            while self._part_size is None and self._pending.fd >= 0:
                self._known.wait()
            if self._part_size is None:
                raise StorageError(f"the upload to host://{self._path} was aborted", path=self._path)
            offset = (number - 1) * self._part_size
        if self._claim is not None:
            self._claim.grow(offset + len(data))
        self._write_all(self._pending.fd, data, offset, self._path)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        if self._done is None:
            written = os.fstat(self._pending.fd).st_size
            if written != size:
                raise StorageError(f"host://{self._path} has {written} bytes instead of {size}", path=self._path)
            self._done = _info(self._pending.commit(self._claim))
            self._pending.close()
            if self._claim is not None:
                self._claim.close()
        return self._done

    def abort(self) -> None:
        self._pending.close()
        if self._claim is not None:
            self._claim.close()
        with self._known:
            self._known.notify_all()
