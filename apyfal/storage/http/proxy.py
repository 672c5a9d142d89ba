"""Which proxy a request goes through."""

from __future__ import annotations

import os
from typing import NamedTuple

from apyfal.exceptions import ParameterError
from apyfal.storage.http.origin import Origin, basic_authorization, split_url

__all__ = ["Proxy", "environment_proxy", "parse_proxy"]


class Proxy(NamedTuple):
    """A proxy, and the value of the header that it wants."""

    host: str
    port: int
    authorization: str | None


def parse_proxy(url: str) -> Proxy:
    """Read a proxy's URL; ``http://`` is assumed."""
    origin, _, user = split_url(url if "://" in url else "http://" + url)
    if origin.scheme != "http":
        raise ParameterError(f"proxy {origin.host}:{origin.port}: only http:// proxies can be used")
    return Proxy(origin.host, origin.port, basic_authorization(*user) if user else None)


def environment_proxy(origin: Origin) -> str | None:
    """Return the proxy that curl would use. HTTP_PROXY in upper case is ignored, as it may come from a CGI request."""
    environ = os.environ
    url = environ.get(f"{origin.scheme}_proxy") or environ.get("all_proxy") or environ.get("ALL_PROXY")
    if not url and origin.scheme == "https":
        url = environ.get("HTTPS_PROXY")
    if not url:
        return None
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        domain = entry.strip().lower().lstrip("*").lstrip(".")
        if entry.strip() == "*" or (domain and (origin.host == domain or origin.host.endswith("." + domain))):
            return None
    return url
