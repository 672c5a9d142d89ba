"""Addresses that a store has signed: which kind of signature it is, and what a PUT by one has to carry.

An address says no more than its query. The fields of the header that a signature covers must be sent as they were
signed; fields that it does not cover may be sent only where the scheme of the signature leaves them out of what is
signed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from apyfal.exceptions import ParameterError, UnsupportedByStore
from apyfal.storage.metadata import content_type_of

__all__ = ["SignedAddress"]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Scheme:
    """One way to sign an address.

    Attributes
    ----------
    name
        For messages.
    marks
        Names of the query's parameters, in lower case, that together tell this scheme.
    covered
        The parameter that lists the fields that the signature covers, ``;`` between them.
    max_put
        Bytes that the store takes in one request.
    content_type
        Whether a type that the signature does not cover may be sent.
    digest
        Field by which the store compares the MD5 of what it receives, in base64 (``Content-MD5``) or hexadecimal
        (``ETag``); none where the scheme would count it as signed.
    required
        Fields that every PUT needs.
    exclusive
        Whether ``If-None-Match: *`` is certain to be obeyed.
    """

    name: str
    marks: tuple[str, ...]
    covered: str | None = None
    max_put: int = 5 * _GIB
    content_type: bool = False
    digest: str | None = None
    required: tuple[tuple[str, str], ...] = ()
    exclusive: bool = False


#: In this order: the older schemes of three stores have ``Signature`` and ``Expires`` in common, so that the name of
#: the key tells them apart. Limits: "PutObject" (S3, OSS), "Quotas" (Cloud Storage), "Put Blob" from version
#: 2019-12-12 on (Azure), "max_file_size" (Swift). Version 2 of AWS's and Google's schemes and version 1 of Alibaba's
#: have Content-MD5 and Content-Type, sent or not, among what is signed.
_SCHEMES = (
    _Scheme(
        "S3 (signature version 4)",
        ("x-amz-signature", "x-amz-credential"),
        covered="x-amz-signedheaders",
        content_type=True,
        digest="content-md5",
    ),
    _Scheme("S3 (signature version 2)", ("signature", "awsaccesskeyid")),
    _Scheme(
        "Google Cloud Storage (version 4)",
        ("x-goog-signature", "x-goog-credential"),
        covered="x-goog-signedheaders",
        max_put=5 << 40,
        digest="content-md5",
    ),
    _Scheme("Google Cloud Storage (version 2)", ("signature", "googleaccessid"), max_put=5 << 40),
    _Scheme("Alibaba Cloud OSS (version 1)", ("signature", "ossaccesskeyid")),
    _Scheme(
        "Alibaba Cloud OSS (version 4)", ("x-oss-signature", "x-oss-credential"), covered="x-oss-additional-headers"
    ),
    _Scheme("Swift", ("temp_url_sig", "temp_url_expires"), digest="etag"),
    _Scheme(
        "Azure",
        ("sig", "sv"),
        max_put=5000 << 20,
        content_type=True,
        digest="content-md5",
        required=(("x-ms-blob-type", "BlockBlob"),),
        exclusive=True,
    ),
)
#: Sent with every request, so that it does not matter who signed them.
_ALWAYS_SENT = ("host", "content-length")


class SignedAddress:
    """A signed address that an object can be written by, in one request.

    Parameters
    ----------
    target
        Path and query, as they are sent.
    shown
        The address without its signature, for messages.

    Raises
    ------
    UnsupportedByStore
        The address has no signature that is known, or one that does not allow to write.
    """

    def __init__(self, target: str, shown: str) -> None:
        self._shown = shown
        path, _, query = target.partition("?")
        self._name = unquote(path)
        self._query = {name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)}
        scheme = next((one for one in _SCHEMES if all(mark in self._query for mark in one.marks)), None)
        if scheme is None:
            raise UnsupportedByStore(
                f"cannot write {shown!r}: the web is read-only; expected an address that a store has signed for PUT",
                path=shown,
            )
        self._scheme = scheme
        allowed = self._query.get("sp")
        if scheme.name == "Azure" and allowed is not None and not set(allowed) & set("wc"):
            raise UnsupportedByStore(
                f"cannot write {shown!r}: its signature allows {allowed!r}; expected sp=w or sp=c", path=shown
            )

    def require(self, size: int) -> None:
        """Raise `UnsupportedByStore` for more bytes than one request may have."""
        if size > self._scheme.max_put:
            raise UnsupportedByStore(
                f"cannot write {self._shown!r}: {size} bytes are more than the {self._scheme.max_put} that "
                f"{self._scheme.name} takes by a signed address; expected a mount of the store",
                path=self._shown,
            )

    def headers(self, pieces: Sequence[memoryview], given: Collection[str], *, exclusive: bool) -> dict[str, str]:
        """Return the fields that a PUT of this content has to carry besides those that are `given`, in lower case.

        Raises
        ------
        ParameterError
            The signature covers a field whose value is not known.
        UnsupportedByStore
            `exclusive`, where the store need not obey that.
        """
        scheme = self._scheme
        self.require(sum(map(len, pieces)))
        covered = {name.strip().lower() for name in self._query.get(scheme.covered or "", "").split(";")} - {""}
        found = dict(scheme.required)
        if scheme.digest is not None:
            md5 = hashlib.md5(usedforsecurity=False)
            for piece in pieces:
                md5.update(piece)
            hexadecimal = scheme.digest == "etag"
            found[scheme.digest] = md5.hexdigest() if hexadecimal else base64.b64encode(md5.digest()).decode("ascii")
        if scheme.content_type and "content-type" not in covered:
            found["content-type"] = content_type_of(self._name)
        if exclusive:
            if not scheme.exclusive:
                raise UnsupportedByStore(
                    f"cannot write {self._shown!r} exclusively by an address of {scheme.name}", path=self._shown
                )
            found["if-none-match"] = "*"
        missing = sorted(covered.difference(_ALWAYS_SENT, found, given))
        if missing:
            raise ParameterError(
                f"cannot write {self._shown!r}: its signature covers {', '.join(missing)}; expected a mount of this "
                "address with headers= that states what was signed"
            )
        return {name: value for name, value in found.items() if name not in given}
