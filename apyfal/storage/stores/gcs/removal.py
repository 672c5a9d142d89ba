"""Removal of many objects by one request ("Sending batch requests" of the Cloud Storage JSON API)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from apyfal.exceptions import StorageError
from apyfal.storage.stores.gcs.json_api import GSJsonHandler
from apyfal.storage.stores.gcs.resources import object_target
from apyfal.storage.stores.request_batch import PartRequest, RequestBatch, is_plain

__all__ = ["GSHandler"]


class GSHandler(GSJsonHandler):
    """Google Cloud Storage by its JSON API, with batches; its parameters are those of `GSJsonHandler`."""

    #: Calls of a batch ("Sending batch requests": at most 100).
    most_removed: ClassVar[int] = 100
    tells_missing: ClassVar[bool] = True

    def can_remove_together(self, path: str) -> bool:
        """Return whether an object can be removed by a batch."""
        return is_plain(path)

    def remove_together(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Remove objects of one bucket by one batch with one token; return the errors by path."""
        bucket = paths[0].partition("/")[0]
        batch = RequestBatch(PartRequest("DELETE", object_target(path)) for path in paths)
        headers = [("Content-Type", batch.content_type)]
        what = "remove objects of"
        answer = self._send("POST", "/batch/storage/v1", bucket, what, headers=headers, body=(batch.body,))
        return self._refusals(batch.responses(answer), paths, bucket, what, removed=(200, 204))
