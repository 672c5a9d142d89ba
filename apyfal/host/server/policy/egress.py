"""The addresses to which this host may connect on behalf of a remote user.

A client that names a URL makes this machine open a connection from inside the operator's network, with the operator's
address. The connection pools for such URLs ask an `EgressPolicy` for the addresses. It resolves the name once, checks
every address against the table below, and the pool connects to one of the checked addresses. So a different second
answer of the name server has no effect. Redirects and ``endpoint_url`` use the same pools.

The table is defined here because `ipaddress.ip_address.is_global` is wrong for several of these ranges in the supported
Python versions. Sources: IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890, RFC 8190), all entries
that are not globally reachable; and, because they lead to such addresses, RFC 6052 (NAT64), RFC 3056 (6to4), RFC 7526
(its relays), RFC 4380 (Teredo), RFC 3879 (site-local), RFC 2765 (translated addresses).
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from apyfal.exceptions import AccessDenied, ConfigurationError, StoreUnavailable

__all__ = ["DENIED_NETWORKS", "EgressPolicy", "Endpoint", "is_denied_address"]

#: addresses to which no client can make this host connect
DENIED_NETWORKS: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; metadata services of some clouds
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; metadata services of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments; metadata services of some clouds
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4, to whatever IPv4 address
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of local use
        "100::/64",  # discard-only
        "100:0:0:1::/64",  # dummy prefix
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarks, ORCHID and what is not assigned yet
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)

#: parts of `DENIED_NETWORKS` that the registry lists as globally reachable
_REACHABLE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),  # anycast: port control, TURN, service registration
        "2001:3::/32",  # multicast tunnels (AMT)
        "2001:4:112::/48",  # name servers of private zones (AS112)
        "2001:30::/28",  # remote identification of drones
    )
)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")

#: (host, port) -> numeric addresses; an IPv6 address with a zone ends in ``%zone``
Resolver = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Origin of a URL: scheme, host and port."""

    scheme: str
    host: str
    port: int


