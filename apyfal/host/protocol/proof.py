"""How a daemon shows, before a client sends its token in clear, that it knows the token already.

Over TLS the certificate says who answers. On a loopback port or a Unix socket, anybody with an account on the machine
can listen while the daemon does not. So the client sends the public part of its token, a nonce, and the address that it
is connected to. The daemon answers with an HMAC of these under the hash of the token's secret, which is all that it
keeps of the token. It answers only for the address at which the connection arrived: somebody who passes the question on
to the daemon, from another port, address or path, gets no answer that the client takes. The token then goes over the
same connection.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import Any
from urllib.parse import quote

__all__ = ["CHALLENGE_HEADER", "PROOF_HEADER", "Challenge", "address_of", "hash_of", "proof_of"]

#: of the request: the token's id, a nonce and the address, separated by blanks
CHALLENGE_HEADER = "Apyfal-Challenge"
#: of the answer
PROOF_HEADER = "Apyfal-Proof"

Challenge = re.compile(r"(?P<token>[0-9a-f]{12}) (?P<nonce>[0-9a-f]{32}) (?P<address>[!-~]{1,512})")


def hash_of(secret: str) -> str:
    """Return what the daemon keeps of a token's secret: its SHA-256, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def proof_of(secret_hash: str, nonce: str, address: str) -> str:
    """Return the proof: HMAC-SHA256, hexadecimal."""
    return hmac.new(secret_hash.encode(), f"apyfal-host {nonce} {address}".encode(), hashlib.sha256).hexdigest()


def address_of(name: Any) -> str:
    """Return how both sides write the daemon's end of a connection.

    Parameters
    ----------
    name
        Its socket address: what ``getpeername`` returns for the client and ``getsockname`` for the daemon, or the path
        of a Unix socket.
    """
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    return f"unix:{quote(os.path.realpath(name))}"
