"""One object being written in parts, in bounded memory, whole or not at all."""

from __future__ import annotations

import itertools
import logging
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from apyfal.exceptions import StorageError, TransferCancelled
from apyfal.storage.checksums import combine, crc_function, digest_bytes
from apyfal.storage.flow.cancel import shielded
from apyfal.storage.flow.concurrency import AdaptiveConcurrency
from apyfal.storage.flow.metadata import kept_metadata, metadata_argument
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import Retrying, limits_for, retry_call
from apyfal.storage.flow.worker_pool import WorkerPool
from apyfal.storage.handler import Handler, ObjectInfo, Upload
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.transfer.download import download
from apyfal.storage.transfer.parts import PART, Part, PartBuffers, next_part_size
from apyfal.storage.transfer.put_object import put

__all__ = ["MultipartWriter"]

_LOG = logging.getLogger(__name__)


class MultipartWriter:
    """One object being written front to back, in bounded memory; visible only after `commit`.

    As a context manager it aborts unless `commit` was called. Not thread-safe: one thread writes.

    Parameters
    ----------
    handler, path
        The store, and the object in it.
    size
        Bytes that will be written, if known: parts are sized by it, and `commit` refuses any other number.
    exclusive
        Fail if the object exists.
    metadata
        Content type and the like of the object.
    like
        An object of the same store whose metadata it has, but for what `metadata` states.
    progress, options
        As in `upload`; ``options.memory`` bounds the buffers.
    """

    def __init__(
        self,
        handler: Handler,
        path: str,
        size: int | None = None,
        *,
        exclusive: bool = False,
        metadata: ObjectMetadata | None = None,
        like: ObjectInfo | None = None,
        progress: Progress | None = None,
        options: TransferOptions = TransferOptions(),  # noqa: B008  # it is frozen
    ) -> None:
        self._handler = handler
        self._path = path
        self._name = handler.shown(path)
        self._size = size
        self._exclusive = exclusive
        self._metadata = metadata
        self._like = like
        self._progress = progress
        self._options = options
        self._mount_limits = limits_for(handler)
        self._cancel = options.own_cancel()
        self._algorithm = handler.limits.checksum if options.verify else None
        self._crc = crc_function(self._algorithm) if self._algorithm is not None else None
        self._changed = threading.Condition()
        self._beginning = threading.Lock()
        self._workers: WorkerPool[Part] = WorkerPool(
            "upload", AdaptiveConcurrency(options, handler, step=PART), self._work
        )
        self._failure: BaseException | None = None
        self._upload: Upload | None = None
        self._crcs: dict[int, tuple[int, int]] = {}
        self._combines = True  # the CRC of every part is known
        self._parts = 0
        self._written = 0
        self._sent = 0
        self._buffer: memoryview | None = None
        self._filled = 0
        self._buffers = PartBuffers(self._mount_limits.memory, options.memory)
        self._closed = False

    # -- writing ------------------------------------------------------------------------------------------------------
    def write(self, data: memoryview) -> int:
        """Take all of `data`, which may be changed when this returns. Blocks while too much waits to be sent.

        Large pieces are sent from `data` itself; what is smaller than a part is collected in a buffer.
        """
        data = data if data.format == "B" and data.ndim == 1 else data.cast("B")
        self._check()
        done, total = 0, len(data)
        pending = []
        while done < total:
            part = self.part_size()
            if self._buffer is None and total - done >= part:
                pending.append(self.submit(data[done : done + part]))
                done += part
                continue
            if self._buffer is None:
                self._buffer = self._buffers.take(part, self._check)
                self._filled = 0
            count = min(total - done, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = data[done : done + count]
            self._filled += count
            self._written += count
            done += count
            if self._filled == len(self._buffer):
                self._flush()
        for future in pending:
            future.result()
        return total

    def send(self, data: memoryview) -> None:
        """Send all of `data` from where it lies, in parts of the best size, and wait until the store has them."""
        futures = []
        done = 0
        while done < len(data):
            part = self.part_size()
            stop = len(data) if len(data) - done < part + part // 4 else done + part
            futures.append(self.submit(data[done:stop]))
            done = stop
        for future in futures:
            future.result()

    def submit(self, data: memoryview) -> Future[None]:
        """Send `data` as one part, from where it lies.

        Parameters
        ----------
        data
            At least ``handler.limits.min_part`` bytes, unless it is the end of the object. It must not change until the
            returned future is done.

        Returns
        -------
        Future
            Done when the store has the part, or with the error that ends the whole upload.
        """
        self._check()
        part = Part(data, None)
        if self._buffer is not None or not len(data):
            # Behind collected bytes, which may be too few to be a part.
            self.write(data)
            part.future.set_result(None)
        else:
            self._written += len(data)
            self._enqueue(part)
        return part.future

    def write_part(self, number: int, data: memoryview) -> None:
        """Write part `number` (from 1) from where it lies, in the calling thread.

        For callers that run their own threads: they write all parts this way, in any order.

        Raises
        ------
        StorageError
            After the last attempt; `abort` is the caller's then.
        """
        with self._beginning:
            if self._upload is None:
                self._begin()
            self._parts = max(self._parts, number)
            self._written += len(data)
        part = Part(data, None)
        part.number = number
        with self._cancel.scope():
            self._write(part)

    def begin_with(self, old: ObjectInfo) -> None:
        """Make another object of the same store the front of this one; before anything is written.

        The store copies it, unless it is too small for a part: then it is read, and sent with what follows.

        Raises
        ------
        ObjectChanged
            `old` is not the version that is there.
        """
        size = old.size or 0
        if size >= self._handler.limits.min_part:
            self.copy_parts(old)
            return
        data = memoryview(bytearray(size))
        download(self._handler, old.path, data, info=old, options=self._options)
        self.write(data)

    def copy_parts(self, old: ObjectInfo) -> None:
        """Let the store make the first parts of another object that it has; errors as `begin_with`.

        Parameters
        ----------
        old
            The version to copy. It must not be empty; if anything is written after it, it has at least
            ``handler.limits.min_part`` bytes.
        """
        size = old.size or 0
        count = -(-size // self._handler.limits.max_copied_part)
        ends = [size * number // count for number in range(count + 1)]
        with self._cancel.scope():
            self._begin()
            for number, (start, stop) in enumerate(itertools.pairwise(ends), 1):
                self._copy_part(number, old, start, stop)
        self._parts, self._written = count, size

    @property
    def written(self) -> int:
        """Bytes taken so far."""
        return self._written

    def commit(self) -> ObjectInfo:
        """Make the object visible, with all that was written.

        Raises
        ------
        StorageError
            Nothing is visible, and no part is left.
        """
        self._check()
        try:
            if self._size is not None and self._written != self._size:
                raise StorageError(
                    f"cannot write {self._name!r}: {self._written} bytes came where {self._size} were announced",
                    path=self._name,
                )
            if self._parts == 0:
                data = self._buffer[: self._filled] if self._buffer is not None else memoryview(b"")
                info = put(
                    self._handler,
                    self._path,
                    data,
                    exclusive=self._exclusive,
                    metadata=self._whole_metadata(),
                    progress=self._progress,
                    options=self._options,
                )
            else:
                self._flush()
                self._drain()
                info = self._complete()
        except BaseException:
            self.abort()
            raise
        self._close()
        return info

    def abort(self) -> None:
        """Stop, and remove every trace from the store. Idempotent, and nothing after `commit`."""
        if self._closed:
            return
        self._cancel.set()
        self._close()
        if self._upload is not None:
            self._abort(self._upload)

    def __enter__(self) -> MultipartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    # -- parts --------------------------------------------------------------------------------------------------------
    def _check(self) -> None:
        if self._failure is not None:
            failure = self._failure
            self.abort()
            raise failure
        if self._closed:
            raise ValueError(f"the upload of {self._name!r} has ended")

    def part_size(self, wish: int = PART) -> int:
        """Return the bytes of the next part that suit the store, the size and the limits, at best `wish`."""
        limits, bandwidth = self._handler.limits, self._mount_limits.bandwidth
        return next_part_size(limits, self._options, self._size, self._parts, bandwidth, wish)

    def _flush(self) -> None:
        """Send what the buffer holds as a part."""
        if self._buffer is not None and self._filled:
            buffer, self._buffer = self._buffer, None
            self._enqueue(Part(buffer[: self._filled], buffer))

    def _enqueue(self, part: Part) -> None:
        if self._upload is None:
            self._begin()
        self._parts += 1
        part.number = self._parts
        if self._parts > self._handler.limits.max_parts:
            raise StorageError(
                f"cannot write {self._name!r}: more than {self._handler.limits.max_parts} parts", path=self._name
            )
        self._workers.put(part)

    def _work(self, part: Part) -> None:
        try:
            with self._cancel.scope():
                self._write(part)
        except BaseException as error:
            self._fail(error, part)
        else:
            part.future.set_result(None)

    def _write(self, part: Part) -> None:
        self._cancel.check()
        crc = self._crc(part.data, 0) if self._crc is not None else 0
        checksum = digest_bytes(self._algorithm, crc) if self._crc is not None and self._algorithm else None
        tries = Retrying(self._mount_limits.quota, self._options.attempts, self._cancel)
        upload = self._upload
        while upload is not None:
            try:
                self._cancel.check()
                if self._mount_limits.bandwidth is not None:
                    self._mount_limits.bandwidth.take(len(part.data), self._cancel)
                with self._mount_limits.connections.turn(self._cancel):
                    upload.write_part(part.number, part.data, checksum)
                break
            except StorageError as error:
                tries.failed(error, f"cannot write part {part.number} of {self._name!r}")
        tries.success()
        if part.buffer is not None:
            self._buffers.release(part.buffer)
        with self._changed:
            self._crcs[part.number] = (crc, len(part.data))
            self._sent += len(part.data)
            self._changed.notify_all()
            if self._progress is not None:
                self._progress(self._sent, self._size)
        self._workers.moved(len(part.data))

    def _copy_part(self, number: int, old: ObjectInfo, start: int, stop: int) -> None:
        upload = self._upload
        if upload is None:
            raise StorageError(f"cannot write {self._name!r}: there is no upload")
        what = f"cannot copy part {number} of {self._handler.shown(old.path)!r} into {self._name!r}"
        checksum = retry_call(
            self._handler, lambda: upload.copy_part(number, old, start, stop), what, limit=self._options.attempts
        )
        if checksum is None:
            self._combines = False
        self._crcs[number] = (int.from_bytes(checksum or b"", "big"), stop - start)
        self._sent += stop - start
        if self._progress is not None:
            self._progress(self._sent, self._size)

    def _fail(self, error: BaseException, part: Part) -> None:
        """Note the first error, and end everything that is under way."""
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()
        self._cancel.set()
        for one in (part, *self._workers.clear()):
            one.future.set_exception(self._failure)

    # -- begin and end ------------------------------------------------------------------------------------------------
    def _whole_metadata(self) -> ObjectMetadata | None:
        if self._like is not None:
            self._metadata = kept_metadata(self._handler, self._like, self._metadata, self._options)
            self._like = None
        return self._metadata

    def _begin(self) -> None:
        keywords: Any = metadata_argument(self._handler, self._path, self._whole_metadata())
        tries = Retrying(self._mount_limits.quota, self._options.attempts, self._cancel)
        with self._cancel.scope():
            while self._upload is None:
                try:
                    # Not cancelled in between: without the answer, nobody could remove what the store has begun.
                    with self._mount_limits.connections.turn(self._cancel), shielded():
                        self._cancel.check()
                        self._upload = self._handler.upload(
                            self._path, size=self._size, exclusive=self._exclusive, **keywords
                        )
                except StorageError as error:
                    tries.failed(error, f"cannot begin to write {self._name!r}")
        tries.success()

    def _drain(self) -> None:
        """Wait until all parts are in the store."""
        with self._changed:
            while self._failure is None and len(self._crcs) < self._parts:
                self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def _complete(self) -> ObjectInfo:
        checksum = None
        if self._combines and self._crc is not None and self._algorithm is not None:
            combined = 0
            for number in sorted(self._crcs):
                combined = combine(self._algorithm, combined, *self._crcs[number])
            checksum = digest_bytes(self._algorithm, combined)
        upload = self._upload
        if upload is None:
            raise StorageError(f"cannot write {self._name!r}: there is no upload")
        tries = Retrying(self._mount_limits.quota, self._options.attempts, self._cancel)
        with self._cancel.scope():
            while True:
                try:
                    with self._mount_limits.connections.turn(self._cancel):
                        info = upload.complete(self._written, checksum)
                except StorageError as error:
                    tries.failed(error, f"cannot complete {self._name!r}")
                else:
                    tries.success()
                    return info

    def _abort(self, upload: Upload) -> None:
        """Remove the parts, trying harder than for anything else: what stays is paid for."""
        tries = Retrying(self._mount_limits.quota, self._options.attempts, None)
        while True:
            try:
                with shielded():  # the caller's own scope may be cancelled, too
                    upload.abort()
                return
            except StorageError as error:
                try:
                    tries.failed(error, f"cannot abort the upload of {self._name!r}")
                except StorageError as last:
                    # The error that led here says more, and is the one that is raised.
                    _LOG.warning("%s: parts of it may be left in the store, and be paid for", last)
                    return

    def _close(self) -> None:
        """End the threads; every future is done afterwards."""
        self._closed = True
        for part in self._workers.clear():
            part.future.set_exception(TransferCancelled(f"the upload of {self._name!r} was aborted"))
        self._workers.close()
        self._cancel.detach()
        self._buffers.close()
        self._buffer = None
