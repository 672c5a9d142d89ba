"""Read parts of many files and objects at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from apyfal.exceptions import IsADirectory
from apyfal.storage import transfer
from apyfal.storage.api import opening
from apyfal.storage.batch.lanes import run_each
from apyfal.storage.batch.many import stat_each
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import Location

__all__ = ["ByteRange", "read_parts"]


class ByteRange(NamedTuple):
    """Bytes `start` to `stop` of a file or object, as in a slice: negative numbers count from its end."""

    location: Location
    start: int | None
    stop: int | None


def read_parts(parts: Sequence[ByteRange]) -> list[bytes | Exception]:
    """Read parts, several at once; return the bytes or the error of each.

    All parts of one object are of one version, since each object is looked up once before its parts are read.
    """
    objects = list(dict.fromkeys(part.location for part in parts if not part.location.is_local))
    infos: dict[Location, ObjectInfo | Exception] = dict(zip(objects, stat_each(objects), strict=True))

    def work(index: int, options: TransferOptions) -> bytes:
        location, start, stop = parts[index]
        info = infos.get(location)
        if isinstance(info, Exception):
            raise info
        if info is None or info.size is None or not info.ranges or info.encoding is not None:
            if info is not None and info.is_directory:
                raise IsADirectory(f"cannot read {str(location)!r}: it is a directory", path=location.shown_path)
            return _read_opened(location, start, stop)
        first, last, _ = slice(start, stop).indices(info.size)
        memory = bytearray(max(0, last - first))
        if memory:
            with resolve(location) as target:
                transfer.download(
                    target.handler,
                    target.path,
                    memoryview(memory),
                    start=first,
                    stop=last,
                    info=info,
                    options=options,
                )
        return bytes(memory)

    return run_each([part.location for part in parts], work, return_exceptions=True)


def _read_opened(location: Location, start: int | None, stop: int | None) -> bytes:
    with opening.open(location.url) as file:
        if start is None and stop is None:
            return bytes(file.read())
        first, last, _ = slice(start, stop).indices(file.seek(0, os.SEEK_END))
        file.seek(first)
        return bytes(file.read(max(0, last - first)))
