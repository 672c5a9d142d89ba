"""Where a daemon is: what ``host_ip`` may say."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from apyfal.exceptions import ParameterError
from apyfal.host.protocol import tls
from apyfal.host.protocol.messages import DEFAULT_PORT
from apyfal.log import redact

__all__ = ["HostAddress", "parse_address"]


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a daemon is.

    Attributes
    ----------
    host, port
        Its address, or
    unix
        the path of its socket.
    secure
        Whether TLS is spoken.
    fingerprint
        Of the one certificate to accept; ``None``: one that the system's authorities vouch for.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    unix: str | None = None
    secure: bool = True
    fingerprint: str | None = None

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix://{self.unix}"
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """``host:port``, as requests name it."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        return self.unix is not None or _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str) -> HostAddress:
    """Read ``host_ip``: an address or name with or without port, ``https://...``, ``unix:///path``.

    An address without scheme means TLS, unless it is this machine's own loopback. A URL may end in
    ``#sha256=<fingerprint>``, as ``apyfal serve`` prints it.

    Raises
    ------
    ParameterError
        It is none of these, or plain HTTP to another machine, which would show the token to the network.
    """
    if not isinstance(text, str) or not text.strip():
        raise ParameterError(f"host_ip {text!r}: expected an address or an https:// URL")
    shown = redact(text) if ":" in text else text
    url = text.strip()
    if "://" not in url:
        bare = url.count(":") > 1 and not url.startswith("[")
        url = f"//[{url}]" if bare else f"//{url}"
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ParameterError(f"host_ip {shown!r}: malformed host or port") from None
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise ParameterError(f"host_ip {shown!r}: expected unix:///path/of/socket")
        return HostAddress(unix=unquote(parts.path), secure=False)
    if parts.scheme not in ("", "http", "https"):
        raise ParameterError(f"host_ip {shown!r}: expected https://, or http:// or unix:// on this machine")
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        raise ParameterError(f"host_ip {shown!r}: expected a host and perhaps a port, and nothing else")
    fingerprint = tls.parse_fingerprint(parts.fragment) if parts.fragment else None
    host = parts.hostname
    secure = parts.scheme == "https" or (parts.scheme == "" and not _is_loopback(host))
    if not secure and not _is_loopback(host):
        raise ParameterError(f"host_ip {shown!r}: plain HTTP would show the token to the network; use https://")
    if fingerprint is not None and not secure:
        raise ParameterError(f"host_ip {shown!r}: a fingerprint needs https://")
    return HostAddress(host, port, None, secure, fingerprint)
