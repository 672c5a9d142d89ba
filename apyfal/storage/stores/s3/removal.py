"""Remove many objects with one request (S3 API reference, DeleteObjects)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from apyfal.exceptions import StorageError, StoreUnavailable
from apyfal.storage.checksums import crc_function, digest_bytes
from apyfal.storage.stores.s3.client import S3Client, code_error
from apyfal.storage.stores.s3.xml import parse_root, text_of

__all__ = ["MOST_REMOVED", "can_be_listed", "remove_together"]

#: Most keys of one request (S3 API reference).
MOST_REMOVED = 1000
#: Characters that an XML 1.0 document cannot contain, or that a parser changes.
_NOT_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def can_be_listed(key: str) -> bool:
    """Return whether an XML document can contain this key."""
    return bool(key) and not _NOT_XML.search(key)


def remove_together(s3: S3Client, bucket: str, keys: Sequence[str], checksum: str | None) -> dict[str, StorageError]:
    """Remove objects of one bucket with one attempt.

    Parameters
    ----------
    s3, bucket
        The store and the bucket.
    keys
        At most `MOST_REMOVED` keys, for each of which `can_be_listed` is true; none twice.
    checksum
        Algorithm of the checksum that the store requires for requests; ``None``: only the MD5.

    Returns
    -------
    dict
        The errors, by key, of objects whose removal the store does not confirm.

    Raises
    ------
    StoreUnavailable
        The response is damaged, or has keys that were not requested.
    StorageError
        The request was refused as a whole.
    """
    listed = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{listed}</Delete>'.encode()
    headers = {
        "content-type": "application/xml",
        "content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
    }
    if checksum is not None and (crc := crc_function(checksum)) is not None:
        value = digest_bytes(checksum, crc(memoryview(body), 0))
        headers[f"x-amz-checksum-{checksum}"] = base64.b64encode(value).decode()
    response = s3.request("POST", bucket, {"delete": ""}, headers, (memoryview(body),), what="remove objects of")
    root = parse_root(response.read(4 << 20))
    if root.tag == "Error":
        raise code_error(text_of(root, "Code"), text_of(root, "Message"), bucket, "remove objects of")
    if root.tag != "DeleteResult":
        raise StoreUnavailable(f"cannot remove objects of {bucket!r}: the store answered with <{root.tag}>")
    asked = set(keys)
    missing = dict.fromkeys(keys)
    errors: dict[str, StorageError] = {}
    for item in root:
        key = item.findtext("Key") or ""
        if item.tag not in ("Deleted", "Error"):
            continue
        if key not in asked:
            raise StoreUnavailable(
                f"cannot remove objects of {bucket!r}: the store's response names {key!r}, which was not requested"
            )
        if item.tag == "Error":
            errors[key] = code_error(text_of(item, "Code"), text_of(item, "Message"), f"{bucket}/{key}", "remove")
        missing.pop(key, None)
    for key in missing:
        path = f"{bucket}/{key}"
        errors[key] = StoreUnavailable(f"cannot remove {path!r}: the store does not say that it did", path=path)
    return errors
