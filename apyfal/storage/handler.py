"""What a store must offer. All handlers implement these two classes; the transfer engine does everything else.

A handler knows one store's protocol and nothing about buffers, threads, retries, verification or limits. Those live
once, in `apyfal.storage.transfer`. Every method is called from several threads at once, makes one attempt, and raises
an error from `apyfal.exceptions`; `StoreUnavailable` and `TransferTimeout` mean that another attempt may succeed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import ClassVar, Protocol, runtime_checkable

from apyfal.exceptions import StorageError, UnsupportedByStore
from apyfal.log import redact_web_path
from apyfal.storage.metadata import ObjectMetadata

__all__ = [
    "BulkRemoval",
    "Handler",
    "Limits",
    "MetadataHandler",
    "ObjectInfo",
    "RangeReader",
    "Upload",
]


@dataclass(frozen=True, slots=True, repr=False)
class ObjectInfo:
    """One version of one object, as its store describes it.

    Attributes
    ----------
    path
        The object's path inside the store, as given to the handler (``bucket/key``), without scheme and query.
    size
        Bytes, or ``None`` if the store does not say (a chunked web page).
    etag
        A strong validator, quoted as the store sent it; ``None`` when there is none or it is weak.
    mtime
        Seconds since the epoch, or ``None``.
    checksums
        Of the whole object: algorithm name in lower case (``crc64nvme``, ``crc32c``, ``md5``) to raw bytes.
    ranges
        Whether a part of the object can be read.
    encoding
        Content-Encoding, if the stored bytes are not the content. These objects are never resumed by byte.
    version
        The version id, if the store keeps versions.
    is_directory
        A directory or common prefix: no content.
    metadata
        Content type and the like, as far as the response states it; ``None`` if it states nothing (a listing).
    """

    path: str
    size: int | None
    etag: str | None = None
    mtime: float | None = None
    checksums: Mapping[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    encoding: str | None = None
    version: str | None = None
    is_directory: bool = False
    metadata: ObjectMetadata | None = None

    def __repr__(self) -> str:
        """Show all of it, but no user, password or query of a web address."""
        host = self.path.partition("/")[0]
        path = redact_web_path(self.path) if "." in host or ":" in host else self.path
        values = {one.name: getattr(self, one.name) for one in fields(self)} | {"path": path}
        return f"ObjectInfo({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def of_size(self, size: int | None, ranges: bool) -> ObjectInfo:
        """Return the same with another size; a quarter of what `dataclasses.replace` costs, once for every object."""
        return ObjectInfo(
            self.path,
            size,
            self.etag,
            self.mtime,
            self.checksums,
            ranges,
            self.encoding,
            self.version,
            self.is_directory,
            self.metadata,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store allows in a multipart upload and in one request (bytes, counts)."""

    min_part: int = 5 << 20
    max_part: int = 5 << 30
    max_parts: int = 10_000
    max_put: int = 5 << 30
    max_copy: int | None = None  # of an object that the store copies in one request (`Handler.copy`); None: any
    max_copied_part: int = 0  # of a part that the store copies itself (`Upload.copy_part`); 0: it cannot
    checksum: str | None = None  # algorithm that parts carry when written, or None
    whole: bool = False  # an object is always one request, so data in memory is sent from there at any size


class RangeReader(ABC):
    """The body of one range request, being received."""

    #: the object as this response described it (a plain GET may be the first thing known about an object)
    info: ObjectInfo

    @abstractmethod
    def readinto(self, out: memoryview) -> int:
        """Receive up to ``len(out)`` bytes at their final address; 0 only at the end of the body as it was framed.

        A body that ends before its framing says so, a reset and a stall raise `StoreUnavailable` or `TransferTimeout`.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise. Never raises."""

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Upload(ABC):
    """One object being written in parts. Nothing is visible in the store before `complete` returns."""

    @abstractmethod
    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Send part `number` (from 1) from the caller's memory; the same number again replaces it.

        `checksum` is the part's, in the algorithm of `Handler.limits`.
        """

    def copy_part(self, number: int, source: ObjectInfo, start: int, stop: int) -> bytes | None:
        """Let the store make part `number` of bytes `start` to `stop` of an object it has, and only of that version.

        Returns the part's checksum, in the algorithm of `Handler.limits`, where the store tells it. Only where
        `Limits.max_copied_part` is not 0.
        """
        raise UnsupportedByStore(f"cannot make a part of {source.path!r}: this store copies whole objects only")

    @abstractmethod
    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Make the object visible; `size` and `checksum` are of the whole. Asked again after a lost response."""

    @abstractmethod
    def abort(self) -> None:
        """Remove every trace of the parts. Idempotent."""


