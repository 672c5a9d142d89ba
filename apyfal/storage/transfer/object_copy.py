"""Objects from one place to another: by the store itself, or through a few buffers, reading and writing at once."""

from __future__ import annotations

import mmap
import threading
from typing import Any

from apyfal.exceptions import ChecksumMismatch, UnsupportedByStore
from apyfal.storage.checksums import best_checksum, combine, crc_function, digest_bytes
from apyfal.storage.flow.concurrency import AdaptiveConcurrency
from apyfal.storage.flow.metadata import kept_metadata, metadata_argument
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import limits_for, retry_call
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.transfer.download import download
from apyfal.storage.transfer.multipart import MultipartWriter
from apyfal.storage.transfer.parallel import MIB
from apyfal.storage.transfer.ranges import CHUNK, RangeFetcher, is_resumable
from apyfal.storage.transfer.reader import ObjectStream, stream
from apyfal.storage.transfer.upload import upload

__all__ = ["copy"]

#: What a thread reads before it writes it: small enough for several to fit into the memory, and into a cache.
PART = 8 * MIB


def copy(
    source: Handler,
    source_path: str,
    destination: Handler,
    destination_path: str,
    *,
    info: ObjectInfo | None = None,
    exclusive: bool = False,
    metadata: ObjectMetadata | None = None,
    progress: Progress | None = None,
    options: TransferOptions = TransferOptions(),  # noqa: B008  # it is frozen
) -> ObjectInfo:
    """Copy one object, whole or not at all.

    Within one mount the store copies it, if it can. Between two, each of a few threads reads a part into its buffer and
    writes it from there, so that both stores work at once.

    Parameters
    ----------
    source, source_path
        What to copy.
    destination, destination_path
        Where to.
    info
        The version to copy, if known; otherwise the object is looked up.
    exclusive
        Fail if there is something at the destination.
    metadata
        What the copy shall have of content type and the like. Inside one mount it has the source's for the rest.
    progress
        Called with the bytes written and their total.
    options
        ``options.memory`` bounds the buffers.

    Returns
    -------
    ObjectInfo
        The copy.
    """
    if info is None:
        with stream(source, source_path, options=options) as opened:
            if not is_resumable(opened.info) and not _is_small(opened.info):
                # Perhaps it can be read only once, as a link that is good for one download.
                like = opened.info if source is destination else None
                target = _writer(
                    destination, destination_path, opened.size, exclusive, metadata, like, progress, options
                )
                return _pass_on(opened, target)
            info = opened.info
    if source is destination and not exclusive:
        copied = _copy_inside(source, info, destination_path, metadata, progress, options)
        if copied is not None:
            return copied
    like = info if source is destination else None
    if _is_small(info):
        data = memoryview(bytearray(info.size or 0))
        download(source, source_path, data, info=info, options=options)
        if like is not None:
            metadata = kept_metadata(destination, like, metadata, options)
        return upload(
            destination,
            destination_path,
            data,
            exclusive=exclusive,
            metadata=metadata,
            progress=progress,
            options=options,
        )
    if not is_resumable(info):
        with ObjectStream(source, info, options) as opened:
            target = _writer(destination, destination_path, opened.size, exclusive, metadata, like, progress, options)
            return _pass_on(opened, target)
    target = _writer(destination, destination_path, info.size, exclusive, metadata, like, progress, options)
    with target:
        _Relay(source, info, target, options).run()
        return target.commit()


def _is_small(info: ObjectInfo) -> bool:
    """Whether an object is copied as one piece."""
    return info.encoding is None and info.size is not None and info.size <= PART


def _copy_inside(
    store: Handler,
    info: ObjectInfo,
    destination_path: str,
    metadata: ObjectMetadata | None,
    progress: Progress | None,
    options: TransferOptions,
) -> ObjectInfo | None:
    """Let the store copy an object, in parts if it is too large for one request; ``None`` if the store cannot."""
    limits = store.limits
    if limits.max_copy is not None and limits.max_copied_part and (info.size or 0) > limits.max_copy:
        with _writer(store, destination_path, info.size, False, metadata, info, progress, options) as target:
            target.copy_parts(info)
            return target.commit()
    given: Any = metadata_argument(store, destination_path, metadata)
    what = f"cannot copy {store.shown(info.path)!r}"
    try:
        copied = retry_call(store, lambda: store.copy(info, destination_path, **given), what, limit=options.attempts)
    except UnsupportedByStore:
        return None
    if progress is not None and info.size is not None:
        progress(info.size, info.size)
    return copied


