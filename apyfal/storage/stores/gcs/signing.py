"""Signed addresses of Google Cloud Storage, version 4, with a service account's own key.

The rules are those of "V4 signing process with your own program" (Cloud Storage documentation). The signature covers
the header field ``host`` only, and not the body.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from urllib.parse import quote

__all__ = ["LONGEST", "signed_query"]

#: Longest validity of an address, in seconds.
LONGEST = 7 * 24 * 3600


def signed_query(
    method: str, host: str, target: str, seconds: int, account: str, sign: Callable[[bytes], bytes]
) -> str:
    """Return the percent-encoded query of a signed address.

    Parameters
    ----------
    method, host, target
        Method, host and percent-encoded path of the request.
    seconds
        Validity from now on.
    account
        The service account's email address (``name@project.iam.gserviceaccount.com``).
    sign
        Signs bytes with the account's RSA key (PKCS #1 v1.5 with SHA-256).
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{stamp[:8]}/auto/storage/goog4_request"
    fields = {
        "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
        "X-Goog-Credential": f"{account}/{scope}",
        "X-Goog-Date": stamp,
        "X-Goog-Expires": str(seconds),
        "X-Goog-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(fields.items()))
    request = f"{method}\n{target}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}"
    return f"{query}&X-Goog-Signature={sign(text.encode()).hex()}"