class Handler(ABC):
    """One mounted store."""

    #: canonical scheme, and other names for it
    scheme: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    limits: Limits = Limits()
    #: whether an object is opened by reading it, because this store's look-ups may say less than its reads, or nothing
    opens_by_reading: ClassVar[bool] = False

    #: what the mount allows all its transfers together; ``None``: no limit. Bytes a second, bytes, connections.
    bandwidth: float | None = None
    memory_limit: int | None = None
    max_concurrency: int | None = None

    # -- read ---------------------------------------------------------------------------------------------------------
    @abstractmethod
    def describe(self, path: str) -> ObjectInfo:
        """Look an object up. Raises `ObjectNotFound`, `AccessDenied`, ..."""

    def describe_version(self, path: str, version: str | None) -> ObjectInfo:
        """Look one version of an object up, which `read` then reads; ``None``: the current one."""
        if version is None:
            return self.describe(path)
        raise UnsupportedByStore(f"{self.scheme}: cannot read a version of {path!r}: this store tells no versions")

    @abstractmethod
    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive bytes ``start`` to ``stop`` (exclusive; ``None``: to the end) of `path`.

        With `version_of`, of that version only (If-Match or the like): `ObjectChanged` otherwise. The response has been
        validated when this returns: status, Content-Range, ETag. A store without ranges may be asked for 0 to
        ``None`` only.
        """

    # -- write --------------------------------------------------------------------------------------------------------
    def require_writable(self, path: str) -> None:
        """Raise `UnsupportedByStore` if nobody can write there. Called before any data is made or sent."""
        if type(self).put is Handler.put:
            shown = self.shown(path)
            raise UnsupportedByStore(f"cannot write {shown!r}: this store is read-only", path=shown)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole object in one request, from the caller's memory."""
        raise UnsupportedByStore(f"{self.scheme}: cannot write {self.shown(path)!r}: this store is read-only")

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        """Begin an upload in parts. `size` is ``None`` for a stream of unknown length."""
        raise UnsupportedByStore(f"{self.scheme}: cannot write {self.shown(path)!r}: this store is read-only")

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Copy inside this store, by the store itself. `UnsupportedByStore` makes the engine stream instead."""
        raise UnsupportedByStore(f"{self.scheme}: no server-side copy")

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove one object; `ObjectNotFound` when there is none."""
        raise UnsupportedByStore(f"{self.scheme}: cannot remove {self.shown(path)!r}")

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """What is below `path`: objects, and (unless `recursive`) directories or common prefixes."""
        raise UnsupportedByStore(f"{self.scheme}: cannot list {self.shown(path)!r}")

    def makedirs(self, path: str) -> None:  # most stores have no directories to make
        """Make a directory or bucket, with its parents. Do nothing if the store has no directories, or if it exists."""

    def shown(self, path: str) -> str:
        """Return a path as messages and logs may show it: without passwords and signatures."""
        return path

    def rmdir(self, path: str) -> None:
        """Remove an empty directory, in stores that have real ones."""
        raise UnsupportedByStore(f"{self.scheme}: cannot remove the directory {path!r}")

    def path_of(self, url: str) -> str | None:
        """Give the path in this store of the object at a full web address; ``None`` if it is not of this store."""
        return None

    def sign(self, path: str, method: str, seconds: int) -> str:
        """Give a web address by which whoever has it can send a request of `method` on one object for some time."""
        raise UnsupportedByStore(f"{self.scheme}: cannot sign {self.shown(path)!r}: this store has no signed addresses")

    def close(self) -> None:  # not every store keeps connections
        """Close idle connections; the handler can be used again."""


@runtime_checkable
class BulkRemoval(Protocol):
    """A mounted store that removes many objects with one request.

    Attributes
    ----------
    most_removed
        Most objects of one request.
    tells_missing
        Whether `remove_together` gives an `ObjectNotFound` for an object that does not exist. If not, objects are
        looked up first.
    """

    most_removed: ClassVar[int]
    tells_missing: ClassVar[bool]

    @abstractmethod
    def can_remove_together(self, path: str) -> bool:
        """Return whether an object can be removed in this way."""

    @abstractmethod
    def remove_together(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Remove objects of one bucket or container, whether they exist or not, with one attempt.

        Returns the errors, by path, of objects that are not removed or not known to be. Raises `StoreUnavailable` or
        `TransferTimeout` if nothing is known, and another `StorageError` if the store refuses the whole request.
        """


class MetadataHandler(Handler):
    """A mounted store that keeps metadata of objects: what writes takes it, and `ObjectInfo.metadata` tells it.

    A field that is stated and that the store cannot keep raises `UnsupportedByStore`
    (`apyfal.storage.metadata.require_fields`). What is not stated is the store's to choose, but for the content type,
    which then follows from the object's name (`apyfal.storage.metadata.content_type_of`).
    """

    #: names of the fields of `ObjectMetadata` that the store keeps
    metadata_fields: ClassVar[Collection[str]] = ()

    def metadata_of(self, info: ObjectInfo) -> ObjectMetadata | None:
        """Tell everything that has to be written again with an object's bytes, tags included; may ask the store."""
        return info.metadata

    def put(
        self,
        path: str,
        data: memoryview,
        checksum: bytes | None,
        *,
        exclusive: bool = False,
        metadata: ObjectMetadata | None = None,
    ) -> ObjectInfo:
        """Write a whole object in one request, with this metadata."""
        return super().put(path, data, checksum, exclusive=exclusive)

    def upload(
        self, path: str, *, size: int | None, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> Upload:
        """Begin an upload in parts, of an object with this metadata."""
        return super().upload(path, size=size, exclusive=exclusive)

    def copy(self, source: ObjectInfo, destination: str, *, metadata: ObjectMetadata | None = None) -> ObjectInfo:
        """Copy inside this store, with the metadata of `source` but for the fields that `metadata` states."""
        return super().copy(source, destination)
