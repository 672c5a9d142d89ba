"""Heads of many requests on one bucket, of which only the key, the length and the signature differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import request_head
from apyfal.storage.stores.s3.sigv4 import PreparedSignature

__all__ = ["RequestTemplate", "encoded_key"]

#: Keys that are sent as they are.
_PLAIN = re.compile(r"[A-Za-z0-9/._~-]*")


def encoded_key(key: str) -> str:
    """Return a key as it stands in the path of a request."""
    return key if _PLAIN.fullmatch(key) else quote(key, safe="/-_.~")


class RequestTemplate(NamedTuple):
    """What the heads of requests have in common. Not shown: the signature holds a key.

    Attributes
    ----------
    origin
        Where they go.
    prefix
        What stands before the key, percent-encoded.
    signature
        Signs them; ``None``: they are not signed.
    front, behind
        The head before its path, and behind it.
    """

    origin: Origin
    prefix: str
    signature: PreparedSignature | None
    front: bytes
    behind: bytes

    @classmethod
    def of(
        cls, method: str, origin: Origin, prefix: str, headers: Mapping[str, str], signature: PreparedSignature | None
    ) -> RequestTemplate:
        """Prepare requests; `headers` are those that `signature` was prepared with.

        Raises
        ------
        ParameterError
            There is a line break in a header.
        """
        fields = list(headers.items())
        if signature is not None:
            fields = [*signature.fields, ("authorization", signature.front)]
        front, _, behind = request_head(method, origin, "\t", fields).partition(b"\t")
        return cls(origin, prefix, signature, front, behind.removesuffix(b"\r\n\r\n"))

    def head(self, key: str, length: int | None = None) -> bytes:
        """Return the head of the request for a key; `length` is that of its body, ``None`` if it has none."""
        target = f"{self.prefix}/{encoded_key(key)}"
        proof = self.signature.signature(target) if self.signature is not None else ""
        end = "\r\n\r\n" if length is None else f"\r\nContent-Length: {length}\r\n\r\n"
        return b"%b%b%b%b" % (self.front, target.encode(), self.behind, f"{proof}{end}".encode())

    def __repr__(self) -> str:
        return f"RequestTemplate({str(self.origin)!r})"
