"""Receiving one byte range of one version of an object at its final address, however often the connection breaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from apyfal.exceptions import ObjectChanged, StorageError, StoreUnavailable
from apyfal.storage.checksums import Crc
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.retry import MountLimits, Retrying
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader

__all__ = ["CHUNK", "RangeFetcher", "changed", "differs", "is_resumable"]

_LOG = logging.getLogger(__name__)

#: Received, checksummed and reported at once: small enough to be in the cache still.
CHUNK = 1 << 20


def is_resumable(info: ObjectInfo) -> bool:
    """Whether a range of exactly this version can be asked for again.

    Without a strong validator two requests may see two versions; with a Content-Encoding the bytes that are counted are
    not the bytes that the store counts.
    """
    return info.ranges and info.etag is not None and info.encoding is None and info.size is not None


@dataclass(slots=True)
class RangeFetcher:
    """One version of one object, and how its ranges are received.

    Attributes
    ----------
    handler, info
        The store, and the version: every request is for exactly this one.
    mount_limits
        The mount's quota and limits.
    cancel
        Ends the transfer.
    attempts
        In a row without progress.
    crc
        Applied to every chunk while it is in the cache, or ``None``.
    """

    handler: Handler
    info: ObjectInfo
    mount_limits: MountLimits
    cancel: CancelToken
    attempts: int
    crc: Crc | None

    def receive(
        self,
        out: memoryview,
        start: int,
        moved: Callable[[int], None],
        reader: RangeReader | None = None,
    ) -> int:
        """Receive bytes `start` to ``start + len(out)`` of the object into `out`.

        Parameters
        ----------
        out
            Their final address.
        start
            Offset in the object.
        moved
            Called after each chunk with its length: those bytes are in place.
        reader
            A response that already begins at `start`; used first, and closed.

        Returns
        -------
        int
            The CRC of the range; 0 without `crc`.

        Raises
        ------
        ObjectChanged
            There is another version now.
        StorageError
            Whatever does not pass with another attempt, or has not after the last.
        """
        position = settled = crc = 0
        total = len(out)
        attempts = Retrying(self.mount_limits.quota, self.attempts, self.cancel)
        bandwidth, connections = self.mount_limits.bandwidth, self.mount_limits.connections
        while True:
            failure: StorageError | None = None
            begin, first = time.monotonic(), position
            try:
                with connections.turn(self.cancel, taken=reader is not None):
                    if reader is None:
                        self.cancel.check()
                        reader = self.handler.read(self.info.path, start + position, start + total, self.info)
                    with reader:
                        while position < total:
                            room = out[position : min(settled + CHUNK, total)]
                            if bandwidth is not None and position == settled:
                                bandwidth.take(len(room), self.cancel)
                            count = reader.readinto(room)
                            if not count:
                                raise StoreUnavailable(f"the body ended {total - position} bytes early")
                            position += count
                            if position - settled == CHUNK:
                                if self.crc is not None:
                                    crc = self.crc(out[settled:position], crc)
                                moved(CHUNK)
                                settled = position
            except StorageError as error:
                failure = error
            reader = None
            if position > settled:
                if self.crc is not None:
                    crc = self.crc(out[settled:position], crc)
                moved(position - settled)
                settled = position
            if position == total:
                # Also when the connection broke behind the last byte, or a resumed read met the end (416).
                self.mount_limits.note_rate(total - first, time.monotonic() - begin)
                attempts.success()
                return crc
            if failure is not None:
                if position > first:
                    attempts.progress()
                name = self.handler.shown(self.info.path)
                failure.path = failure.path or name
                failure.offset = start + position
                if position > first:
                    _LOG.info("the body of %r broke off at byte %d of %d", name, start + position, start + total)
                attempts.failed(failure, f"cannot read {name!r} at byte {start + position}")


def differs(known: ObjectInfo, seen: ObjectInfo) -> bool:
    """Whether what is being read is certainly not the version that is known."""
    if known.etag is not None and known.etag != seen.etag:
        return True
    return known.size is not None and seen.size is not None and known.size != seen.size


def changed(name: str, info: ObjectInfo, seen: ObjectInfo) -> ObjectChanged:
    """Return the error for another version than the one being read."""
    return ObjectChanged(
        f"{name!r} changed while it was being read: {info.size} bytes, ETag {info.etag}, became"
        f" {seen.size} bytes, ETag {seen.etag}",
        path=name,
    )
