"""Objects and their metadata as S3's header fields (S3 API reference, PutObject, HeadObject, CopyObject)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree.ElementTree import Element

from apyfal.storage.handler import ObjectInfo
from apyfal.storage.http.status import decode_base64, http_date, strong_etag
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, content_type_of
from apyfal.storage.stores.s3.client import S3Client
from apyfal.storage.stores.s3.xml import tagging_body

__all__ = [
    "ENCRYPTION_HEADERS",
    "headers_of",
    "kept_headers",
    "metadata_from",
    "object_info",
    "tags_from",
    "write_tags",
]

#: Algorithm to the header that states it.
_CHECKSUMS = {name: f"x-amz-checksum-{name}" for name in ("crc64nvme", "crc32c", "crc32", "sha1", "sha256")}
_USER = "x-amz-meta-"
_OTHERS = {
    "storage_class": "x-amz-storage-class",
    "acl": "x-amz-acl",
    "encryption": "x-amz-server-side-encryption",
    "encryption_key": "x-amz-server-side-encryption-aws-kms-key-id",
}
#: What an answer may tell: no answer tells the access rule.
_TOLD = tuple((name, field) for name, field in {**HTTP_FIELDS, **_OTHERS}.items() if name != "acl")
ENCRYPTION_HEADERS = (_OTHERS["encryption"], _OTHERS["encryption_key"])


def headers_of(metadata: ObjectMetadata | None, path: str) -> dict[str, str]:
    """Return the header fields that write an object with this metadata; its type from its name, unless it is stated."""
    headers = {"content-type": content_type_of(path)}
    if metadata is None:
        return headers
    for name, field in {**HTTP_FIELDS, **_OTHERS}.items():
        if (value := getattr(metadata, name)) is not None:
            headers[field] = value
    headers |= {f"{_USER}{name}": value for name, value in (metadata.user or {}).items()}
    if metadata.tags:
        headers["x-amz-tagging"] = urlencode(metadata.tags, quote_via=quote)
    return headers


def kept_headers(metadata: ObjectMetadata | None) -> dict[str, str]:
    """Return the header fields for what CopyObject itself does not keep: storage class, and a key of its own.

    The access rule is not among them: no answer tells it, and a bucket may not allow any.
    """
    if metadata is None:
        return {}
    kept = {}
    if metadata.storage_class is not None:
        kept[_OTHERS["storage_class"]] = metadata.storage_class
    if (metadata.encryption or "").startswith("aws:kms"):
        kept[_OTHERS["encryption"]] = metadata.encryption or ""
        if metadata.encryption_key is not None:
            kept[_OTHERS["encryption_key"]] = metadata.encryption_key
    return kept


def metadata_from(headers: Mapping[str, str]) -> ObjectMetadata:
    """Return what an answer tells about an object. Tags are left ``None`` if it only tells how many there are."""
    fields: dict[str, Any] = {name: headers[field] for name, field in _TOLD if field in headers}
    fields["user"] = {name[len(_USER) :]: headers[name] for name in headers if name.startswith(_USER)}
    fields["tags"] = {} if headers.get("x-amz-tagging-count", "0") == "0" else None
    return ObjectMetadata(**fields)


def object_info(path: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Describe an object by the headers of an answer, all but its size.

    The Content-Encoding is left out: to S3 it is a remark of whoever wrote the object, and what is stored and delivered
    are the same bytes.
    """
    checksums = {}
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
        for algorithm, name in _CHECKSUMS.items():
            text = headers.get(name)
            if text is not None and (value := decode_base64(text)) is not None:
                checksums[algorithm] = value
    return ObjectInfo(
        path,
        None,
        strong_etag(headers.get("etag")),
        http_date(headers.get("last-modified")),
        checksums,
        version=headers.get("x-amz-version-id"),
        metadata=metadata_from(headers),
    )


def write_tags(client: S3Client, path: str, tags: Mapping[str, str] | None) -> None:
    """Give an object its tags, where a store takes none when a copy or an upload in parts begins (Ceph).

    A store that took them is asked for the same again. AWS is not asked: it takes them.
    """
    if tags and not client.aws:
        body = tagging_body(tags)
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
        headers = {"content-md5": md5, "content-type": "application/xml"}
        client.request("PUT", path, {"tagging": ""}, headers, (memoryview(body),), what="write the tags of").close()


def tags_from(root: Element) -> dict[str, str]:
    """Return the tags that a GetObjectTagging document tells."""
    return {tag.findtext("Key") or "": tag.findtext("Value") or "" for tag in root.iterfind("TagSet/Tag")}
