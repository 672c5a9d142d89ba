"""How a daemon proves that it already knows a token, before a client sends the token in clear.

With TLS, the certificate authenticates the daemon. On a loopback port or a Unix socket, any account on the machine can
listen while the daemon does not. So the client sends the public part of its token, a nonce, and the address that it is
connected to. The daemon answers with an HMAC of these, keyed with the hash of the token's secret, which is all that it
stores of the token. It answers only for the address at which the connection arrived. So an impostor that forwards the
challenge to the daemon, through another port, address or path, gets no proof that the client accepts. The token is then
sent over the same connection.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import Any
from urllib.parse import quote

__all__ = ["CHALLENGE_HEADER", "PROOF_HEADER", "Challenge", "address_of", "hash_of", "proof_of"]

#: request header: the token's id, a nonce and the address, separated by spaces
CHALLENGE_HEADER = "Apyfal-Challenge"
#: response header: the proof
PROOF_HEADER = "Apyfal-Proof"

Challenge = re.compile(r"(?P<token>[0-9a-f]{12}) (?P<nonce>[0-9a-f]{32}) (?P<address>[!-~]{1,512})")


def hash_of(secret: str) -> str:
    """Return what the daemon stores of a token's secret: its SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def proof_of(secret_hash: str, nonce: str, address: str) -> str:
    """Return the proof: HMAC-SHA256, in hexadecimal."""
    return hmac.new(secret_hash.encode(), f"apyfal-host {nonce} {address}".encode(), hashlib.sha256).hexdigest()


def address_of(name: Any) -> str:
    """Return the daemon's end of a connection in the form that both sides use.

    Parameters
    ----------
    name
        Its socket address: what ``getpeername`` returns for the client and ``getsockname`` for the daemon, or the path
        of a Unix socket.
    """
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    return f"unix:{quote(os.path.realpath(name))}"
