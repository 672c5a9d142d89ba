"""The transfer engine: every byte between a store and memory moves through here.

A handler (`apyfal.storage.handler`) makes single attempts; this engine makes them a transfer. Parallel ranges land at
their final address, all of one version; breaks are resumed in mid-body; checksums are computed while the bytes are in
the cache; nothing written is visible before it is complete. Everything public is importable from here.
"""

from __future__ import annotations

from apyfal.storage.cancel import Cancel, current_cancel
from apyfal.storage.copying import copy
from apyfal.storage.download import Allocate, download
from apyfal.storage.options import Progress, TransferOptions
from apyfal.storage.retry import call
from apyfal.storage.streams import Stream, stream
from apyfal.storage.upload import upload
from apyfal.storage.upload_stream import UploadStream

__all__ = [
    "Allocate",
    "Cancel",
    "Progress",
    "Stream",
    "TransferOptions",
    "UploadStream",
    "call",
    "copy",
    "current_cancel",
    "download",
    "stream",
    "upload",
]
