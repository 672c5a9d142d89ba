"""The transfer engine: every byte between a store and memory moves through here.

A handler (`apyfal.storage.handler`) makes single attempts; this engine makes them a transfer. Parallel ranges land at
their final address, all of one version; breaks are resumed in mid-body; checksums are computed while the bytes are in
the cache; nothing written is visible before it is complete. Everything public is importable from here.
"""

from __future__ import annotations

from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.transfer.download import Allocate, download
from apyfal.storage.transfer.multipart import MultipartWriter
from apyfal.storage.transfer.object_copy import copy
from apyfal.storage.transfer.reader import ObjectStream, stream
from apyfal.storage.transfer.upload import upload

__all__ = [
    "Allocate",
    "CancelToken",
    "MultipartWriter",
    "ObjectStream",
    "Progress",
    "TransferOptions",
    "copy",
    "current_cancel",
    "download",
    "retry_call",
    "stream",
    "upload",
]