def is_denied_address(address: str) -> bool:
    """Return whether `address`, a numeric IPv4 or IPv6 address, is in the table. An address with a zone always is."""
    if "%" in address:
        return True
    parsed = ipaddress.ip_address(address)

    def within(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
        return any(parsed.version == network.version and parsed in network for network in networks)

    return within(DENIED_NETWORKS) and not within(_REACHABLE)


def _system_resolver(host: str, port: int) -> list[str]:
    found = []
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if family == socket.AF_INET:
            found.append(str(address[0]))
        elif family == socket.AF_INET6:
            zone = f"%{address[3]}" if len(address) == 4 and address[3] else ""
            found.append(f"{address[0]}{zone}")
    return found


class EgressPolicy:
    """Decides which connections remote users can cause. Usable from any thread.

    Parameters
    ----------
    private_endpoints
        ``host`` or ``host:port`` entries of ``[security] private_endpoints``: allowed by name, although the table
        contains the address.
    own_ports
        Ports that this daemon listens on, which are refused on every address of this machine. Ports that are known
        later can be added to this attribute.
    resolver
        Resolves names, for tests. Default: the system's resolver.

    Raises
    ------
    ConfigurationError
        An entry of `private_endpoints` is not a host name or address with an optional port.
    """

    def __init__(
        self,
        private_endpoints: Iterable[str] = (),
        own_ports: Iterable[int] = (),
        *,
        resolver: Resolver | None = None,
    ) -> None:
        self._private = {_private_endpoint(entry) for entry in private_endpoints}
        self.own_ports = frozenset(own_ports)
        self._resolver: Resolver = resolver or _system_resolver

    # -- text ----------------------------------------------------------------------------------------------------------
    def check_url(self, url: str) -> Endpoint:
        """Check everything about `url` that needs no name server.

        Parameters
        ----------
        url
            An ``http`` or ``https`` URL, or a bare ``host[:port]`` endpoint, which means ``https``.

        Returns
        -------
        Endpoint
            The origin of the URL.

        Raises
        ------
        AccessDenied
            The URL has another scheme, a user name, spaces, control or non-ASCII characters, a malformed host or port,
            an address in a non-canonical spelling, or an address in the table.
        """
        if not isinstance(url, str) or _FORBIDDEN.search(url):
            _refuse(url, "blanks, control characters, backslashes and non-ASCII characters are not allowed in it")
        text = url if "://" in url else f"https://{url}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            _refuse(url, "its host or port is malformed")
        if parts.scheme not in _DEFAULT_PORTS:
            _refuse(url, "expected http:// or https://")
        if "@" in parts.netloc:
            _refuse(url, "a user name or password does not belong in it")
        host = self.check_host(parts.hostname or "", url)
        if ("[" in parts.netloc) != (":" in host):
            _refuse(url, "its host is malformed")
        if port == 0 or parts.netloc.endswith(":"):
            _refuse(url, "its port is malformed")
        endpoint = Endpoint(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])
        self._check_literal(endpoint.host, endpoint.port)
        return endpoint

    @staticmethod
    def check_host(host: str, shown: str | None = None) -> str:
        """Return `host` in its canonical spelling: lower case, no trailing dot, canonical addresses.

        Raises
        ------
        AccessDenied
            The text is not a host name, or is an address in a decimal, octal, hexadecimal, short or zoned spelling.
        """
        shown = host if shown is None else shown
        if ":" in host:
            try:
                address = ipaddress.IPv6Address(host)
            except ValueError:
                _refuse(shown, "its host is not an IPv6 address")
            if address.scope_id is not None:
                _refuse(shown, "its address has a zone")
            return str(address)
        name = host.lower().removesuffix(".")
        labels = name.split(".")
        # A last label that some resolver reads as a number makes the whole an address (WHATWG URL, "ends in a number").
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
            try:
                return str(ipaddress.IPv4Address(name))
            except ValueError:
                _refuse(shown, "write an IPv4 address as four decimal numbers")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            _refuse(shown, "its host is malformed")
        return name

    def _check_literal(self, host: str, port: int) -> None:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        self._check_address(host, host, port)

    # -- addresses -----------------------------------------------------------------------------------------------------
    def __call__(self, host: str, port: int) -> list[str]:
        """Resolve `host` once. Refuses it if any of its addresses is refused. Hook of `ConnectionPool.gate`.

        Parameters
        ----------
        host, port
            Host and port of a connection about to be made.

        Returns
        -------
        list of str
            The allowed numeric addresses, in the resolver's order.

        Raises
        ------
        AccessDenied
            An address is in the table and the endpoint is not allowed by name, or the address and port are this
            daemon's.
        StoreUnavailable
            The name cannot be resolved.
        """
        host = self.check_host(host)
        try:
            addresses = self._resolver(host, port)
        except OSError as error:
            raise StoreUnavailable(f"{host}: the name cannot be resolved") from error
        for address in addresses:
            self._check_address(host, address, port)
        if not addresses:
            raise StoreUnavailable(f"{host}: the name has no address")
        return addresses

    def _check_address(self, host: str, address: str, port: int) -> None:
        if "%" in address:
            _refuse(host, "its address has a zone")
        if port in self.own_ports and _is_own_address(address):
            _refuse(f"{host}:{port}", "that is this host's own service")
        if (host, port) in self._private or (host, None) in self._private:
            return
        if is_denied_address(address):
            # The message does not contain the address: it would tell a client how this network's names resolve.
            _refuse(f"{host}:{port}", "private and special addresses have to be allowed by the host's operator")


def _private_endpoint(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.strip().rpartition(":")
    if not colon or (entry.count(":") > 1 and not host.endswith("]")):
        host, port = entry.strip(), ""
    try:
        number = int(port) if port else None
        if number is not None and not 0 < number < 65536:
            raise ValueError
        return EgressPolicy.check_host(host.removeprefix("[").removesuffix("]")), number
    except (AccessDenied, ValueError) as error:
        raise ConfigurationError(f"[security] private_endpoints: {entry!r} is not a host or host:port") from error


def _is_own_address(address: str) -> bool:
    """Return whether `address` belongs to this machine: a route to oneself has equal ends. No packet is sent."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_unspecified:
        return True
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET if parsed.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((address, 9))
        return bool(ipaddress.ip_address(probe.getsockname()[0]) == parsed)
    return False


def _refuse(shown: str, reason: str) -> NoReturn:
    """Raise `AccessDenied`. Parts of the URL that can hold a password or a signature are removed."""
    text = re.sub(r"[^/]*@", "...@", str(shown).partition("?")[0])
    raise AccessDenied(f"{text!r} cannot be reached through this host: {reason}")