def _writer(
    destination: Handler,
    path: str,
    size: int | None,
    exclusive: bool,
    metadata: ObjectMetadata | None,
    like: ObjectInfo | None,
    progress: Progress | None,
    options: TransferOptions,
) -> MultipartWriter:
    return MultipartWriter(
        destination,
        path,
        size,
        exclusive=exclusive,
        metadata=metadata,
        like=like,
        progress=progress,
        options=options,
    )


def _pass_on(source: ObjectStream, target: MultipartWriter) -> ObjectInfo:
    """Copy what can only be read front to back."""
    buffer = memoryview(bytearray(MIB))
    with target:
        while count := source.readinto(buffer):
            target.write(buffer[:count])
        return target.commit()


class _Relay:
    """A few threads, each with a buffer that is filled from the source and sent from."""

    def __init__(self, handler: Handler, info: ObjectInfo, target: MultipartWriter, options: TransferOptions) -> None:
        self._info = info
        self._name = handler.shown(info.path)
        self._size = info.size or 0
        self._target = target
        self._memory = limits_for(handler).memory
        self._cancel = options.own_cancel()
        self._algorithm = best_checksum(info.checksums) if options.verify else None
        crc = crc_function(self._algorithm) if self._algorithm is not None else None
        self._source = RangeFetcher(handler, info, limits_for(handler), self._cancel, options.attempts, crc)
        self._part = target.part_size(PART)
        # two, so that one reads while the other writes
        self._pace = AdaptiveConcurrency(options, handler, step=CHUNK, first=2, most=options.memory // self._part)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._next = 0
        self._crcs: list[tuple[int, int, int]] = []
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Copy everything."""
        self._memory.hold(self._part)
        with self._lock:
            self._running = 1
            self._spawn()
        self._work()
        for thread in self._threads:  # grows while threads run, and each is in it before its starter ends
            thread.join()
        self._cancel.detach()
        if self._failure is not None:
            raise self._failure
        if self._algorithm is not None:
            whole = 0
            for _, length, crc in sorted(self._crcs):
                whole = combine(self._algorithm, whole, crc, length)
            if digest_bytes(self._algorithm, whole) != self._info.checksums[self._algorithm]:
                raise ChecksumMismatch(
                    f"{self._name!r}: the bytes read do not have the {self._algorithm} that the store states",
                    path=self._name,
                )

    def _spawn(self) -> None:
        """Start the threads that are wanted, have something to do and get memory for it; the lock is held."""
        while (
            self._running < self._pace.wanted
            and self._next * self._part < self._size
            and self._failure is None
            and self._memory.try_acquire(self._part)
        ):
            self._running += 1
            thread = threading.Thread(target=self._work, name="apyfal-copy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        try:
            # aligned to pages, so that a local file can be written from it around the page cache
            buffer = memoryview(mmap.mmap(-1, min(self._part, self._size)))
            with self._cancel.scope():
                while (number := self._claim()) is not None:
                    begin = (number - 1) * self._part
                    view = buffer[: min(self._part, self._size - begin)]
                    crc = self._source.receive(view, begin, self._moved)
                    self._target.write_part(number, view)
                    with self._lock:
                        self._crcs.append((begin, len(view), crc))
        except BaseException as error:
            with self._lock:
                self._running -= 1
                if self._failure is None:
                    self._failure = error
            self._cancel.set()
        finally:
            self._memory.release(self._part)

    def _moved(self, count: int) -> None:
        with self._lock:
            self._pace.moved(count)
            self._spawn()

    def _claim(self) -> int | None:
        """Take the number of the next part; ``None`` when there is none, or this thread is one too many."""
        with self._lock:
            done = self._next * self._part >= self._size
            if done or self._failure is not None or self._running > self._pace.wanted:
                self._running -= 1
                return None
            self._next += 1
            return self._next
