"""Objects from one place to another: by the store itself, or through a few buffers, reading and writing at once."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.checksums import best_checksum, crc_function, digest_bytes
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.concurrency import AdaptiveConcurrency
from apyfal.storage.flow.metadata import carried_metadata, kept_metadata, metadata_argument
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import limits_for, retry_call
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.transfer.download import download
from apyfal.storage.transfer.multipart import MultipartWriter
from apyfal.storage.transfer.parallel import MIB, ParallelTransfer, PartReceiver
from apyfal.storage.transfer.ranges import CHUNK, RangeFetcher, is_resumable
from apyfal.storage.transfer.read_ahead import mismatch
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
        What the copy shall have of content type and the like. Inside one mount it has the source's for the rest;
        between two, of the rest what `apyfal.storage.flow.metadata.carried_metadata` carries.
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
                if like is None:
                    metadata = carried_metadata(source, opened.info, destination, metadata, options)
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
    if like is None:
        metadata = carried_metadata(source, info, destination, metadata, options)
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
    # One token for both ends: a part that fails ends those of its siblings that wait for it at the destination.
    cancel = options.own_cancel()
    options = replace(options, cancel=cancel)
    try:
        with _writer(destination, destination_path, info.size, exclusive, metadata, like, progress, options) as target:
            _Relay(source, info, target, options, cancel).copy()
            return target.commit()
    finally:
        cancel.detach()


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
    keywords: Any = metadata_argument(store, destination_path, metadata)
    what = f"cannot copy {store.shown(info.path)!r}"
    try:
        copied = retry_call(store, lambda: store.copy(info, destination_path, **keywords), what, limit=options.attempts)
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


class _Relay(ParallelTransfer):
    """Copies one version through a few buffers, one a thread, which is filled from the source and sent from."""

    def __init__(
        self, handler: Handler, info: ObjectInfo, target: MultipartWriter, options: TransferOptions, cancel: CancelToken
    ) -> None:
        algorithm = best_checksum(info.checksums) if options.verify else None
        crc = crc_function(algorithm) if algorithm is not None else None
        mount_limits = limits_for(handler)
        source = RangeFetcher(handler, info, mount_limits, cancel, options.attempts, crc)
        self._part = target.part_size(PART)
        # two, so that one reads while the other writes
        most = options.memory // self._part
        concurrency = AdaptiveConcurrency(options, handler, step=CHUNK, first=2, most=most)
        super().__init__(source, info.size or 0, algorithm, concurrency, "copy")
        self._target = target
        self._memory = mount_limits.memory
        self._stated = None if algorithm is None else info.checksums[algorithm]

    def copy(self) -> None:
        """Copy everything.

        Raises
        ------
        ChecksumMismatch
            What was read is not what the store states a checksum of.
        """
        self._memory.hold(self._part)
        crc = self.run()
        if self._algorithm is not None and digest_bytes(self._algorithm, crc) != self._stated:
            raise mismatch(self._source.handler.shown(self._source.info.path), self._algorithm)

    def _next_size(self, left: int, opened: bool) -> int:
        return min(self._part, left)

    def _admit(self) -> bool:
        return self._memory.try_acquire(self._part)

    def _leave(self) -> None:
        self._memory.release(self._part)

    def _receiver(self) -> PartReceiver:
        # aligned to pages, so that a local file can be written from it around the page cache
        buffer = memoryview(mmap.mmap(-1, min(self._part, self._size)))

        def receive(begin: int, size: int, reader: RangeReader | None) -> int:
            view = buffer[:size]
            crc = self._source.receive(view, begin, lambda count: self._moved(begin, count), reader)
            self._target.write_part(begin // self._part + 1, view)
            return crc

        return receive
