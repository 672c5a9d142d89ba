"""Whether two files or objects are the same: by size and time, or by content."""

from __future__ import annotations

import hashlib
import math

from apyfal.storage.api.namespace import stat_at
from apyfal.storage.api.opening import open as open_file
from apyfal.storage.checksums import Hasher, new_hasher
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import Location

__all__ = ["differs", "differs_in_content", "is_changed"]

#: What a time in a `float` is off, and twice that (seconds): the float next to today's time is 2.4e-7 away.
_EXACT = 1e-6
#: Checksums that stores state, the strongest first: a CRC does not detect contents that were made to collide.
_STRONGEST_FIRST = ("sha256", "sha1", "md5", "crc64nvme", "crc32c", "crc32")
_PIECE = 1 << 20


def differs(source: ObjectInfo, existing: ObjectInfo, *, keeps_time: bool) -> str | None:
    """Return how two files differ: ``"size"`` or ``"time"``; ``None``: in neither.

    ``"content"``: their times decide nothing, and the contents have to be compared.

    Parameters
    ----------
    source, existing
        Entries of the listings. A file without size or time in its listing is taken to differ.
    keeps_time
        Whether copies have the time of their source. If not, they have that of the copying, and a copy differs if it is
        older than its source.
    """
    if source.size is None or source.size != existing.size:
        return "size"
    if source.mtime is None or existing.mtime is None:
        return "time"
    if keeps_time:
        return "time" if abs(source.mtime - existing.mtime) > _EXACT else None
    if math.floor(source.mtime) == math.floor(existing.mtime) and (source.mtime % 1 == 0 or existing.mtime % 1 == 0):
        return "content"  # whole seconds do not show which of two files in the same second is older
    return "time" if source.mtime > existing.mtime else None


def differs_in_content(source: Location, destination: Location) -> bool:
    """Compare two files or objects of the same size by their content.

    Checksums that both stores state are compared. If only one store states one, the other object is read; otherwise
    both are read.

    Raises
    ------
    StorageError
        One of them cannot be looked up or read.
    """
    one, other = stat_at(source), stat_at(destination)
    if one.size != other.size:
        return True
    stated = [{} if info.encoding is not None else info.checksums for info in (one, other)]
    for algorithm in _STRONGEST_FIRST:
        if algorithm in stated[0] and algorithm in stated[1]:
            return bool(stated[0][algorithm] != stated[1][algorithm])
    for algorithm in _STRONGEST_FIRST:
        for checksums, unread in ((stated[0], destination), (stated[1], source)):
            if algorithm in checksums and (hasher := new_hasher(algorithm)) is not None:
                return checksums[algorithm] != _read_through(unread, hasher)
    return _read_through(source, hashlib.sha256()) != _read_through(destination, hashlib.sha256())


def _read_through(location: Location, hasher: Hasher) -> bytes:
    cancel = current_cancel()
    with open_file(location.url, "rb") as file:
        while piece := file.read(_PIECE):
            if cancel is not None:
                cancel.check()  # a local file does not do so
            hasher.update(memoryview(piece))
    return hasher.digest()


def is_changed(before: ObjectInfo, now: ObjectInfo) -> bool:
    """Return whether an object was written to since `before`, which may come from a listing with finer times."""
    if before.size != now.size:
        return True
    if before.etag is not None and now.etag is not None and before.etag.strip('"') != now.etag.strip('"'):
        return True
    if before.mtime is None or now.mtime is None:
        return False
    return math.floor(before.mtime) != math.floor(now.mtime)
