"""Objects and buckets as resources of Google's JSON API: their targets, what is written of them, what they tell."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from apyfal.exceptions import ChecksumMismatch, ObjectExists
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.http.answers import understood
from apyfal.storage.http.status import decode_base64
from apyfal.storage.metadata import ObjectMetadata, content_type_of
from apyfal.storage.stores.rest import iso_time

__all__ = [
    "bucket_target",
    "checked",
    "conditions_of",
    "described",
    "etag_of",
    "exists_error",
    "object_target",
    "quoted_name",
    "resource_of",
]

#: Fields of metadata by their name in an object resource.
_RESOURCE = {
    "content_type": "contentType",
    "content_encoding": "contentEncoding",
    "content_disposition": "contentDisposition",
    "content_language": "contentLanguage",
    "cache_control": "cacheControl",
    "storage_class": "storageClass",
    "user": "metadata",
}


def quoted_name(name: str) -> str:
    """Percent-encode a name, slashes included."""
    return quote(name, safe="-_.~")


def bucket_target(bucket: str) -> str:
    """Return the request target of a bucket."""
    return f"/storage/v1/b/{quoted_name(bucket)}"


def object_target(path: str) -> str:
    """Return the request target of an object."""
    bucket, _, key = path.partition("/")
    return f"{bucket_target(bucket)}/o/{quoted_name(key)}"


def etag_of(generation: str | None) -> str | None:
    """Return the validator of a generation."""
    # The ETags of metadata and of content are different texts in this API; the generation is what it goes by.
    return None if generation is None else f'"{generation}"'


def resource_of(metadata: ObjectMetadata | None, path: str) -> dict[str, Any]:
    """Return the object resource that writes this metadata; its type from its name, unless it is stated."""
    resource: dict[str, Any] = {"contentType": content_type_of(path)}
    for name, field in _RESOURCE.items():
        if metadata is not None and getattr(metadata, name):
            resource[field] = dict(metadata.user or {}) if name == "user" else getattr(metadata, name)
    return resource


def conditions_of(
    metadata: ObjectMetadata | None, exclusive: bool, *, acl: str = "predefinedAcl", key: str = "kmsKeyName"
) -> dict[str, str]:
    """Return what is said of a written object in the query: whether it may exist, its access rule, its key."""
    query = {"ifGenerationMatch": "0"} if exclusive else {}
    if metadata is not None and metadata.acl is not None:
        query[acl] = metadata.acl
    if metadata is not None and metadata.encryption_key is not None:
        query[key] = metadata.encryption_key
    return query


def _metadata(found: dict[str, Any]) -> ObjectMetadata:
    fields: dict[str, Any] = {name: found.get(field) for name, field in _RESOURCE.items()}
    return ObjectMetadata(**{**fields, "user": found.get("metadata") or {}}, encryption_key=found.get("kmsKeyName"))


def described(found: dict[str, Any], path: str) -> ObjectInfo:
    """Describe an object by its resource."""
    with understood("look up", path):
        stated = {"crc32c": found.get("crc32c"), "md5": found.get("md5Hash")}
        checksums = {
            name: digest for name, text in stated.items() if text and (digest := decode_base64(text)) is not None
        }
        return ObjectInfo(
            path,
            int(found["size"]) if "size" in found else None,
            etag_of(found.get("generation")),
            iso_time(found.get("updated")),
            checksums,
            version=found.get("generation"),
            metadata=_metadata(found),
        )


def checked(info: ObjectInfo, checksum: bytes | None) -> ObjectInfo:
    """Return `info`; `ChecksumMismatch` if it states another CRC-32C than `checksum`."""
    if checksum is not None and info.checksums.get("crc32c", checksum) != checksum:
        raise ChecksumMismatch(f"cannot write {info.path!r}: the store has other bytes than were sent", path=info.path)
    return info


def exists_error(path: str) -> ObjectExists:
    """Return the error for an exclusive write to a name that is taken."""
    return ObjectExists(f"cannot write {path!r}: it exists", path=path, status=412)
