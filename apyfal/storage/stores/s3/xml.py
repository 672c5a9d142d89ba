"""The XML that S3 speaks."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from apyfal.exceptions import StoreUnavailable
from apyfal.storage.http.answers import read_xml
from apyfal.units import whole_number

__all__ = [
    "Listing",
    "S3Error",
    "complete_body",
    "etag_of",
    "parse_buckets",
    "parse_error",
    "parse_listing",
    "parse_root",
    "tagging_body",
    "text_of",
]


class S3Error(NamedTuple):
    """What an ``<Error>`` document says."""

    code: str | None
    message: str | None
    request_id: str | None
    region: str | None
    server_time: str | None


class Listing(NamedTuple):
    """One page of a listing: (key, size, ETag, seconds since the epoch), prefixes, and how to get the next page.

    Attributes
    ----------
    truncated
        There is another page.
    continuation, marker
        The token by which version 2 of the request goes on, and the name behind which version 1 does, if stated.
    """

    objects: list[tuple[str, int | None, str | None, float | None]]
    prefixes: list[str]
    truncated: bool
    continuation: str | None
    marker: str | None


def parse_root(body: bytes) -> Element:
    """Parse a document and drop its namespaces; `StoreUnavailable` when it is damaged."""
    root = read_xml(body)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text_of(root: Element, name: str) -> str | None:
    """Return the text of a child, or ``None``."""
    return root.findtext(name) or None


def etag_of(root: Element) -> str | None:
    """Return the ETag that a document names, as headers have it; ``None`` where Ceph states an empty one."""
    text = root.findtext("ETag")
    return f'"{text}"' if text and not text.startswith(('"', "W/")) else text or None


def tagging_body(tags: Mapping[str, str]) -> bytes:
    """Return the document of PutObjectTagging."""
    items = "".join(f"<Tag><Key>{escape(key)}</Key><Value>{escape(text)}</Value></Tag>" for key, text in tags.items())
    return f"<Tagging><TagSet>{items}</TagSet></Tagging>".encode()


def parse_error(body: bytes) -> S3Error:
    """Parse an ``<Error>`` document; anything else gives an empty one."""
    try:
        root = parse_root(body)
    except StoreUnavailable:
        return S3Error(None, None, None, None, None)
    if root.tag != "Error":
        found = root.find(".//Error")
        if found is None:
            return S3Error(None, None, None, None, None)
        root = found
    return S3Error(
        text_of(root, "Code"),
        text_of(root, "Message"),
        text_of(root, "RequestId"),
        text_of(root, "Region"),
        text_of(root, "ServerTime"),
    )


def parse_listing(body: bytes) -> Listing:
    """Parse a response to ListObjects, version 1 or 2, with ``encoding-type=url``.

    Raises
    ------
    StoreUnavailable
        It is damaged, or holds fewer names than it says.
    """
    root = parse_root(body)
    if root.tag != "ListBucketResult":
        raise StoreUnavailable(f"expected a listing, the store answered with <{root.tag}>")
    decode = _decoded if root.findtext("EncodingType") == "url" else str
    objects = [
        (
            decode(item.findtext("Key") or ""),
            whole_number(item.findtext("Size") or ""),
            etag_of(item),
            _seconds(item.findtext("LastModified")),
        )
        for item in root.iter("Contents")
    ]
    prefixes = [decode(item.findtext("Prefix") or "") for item in root.iter("CommonPrefixes")]
    stated, found = root.findtext("KeyCount") or "", len(objects) + len(prefixes)
    if (whole_number(stated) or 0) > found:
        raise StoreUnavailable(f"a listing says that it holds {stated} names, and holds {found}")
    continuation = root.findtext("NextContinuationToken") or None
    marker = root.findtext("NextMarker") or None
    flag = (root.findtext("IsTruncated") or "").strip().lower()
    if flag not in ("", "true", "false"):
        raise StoreUnavailable(f"a listing's IsTruncated is {flag[:20]!r}; expected true or false")
    # A response with a token to continue has more, whatever the flag is. One with neither has more if the page is full.
    full = not flag and found >= (whole_number(root.findtext("MaxKeys") or "") or 1000)
    truncated = bool(continuation or marker) or flag == "true" or full
    return Listing(objects, prefixes, truncated, continuation, decode(marker) if marker else None)


def parse_buckets(body: bytes) -> tuple[list[tuple[str, float | None]], str | None]:
    """Parse a response to ListBuckets: names and times, and the token of the next page if there is one."""
    root = parse_root(body)
    if root.tag != "ListAllMyBucketsResult":
        raise StoreUnavailable(f"expected a list of buckets, the store answered with <{root.tag}>")
    found = [(item.findtext("Name") or "", _seconds(item.findtext("CreationDate"))) for item in root.iter("Bucket")]
    return found, root.findtext("ContinuationToken") or None


def complete_body(parts: Iterable[tuple[int, str, Mapping[str, str]]]) -> bytes:
    """Return the body of a CompleteMultipartUpload request: number, ETag and checksum elements of each part."""
    lines = ["<CompleteMultipartUpload>"]
    for number, etag, checksums in parts:
        extra = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in checksums.items())
        lines.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag>{extra}</Part>")
    lines.append("</CompleteMultipartUpload>")
    return "".join(lines).encode()


def _decoded(text: str) -> str:
    """Decode a name of a listing with ``encoding-type=url``.

    Raises
    ------
    StoreUnavailable
        The name is not encoded, although the store says so, or it is not UTF-8: it would become another name.
    """
    try:
        if not ("%" in text or "+" in text) or (text.isascii() and " " not in text):
            return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise StoreUnavailable(f"a listing holds {text[:200]!r}, which is not UTF-8") from None
    raise StoreUnavailable(f"a listing holds {text[:200]!r}, which is not encoded as the store says")


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
