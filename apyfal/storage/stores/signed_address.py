"""Signed addresses (presigned URLs): the kind of a signature, and the header fields that a PUT to one needs.

Only the query of an address tells what was signed. Header fields that a signature covers must be sent as they were
signed. Fields that it does not cover may be sent only if the signature scheme permits unsigned fields.
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
        Name of the scheme, for messages.
    marks
        Names of query parameters, in lower case, that together identify this scheme.
    covered
        The parameter that lists the fields that the signature covers, separated by ``;``.
    max_put
        Most bytes that the store accepts in one request.
    content_type
        Whether a content type that the signature does not cover may be sent.
    digest
        Field with the MD5 that the store compares, in base64 (``Content-MD5``) or hexadecimal (``ETag``); none if the
        scheme requires that it is signed.
    required
        Fields that every PUT needs.
    exclusive
        Whether the store is certain to obey ``If-None-Match: *``.
    """

    name: str
    marks: tuple[str, ...]
    covered: str | None = None
    max_put: int = 5 * _GIB
    content_type: bool = False
    digest: str | None = None
    required: tuple[tuple[str, str], ...] = ()
    exclusive: bool = False


#: The order matters: the older schemes of three stores share ``Signature`` and ``Expires``, so the name of the key
#: tells them apart. Limits: "PutObject" (S3, OSS), "Quotas" (Cloud Storage), "Put Blob" from version
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
#: Fields that are sent with every request in any case; a signature may cover them.
_ALWAYS_SENT = ("host", "content-length")


class SignedAddress:
    """A signed address to which an object can be written with one request.

    Parameters
    ----------
    target
        Path and query, as they are sent.
    shown
        The address without its signature, for messages.

    Raises
    ------
    UnsupportedByStore
        The address has no known signature, or one that does not permit writing.
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
        """Raise `UnsupportedByStore` if `size` is more bytes than one request can have."""
        if size > self._scheme.max_put:
            raise UnsupportedByStore(
                f"cannot write {self._shown!r}: {size} bytes are more than the {self._scheme.max_put} that "
                f"{self._scheme.name} takes by a signed address; expected a mount of the store",
                path=self._shown,
            )

    def headers(self, pieces: Sequence[memoryview], given: Collection[str], *, exclusive: bool) -> dict[str, str]:
        """Return the header fields that a PUT of this content needs in addition to `given` (names in lower case).

        Raises
        ------
        ParameterError
            The signature covers a field whose value is not known.
        UnsupportedByStore
            `exclusive` is set, and the store is not certain to obey it.
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
