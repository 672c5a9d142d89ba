"""Tokens for OpenStack Swift: Keystone v3 (Identity API v3 reference) and Swift's own v1 authentication.

Both are one request each, written by hand because they have to go over apyfal's own connections: on a host the
authentication URL is a client's word, and `apyfal.storage.http.pool.ConnectionPool.gate` decides about every address,
also of what the catalogue names. keystoneauth1 brings an HTTP client of its own, which would not ask.

A token is asked for when the first request needs one, shared by all threads, renewed shortly before it ends, and once
more whenever the store refuses it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from apyfal.exceptions import AuthenticationError, MountError, StorageError, StoreUnavailable, did_you_mean
from apyfal.storage.http.origin import Origin, split_url
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.stores.rest import iso_time
from apyfal.units import whole_number

__all__ = ["AUTH_TYPES", "Authenticator", "Identity", "SwiftSession"]

_LOG = logging.getLogger(__name__)

AUTH_TYPES = ("v1", "v3password", "v3applicationcredential")
#: Seconds before its end at which a token is renewed.
_MARGIN = 60.0


class SwiftSession(NamedTuple):
    """A token and the address of the account that it is for."""

    token: str
    origin: Origin
    prefix: str
    expires: float | None


class Identity(NamedTuple):
    """Who asks for a token, and where."""

    auth_url: str
    auth_type: str
    user: str
    secret: str
    project: str | None = None
    project_id: str | None = None
    user_domain: str = "Default"
    project_domain: str = "Default"
    region: str | None = None
    interface: str = "public"
    storage_url: str | None = None

    def __repr__(self) -> str:
        return f"Identity(auth_url={self.auth_url!r}, auth_type={self.auth_type!r}, user={self.user!r}, secret=***)"

    @classmethod
    def find(
        cls,
        *,
        client_id: str | None,
        secret_id: str | None,
        endpoint_url: str | None,
        auth_type: str | None,
        environ: Mapping[str, str],
        **others: str | None,
    ) -> Identity:
        """Complete what was given from the environment variables of the OpenStack and Swift clients.

        Raises
        ------
        MountError
            When there is no authentication URL, user or secret, or the type is unknown.
        """
        env = environ
        if auth_type is not None and auth_type not in AUTH_TYPES:
            raise MountError(f"unknown auth_type {auth_type!r}{did_you_mean(auth_type, AUTH_TYPES)}")
        application = auth_type == "v3applicationcredential"
        if application or (not client_id and "OS_APPLICATION_CREDENTIAL_ID" in env):
            application = True
            names = "OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET"
        else:
            names = ("OS_USERNAME", "OS_PASSWORD") if "OS_AUTH_URL" in env else ("ST_USER", "ST_KEY")
        url = endpoint_url or env.get("OS_AUTH_URL") or env.get("ST_AUTH")
        user, secret = client_id or env.get(names[0]), secret_id or env.get(names[1])
        missing = [
            name for name, value in (("endpoint_url", url), ("client_id", user), ("secret_id", secret)) if not value
        ]
        if not url or not user or not secret:
            raise MountError(
                f"swift: {' and '.join(missing)} missing; expected the authentication URL (http(s)://.../v3 or"
                " .../auth/v1.0) and who to be, as parameters of the mount or in OS_* or ST_* environment variables"
            )
        if auth_type is None:
            kind = "v1" if "/v1" in url else "v3password"
            auth_type = "v3applicationcredential" if application else kind
        defaults = {
            "project": env.get("OS_PROJECT_NAME") or env.get("OS_TENANT_NAME"),
            "project_id": env.get("OS_PROJECT_ID") or env.get("OS_TENANT_ID"),
            "user_domain": env.get("OS_USER_DOMAIN_NAME"),
            "project_domain": env.get("OS_PROJECT_DOMAIN_NAME"),
            "region": env.get("OS_REGION_NAME"),
        }
        chosen = {name: value or defaults.get(name) for name, value in others.items()}
        return cls(url, auth_type, user, secret, **{name: value for name, value in chosen.items() if value})


class Authenticator:
    """Keeps one valid token for all threads of a mount.

    Parameters
    ----------
    client
        Sends the requests.
    identity
        Who asks.
    """

    def __init__(self, client: ConnectionPool, identity: Identity) -> None:
        self._client = client
        self._identity = identity
        self._lock = threading.Lock()
        self._session: SwiftSession | None = None

    def session(self, *, refused: str | None = None) -> SwiftSession:
        """Return a session that should be valid; never the one with the token that was just `refused`."""
        with self._lock:
            kept = self._session
            ended = kept is not None and kept.expires is not None and time.time() > kept.expires - _MARGIN
            if kept is None or ended or kept.token == refused:
                kept = self._session = self._login()
                _LOG.debug("swift: token obtained at %s", kept.origin)
            return kept

    def _login(self) -> SwiftSession:
        identity = self._identity
        session = self._login_v1() if identity.auth_type == "v1" else self._login_v3()
        if identity.storage_url:
            origin, prefix, _ = split_url(identity.storage_url)
            session = session._replace(origin=origin, prefix=prefix.rstrip("/"))
        return session

    def _login_v1(self) -> SwiftSession:
        headers = [("X-Auth-User", self._identity.user), ("X-Auth-Key", self._identity.secret)]
        answer, _ = self._ask("GET", "", headers, b"", (200, 204))
        try:
            origin, prefix, _ = split_url(answer["x-storage-url"])
            token = answer["x-auth-token"]
        except KeyError as error:
            raise StorageError(
                f"swift: {self._identity.auth_url} gave no {error}; is it a v1 authentication URL?"
            ) from None
        lifetime = whole_number(answer.get("x-auth-token-expires", ""))
        expires = None if lifetime is None else time.time() + lifetime
        return SwiftSession(token, origin, prefix.rstrip("/"), expires)

    def _login_v3(self) -> SwiftSession:
        identity = self._identity
        content = json.dumps({"auth": _v3_login(identity)}).encode()
        path = "/auth/tokens" if identity.auth_url.rstrip("/").endswith("/v3") else "/v3/auth/tokens"
        headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        answer, body = self._ask("POST", path, headers, content, (201,))
        try:
            token = json.loads(body)["token"]
            return SwiftSession(answer["x-subject-token"], *self._endpoint(token), iso_time(token.get("expires_at")))
        except MountError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"swift: {identity.auth_url} gave no token of the Identity API v3 ({type(error).__name__})"
            ) from None

    def _endpoint(self, token: dict[str, Any]) -> tuple[Origin, str]:
        """Find the object store in a token's catalogue."""
        identity = self._identity
        if identity.storage_url:
            return split_url(identity.storage_url)[:2]
        offered = [
            endpoint
            for service in token.get("catalog", ())
            if service.get("type") == "object-store"
            for endpoint in service["endpoints"]
            if endpoint.get("interface") == identity.interface
        ]
        regions = [str(endpoint.get("region_id") or endpoint.get("region")) for endpoint in offered]
        if identity.region is not None and identity.region not in regions:
            raise MountError(f"swift: no region {identity.region!r}{did_you_mean(identity.region, regions)}")
        if not offered:
            what = f"project {identity.project or identity.project_id or '(none given)'!r}"
            raise MountError(f"swift: the catalogue of {what} has no {identity.interface} object store")
        index = regions.index(identity.region) if identity.region is not None else 0
        origin, prefix, _ = split_url(offered[index]["url"])
        return origin, prefix.rstrip("/")

    def _ask(
        self, method: str, path: str, headers: list[tuple[str, str]], content: bytes, accept: tuple[int, ...]
    ) -> tuple[dict[str, str], bytes]:
        origin, target, _ = split_url(self._identity.auth_url)
        body = (memoryview(content),) if content else ()
        response = self._client.request(method, origin, target.rstrip("/") + path, headers, body)
        try:
            answer = response.read()
        finally:
            response.close()
        status, who = response.status, f"swift: {origin}"
        if status in accept:
            return response.headers, answer
        if status in (401, 403):
            raise AuthenticationError(
                f"{who} does not accept user {self._identity.user!r} with this secret (HTTP {status});"
                " check client_id, secret_id, project and domains",
                status=status,
            )
        if status == 429 or status >= 500:
            raise StoreUnavailable(f"{who}: authentication failed: HTTP {status}", status=status)
        raise StorageError(f"{who}{target}: authentication failed: HTTP {status}; check endpoint_url", status=status)


def _v3_login(identity: Identity) -> dict[str, Any]:
    """Make the ``auth`` object of Identity API v3, "Password authentication with scoped authorization" and the like."""
    if identity.auth_type == "v3applicationcredential":
        credential = {"id": identity.user, "secret": identity.secret}
        return {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    user = {"name": identity.user, "domain": {"name": identity.user_domain}, "password": identity.secret}
    login: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if identity.project_id is not None:
        login["scope"] = {"project": {"id": identity.project_id}}
    elif identity.project is not None:
        login["scope"] = {"project": {"name": identity.project, "domain": {"name": identity.project_domain}}}
    return login
