"""Addresses of daemons: the possible values of ``host_ip``."""

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
    """The address of a daemon.

    Attributes
    ----------
    host, port
        Host name or IP address, and port; or
    unix
        path of a Unix socket.
    secure
        Whether TLS is used.
    fingerprint
        SHA-256 fingerprint of the only certificate to accept; ``None``: one that a trusted authority has signed.
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
        """``host:port``, as in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether data sent to this address stays on this machine."""
        return self.unix is not None or _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str) -> HostAddress:
    """Parse ``host_ip``: an address or name with or without port, ``https://...``, or ``unix:///path``.

    Without a scheme, TLS is used unless the address is a loopback address. A URL may end in ``#sha256=<fingerprint>``,
    as ``apyfal serve`` prints it.

    Raises
    ------
    ParameterError
        The text is none of these, or it is plain HTTP to another machine, which would expose the token to the network.
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
