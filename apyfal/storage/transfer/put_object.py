"""A whole object in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apyfal.exceptions import ObjectExists, StorageError
from apyfal.storage.checksums import crc_function, digest_bytes
from apyfal.storage.flow.metadata import metadata_argument
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import Retrying, limits_for
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.transfer.download import download

__all__ = ["put"]


def put(
    handler: Handler,
    path: str,
    data: memoryview,
    *,
    exclusive: bool,
    metadata: ObjectMetadata | None = None,
    progress: Progress | None,
    options: TransferOptions,
    first: Callable[[], ObjectInfo] | None = None,
) -> ObjectInfo:
    """Write a small object in one request, and again while that fails in passing.

    `first` is the first attempt, if that has been made: it returns or raises what `Handler.put` would have.
    """
    mount_limits = limits_for(handler)
    algorithm = handler.limits.checksum if options.verify else None
    function = crc_function(algorithm) if algorithm is not None else None
    checksum = digest_bytes(algorithm, function(data, 0)) if algorithm is not None and function is not None else None
    keywords: Any = metadata_argument(handler, path, metadata)  # only a `MetadataHandler` is given it
    cancel = options.own_cancel()
    tries = Retrying(mount_limits.quota, options.attempts, cancel)
    try:
        with cancel.scope():
            while True:
                try:
                    cancel.check()
                    if mount_limits.bandwidth is not None:
                        mount_limits.bandwidth.take(len(data), cancel)
                    attempt, first = first, None
                    with mount_limits.connections.turn(cancel):
                        if attempt is not None:
                            info = attempt()
                        else:
                            info = handler.put(path, data, checksum, exclusive=exclusive, **keywords)
                except ObjectExists:
                    # After a lost response, what is in the way may be ours.
                    found = _same(handler, path, data, options) if tries.retries else None
                    if found is None:
                        raise
                    info = found
                except StorageError as error:
                    tries.failed(error, f"cannot write {handler.shown(path)!r}")
                    continue
                tries.success()
                if progress is not None:
                    progress(len(data), len(data))
                return info
    finally:
        cancel.detach()


def _same(handler: Handler, path: str, data: memoryview, options: TransferOptions) -> ObjectInfo | None:
    """Return the object that is there, if its content is `data`."""
    info = handler.describe(path)
    if info.size != len(data):
        return None
    there = memoryview(bytearray(len(data)))
    download(handler, path, there, info=info, options=options)
    return info if there == data else None
