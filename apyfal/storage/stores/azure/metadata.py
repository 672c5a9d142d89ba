"""Metadata of blobs as header fields of Azure ("Put Blob", "Get Blob Properties", "Get Blob Tags" of its reference)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.http.answers import read_xml
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata

__all__ = ["CRC_METADATA", "headers_of", "metadata_from", "tags_from"]

_USER = "x-ms-meta-"
#: The CRC-64/NVME of a whole blob, kept with it.
CRC_METADATA = "x-ms-meta-apyfal_crc64nvme"
_WRITTEN = {name: f"x-ms-blob-{field}" for name, field in HTTP_FIELDS.items()}
#: "Setting and retrieving properties and metadata": names are identifiers of C#.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def headers_of(metadata: ObjectMetadata) -> list[tuple[str, str]]:
    """Return the header fields that write a blob with what `metadata` states."""
    headers = [(field, value) for name, field in _WRITTEN.items() if (value := getattr(metadata, name)) is not None]
    if metadata.storage_class is not None:
        headers.append(("x-ms-access-tier", metadata.storage_class))
    for name, value in (metadata.user or {}).items():
        if not _NAME.fullmatch(name):
            raise UnsupportedByStore(f"az: metadata cannot be called {name!r}: expected letters, digits and '_'")
        headers.append((f"{_USER}{name}", value))
    if metadata.tags:
        headers.append(("x-ms-tags", urlencode(metadata.tags, quote_via=quote)))
    return headers


def metadata_from(headers: Mapping[str, str]) -> ObjectMetadata:
    """Return what an answer tells about a blob. Tags are left ``None`` if it only tells how many there are."""
    fields: dict[str, Any] = {name: headers.get(field) for name, field in HTTP_FIELDS.items()}
    tier = headers.get("x-ms-access-tier") if "x-ms-access-tier-inferred" not in headers else None
    user = {
        name[len(_USER) :]: value for name, value in headers.items() if name.startswith(_USER) and name != CRC_METADATA
    }
    tags: dict[str, str] | None = {} if headers.get("x-ms-tag-count", "0") == "0" else None
    return ObjectMetadata(**fields, storage_class=tier, user=user, tags=tags)


def tags_from(body: bytes) -> dict[str, str]:
    """Return the tags that an answer to "Get Blob Tags" tells."""
    root = read_xml(body)
    return {tag.findtext("Key") or "": tag.findtext("Value") or "" for tag in root.iterfind("TagSet/Tag")}
