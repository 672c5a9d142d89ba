"""Metadata of objects as S3's header fields (S3 API reference, PutObject, HeadObject, CopyObject)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree.ElementTree import Element

from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, content_type_of
from apyfal.storage.stores.s3.client import S3Client
from apyfal.storage.stores.s3.xml import tagging_body

__all__ = ["ENCRYPTION_HEADERS", "headers_of", "kept_headers", "metadata_from", "tags_from", "write_tags"]

_USER = "x-amz-meta-"
_OTHERS = {
    "storage_class": "x-amz-storage-class",
    "acl": "x-amz-acl",
    "encryption": "x-amz-server-side-encryption",
    "encryption_key": "x-amz-server-side-encryption-aws-kms-key-id",
}
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
    fields: dict[str, Any] = {
        name: headers.get(field) for name, field in {**HTTP_FIELDS, **_OTHERS}.items() if name != "acl"
    }
    user = {name[len(_USER) :]: value for name, value in headers.items() if name.startswith(_USER)}
    tags: dict[str, str] | None = {} if headers.get("x-amz-tagging-count", "0") == "0" else None
    return ObjectMetadata(**fields, user=user, tags=tags)


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
