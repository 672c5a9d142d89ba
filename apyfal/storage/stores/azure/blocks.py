"""Blobs written in blocks, as Azure has it."""

from __future__ import annotations

import base64
import threading
import uuid

from apyfal.exceptions import ObjectExists, StorageError
from apyfal.storage.handler import ObjectInfo, Upload
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.stores.azure.client import AzureBlobs

__all__ = ["BlockUpload"]


class BlockUpload(Upload):
    """One blob being written in blocks. Their ids begin with the upload's, so that two uploads never mix."""

    def __init__(self, blobs: AzureBlobs, path: str, exclusive: bool, metadata: ObjectMetadata | None) -> None:
        self._blobs = blobs
        self._metadata = metadata
        self._path = path
        self._exclusive = exclusive
        self._id = uuid.uuid4().hex[:16]
        self._lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        self._tried = False

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Send one block."""
        self._blobs.put_block(self._path, self._block(number), data, checksum)
        with self._lock:
            self._sizes[number] = len(data)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Commit the blocks in their order."""
        total = sum(self._sizes.values())
        if total != size:
            raise StorageError(f"cannot write {self._path!r}: {total} bytes were sent of {size}", path=self._path)
        blocks = [self._block(number) for number in sorted(self._sizes)]
        again, self._tried = self._tried, True
        try:
            return self._blobs.commit(
                self._path, blocks, size, checksum, exclusive=self._exclusive, metadata=self._metadata
            )
        except ObjectExists:
            if again and self._blobs.committed(self._path) == blocks:
                return self._blobs.describe(self._path)
            raise

    def abort(self) -> None:
        """Forget the blocks; Azure deletes them."""
        with self._lock:
            self._sizes.clear()

    def _block(self, number: int) -> str:
        # All ids of a blob must have one length ("Put Block").
        return base64.b64encode(f"{self._id}{number:08d}".encode()).decode()
