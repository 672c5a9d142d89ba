"""Which proxy a request goes through."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple

from apyfal.exceptions import InvalidURL, ParameterError
from apyfal.storage.http.origin import Origin, basic_authorization, split_url
from apyfal.units import whole_number

__all__ = ["Proxy", "environment_proxy", "parse_proxy", "proxy_variable"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Proxy(NamedTuple):
    """A proxy, and the value of the header that it wants."""

    host: str
    port: int
    authorization: str | None


def parse_proxy(url: str, name: str = "proxy") -> Proxy:
    """Read a proxy's URL; ``http://`` is assumed.

    Parameters
    ----------
    url
        Of the proxy.
    name
        Where it comes from, for messages: a parameter or a variable of the environment.

    Raises
    ------
    ParameterError
        It is malformed, or of a kind that cannot be used: SOCKS, or a proxy that is itself reached by TLS.
    """
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "http"
    if scheme != "http":
        raise ParameterError(f"{name}: {scheme}:// proxies cannot be used; expected http://host:port")
    try:
        origin, target, user = split_url(url if found else "http://" + url)
    except InvalidURL as error:
        raise ParameterError(f"{name}: {error}") from None
    if target != "/":
        raise ParameterError(f"{name}: a proxy has no path; expected http://{origin.authority}")
    return Proxy(origin.host, origin.port, basic_authorization(*user) if user else None)


def environment_proxy(origin: Origin) -> str | None:
    """Return the URL of the proxy that curl would use, or ``None``."""
    found = proxy_variable(origin)
    return None if found is None else found[1]


def proxy_variable(origin: Origin) -> tuple[str, str] | None:
    """Return the variable that names the proxy for requests to `origin`, and its value.

    HTTP_PROXY in upper case is ignored, as it may come from a CGI request.
    """
    names = [f"{origin.scheme}_proxy", *(["HTTPS_PROXY"] if origin.scheme == "https" else []), "all_proxy", "ALL_PROXY"]
    found = next(((name, os.environ[name]) for name in names if os.environ.get(name, "").strip()), None)
    if found is None or _goes_direct(origin, os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""):
        return None
    return found[0], found[1].strip()


def _goes_direct(origin: Origin, no_proxy: str) -> bool:
    """Whether a list of names, addresses and networks, each perhaps with a port, covers `origin`."""
    return any(_covers(entry.lower(), origin) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _covers(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    host = origin.host.lower().rstrip(".")
    network, address = _network(entry), _address(host)
    if network is not None:
        return address is not None and address.version == network.version and address in network
    name, colon, port = entry.rpartition(":")
    if colon and (number := whole_number(port)) is not None:
        if number != origin.port:
            return False
        return name == "*" or _covers(name, origin)
    if address is not None:
        return False  # "1.2.3.4" does not end in the domain "3.4"
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Read ``10.0.0.0/8``, ``10.1.2.3``, ``::1`` or ``[::1]``; the bits behind the prefix do not matter."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
