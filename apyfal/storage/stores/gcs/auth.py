"""Who a Google Cloud Storage mount is. google-auth (``pip install 'apyfal[gs]'``) finds and renews the tokens.

Its requests go over apyfal's own connections, by the interface that it has for that: one HTTP client, whose proxies,
timeouts and cancellation are those of the data.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from apyfal.exceptions import AuthenticationError, MountError, StorageError
from apyfal.storage.http.origin import split_url
from apyfal.storage.http.pool import ConnectionPool

__all__ = ["Tokens"]

_LOG = logging.getLogger(__name__)

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Tokens:
    """Keeps one valid access token for all threads of a mount.

    Parameters
    ----------
    credentials_file
        Of a service account (or of an external account), as Google hands it out; ``None``: google-auth's default chain
        (``GOOGLE_APPLICATION_CREDENTIALS``, gcloud, the instance's service account).
    client
        For requests to the token service; not the store's, whose `verify` is for the store.
    """

    def __init__(self, credentials_file: str | None, client: ConnectionPool) -> None:
        self._file = credentials_file
        self._client = client
        self._lock = threading.Lock()
        self._credentials: Any = None
        self.project: str | None = None

    def token(self, *, refused: str | None = None) -> str:
        """Return a token that should be valid; never the one that was just `refused`."""
        with self._lock, self._explained():
            credentials = self._found()
            if not credentials.valid or credentials.token == refused:
                credentials.refresh(self._request)
                _LOG.debug("gs: access token renewed")
            token: str = credentials.token
            return token

    def signer(self) -> tuple[str, Callable[[bytes], bytes]] | None:
        """Return a service account's email address and a function that signs with its key; ``None``: it has no key."""
        with self._lock, self._explained():
            credentials = self._found()
            email = getattr(credentials, "signer_email", None)
            # The machine's account has a signer, too, but no key: it asks a service to sign.
            if not isinstance(email, str) or getattr(credentials.signer, "key_id", None) is None:
                return None
            sign: Callable[[bytes], bytes] = credentials.sign_bytes
            return email, sign

    def _found(self) -> Any:
        """Return google-auth's credentials; they are looked for once. The lock is held."""
        if self._credentials is None:
            self._credentials, self.project = self._find()
        return self._credentials

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn google-auth's errors in the block into apyfal's."""
        try:
            from google.auth import exceptions  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError:
            raise MountError("gs: Google's credentials need google-auth: pip install 'apyfal[gs]'") from None
        try:
            yield
        except OSError as error:
            raise MountError(f"gs: cannot read credentials_file {self._file!r}: {error.strerror}") from error
        except ValueError:  # its text may contain parts of the file
            raise MountError(f"gs: credentials_file {self._file!r} is none of Google's") from None
        except exceptions.GoogleAuthError as error:
            hint = "expected client_id and secret_id (HMAC), credentials_file, anonymous=True, or Google's own chain"
            reason = str(error.args[0] if error.args else error).partition("\n")[0][:200]
            raise AuthenticationError(f"gs: no credentials: {reason}; {hint}") from error

    def _request(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> SimpleNamespace:
        """Send a request for google-auth (`google.auth.transport.Request`)."""
        from google.auth import exceptions  # pyright: ignore[reportMissingImports]

        content = body.encode() if isinstance(body, str) else body
        try:
            origin, target, _user = split_url(url)
            pieces = (memoryview(content),) if content else ()
            response = self._client.request(method, origin, target, (headers or {}).items(), pieces)
            try:
                return SimpleNamespace(status=response.status, headers=response.headers, data=response.read())
            finally:
                response.close()
        except StorageError as error:
            failure: Any = exceptions.TransportError  # which has no annotations
            raise failure(error) from error

    def _find(self) -> tuple[Any, str | None]:
        """Give google-auth's credentials, and the project that they belong to."""
        import google.auth  # pyright: ignore[reportMissingImports]
        from google.oauth2 import service_account  # pyright: ignore[reportMissingImports]

        library: Any = google.auth  # half of it has no annotations
        if self._file is None:
            found: tuple[Any, str | None] = library.default(scopes=[_SCOPE], request=self._request)
            return found
        with open(self._file, encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, dict) and content.get("type") == "service_account":
            maker: Any = service_account.Credentials
            return maker.from_service_account_info(content, scopes=[_SCOPE]), content.get("project_id")
        found = library.load_credentials_from_file(self._file, scopes=[_SCOPE], request=self._request)
        return found
