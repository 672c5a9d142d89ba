"""Objects out of the caller's memory: one request when small, parallel parts otherwise, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable

from apyfal.exceptions import ParameterError
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.transfer.multipart import MultipartWriter
from apyfal.storage.transfer.put_object import put

__all__ = ["upload"]

#: Up to here one request is at least as fast as parts.
_SINGLE = 16 << 20


def upload(
    handler: Handler,
    path: str,
    data: memoryview,
    *,
    exclusive: bool = False,
    metadata: ObjectMetadata | None = None,
    progress: Progress | None = None,
    options: TransferOptions = TransferOptions(),  # noqa: B008  # it is frozen
    first: Callable[[], ObjectInfo] | None = None,
) -> ObjectInfo:
    """Write a whole object from the caller's memory, which is never copied.

    Parameters
    ----------
    handler, path
        The store, and the object in it.
    data
        Contiguous memory; it must not change until this returns.
    exclusive
        Fail if the object exists.
    metadata
        Content type and the like; where it states no content type, the object's name decides.
    progress
        Called with the bytes written and their total.
    options
        Part size, parallelism, retries, checksums, cancellation.
    first
        The first attempt at writing a small object in one request, if that has been made.

    Returns
    -------
    ObjectInfo
        The object that was written.

    Raises
    ------
    ObjectExists, AccessDenied, StoreUnavailable, TransferTimeout, TransferCancelled
        Nothing of the object is visible, and no part is left.
    """
    if not data.c_contiguous:
        raise ParameterError("the memory to write from is not contiguous")
    if data.format != "B" or data.ndim != 1:
        data = data.cast("B") if data.nbytes else memoryview(b"")
    size = len(data)
    single = min(options.part_size or _SINGLE, handler.limits.max_put)
    if handler.limits.whole or size <= max(single, handler.limits.min_part if options.part_size is None else 0):
        return put(
            handler,
            path,
            data,
            exclusive=exclusive,
            metadata=metadata,
            progress=progress,
            options=options,
            first=first,
        )
    stream = MultipartWriter(
        handler, path, size, exclusive=exclusive, metadata=metadata, progress=progress, options=options
    )
    with stream:
        stream.send(data)
        return stream.commit()
