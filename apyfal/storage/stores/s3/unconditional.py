"""S3's protocol without its conditions: stores that would overwrite where ``If-None-Match`` asks them not to."""

from __future__ import annotations

from typing import ClassVar

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.stores.s3.multipart import S3Upload

__all__ = ["UnconditionalS3Handler"]


class UnconditionalS3Handler(S3Handler):
    """An S3 handler that writes nothing exclusively; its parameters are those of `S3Handler`.

    Attributes
    ----------
    why_not_exclusive
        Ends the error for an exclusive write.
    """

    why_not_exclusive: ClassVar[str]

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole object."""
        self._check(path, exclusive)
        return super().put(path, data, checksum)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> S3Upload:
        """Begin an upload in parts."""
        self._check(path, exclusive)
        return super().upload(path, size=size)

    def _check(self, path: str, exclusive: bool) -> None:
        if exclusive:
            raise UnsupportedByStore(f"cannot write {path!r} exclusively: {self.why_not_exclusive}", path=path)
