"""Web addresses taken apart: where requests go, what they ask for, and who asks."""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from apyfal.exceptions import InvalidURL

__all__ = ["Origin", "basic_authorization", "split_url"]

_PORTS = {"http": 80, "https": 443}
#: What stays as it is in an address that people wrote: all that may stand there, and what is encoded already.
_ENCODED = "%/:=&?~#+!$,;'@()*[]"


class Origin(NamedTuple):
    """Where requests go: what credentials and connections belong to."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str, tuple[str, str] | None]:
    """Split a web address into its origin, its request target, and the user and password in it.

    Raises
    ------
    InvalidURL
        No http(s) address, or one with control characters. The message never holds a password.
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise InvalidURL("a web address must not contain control characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidURL("a web address with a malformed host") from None
    try:
        port = parts.port
    except ValueError:  # its message holds what stands there, which may be the end of a password
        raise InvalidURL(f"{parts.scheme}://{parts.hostname}:...: expected a port number") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidURL(f"{parts.scheme}://{parts.hostname or ''}: expected http://host/... or https://host/...")
    target = quote(parts.path or "/", safe=_ENCODED)
    if parts.query:
        target += "?" + quote(parts.query, safe=_ENCODED)
    user = (unquote(parts.username), unquote(parts.password or "")) if parts.username is not None else None
    try:
        host = parts.hostname.encode("idna").decode("ascii") if not parts.hostname.isascii() else parts.hostname
    except UnicodeError:
        raise InvalidURL(f"{parts.hostname!r} is not a host name") from None
    return Origin(parts.scheme, host, port or _PORTS[parts.scheme]), target, user


def basic_authorization(user: str, password: str) -> str:
    """Return the value of an Authorization header for HTTP's basic scheme (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
