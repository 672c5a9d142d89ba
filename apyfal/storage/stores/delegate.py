"""A handler that stands for another one, chosen when it is mounted."""

from __future__ import annotations

from collections.abc import Iterator

from apyfal.storage.handler import Handler, ObjectInfo, RangeReader, Upload
from apyfal.storage.http.pool import ConnectionPool

__all__ = ["Delegate"]


class Delegate(Handler):
    """Passes everything on to the handler of the protocol that the credentials are for.

    Parameters
    ----------
    store
        That handler.
    client
        Its connections.
    """

    def __init__(self, store: Handler, client: ConnectionPool) -> None:
        self._store = store
        self.client = client
        self.limits = store.limits

    def describe(self, path: str) -> ObjectInfo:
        """Look an object up."""
        return self._store.describe(path)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range."""
        return self._store.read(path, start, stop, version_of)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole object."""
        return self._store.put(path, data, checksum, exclusive=exclusive)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        """Begin an upload in parts."""
        return self._store.upload(path, size=size, exclusive=exclusive)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Copy inside the store."""
        return self._store.copy(source, destination)

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._store.remove(path)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List what is below a path."""
        return self._store.list(path, recursive=recursive)

    def makedirs(self, path: str) -> None:
        """Make a bucket."""
        self._store.makedirs(path)

    def close(self) -> None:
        """Close idle connections."""
        self._store.close()
