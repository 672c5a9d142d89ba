"""Metadata of objects as header fields of Swift (Object Storage API v1 reference)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, content_type_of, http_metadata

__all__ = ["CRC_HEADER", "headers_of", "metadata_from"]

_USER = "X-Object-Meta-"
#: Metadata field with the CRC-64/NVME of the whole object, in hexadecimal.
CRC_HEADER = f"{_USER}Apyfal-Crc64nvme"


def headers_of(metadata: ObjectMetadata | None, path: str) -> list[tuple[str, str]]:
    """Return the header fields that write an object with this metadata; its type from its name, unless it is stated."""
    stated = (metadata or ObjectMetadata()).over(ObjectMetadata(content_type=content_type_of(path)))
    headers = [(field, value) for name, field in HTTP_FIELDS.items() if (value := getattr(stated, name)) is not None]
    return headers + [(f"{_USER}{name}", value) for name, value in (stated.user or {}).items()]


def metadata_from(headers: Mapping[str, str]) -> ObjectMetadata:
    """Return what an answer tells about an object."""
    prefix, own = _USER.lower(), CRC_HEADER.lower()
    user = {name[len(prefix) :]: text for name, text in headers.items() if name.startswith(prefix) and name != own}
    return replace(http_metadata(headers), user=user)
