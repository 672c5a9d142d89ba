"""Who an Azure Blob mount is: account key, shared access signature, Microsoft Entra token, or nobody.

Shared Key follows "Authorize with Shared Key" of the Azure Storage REST reference. Tokens are obtained by
azure-identity (``pip install 'apyfal[az]'``), which is the authority on where a machine's identity comes from, and
sends its own requests; a mount that may use nothing of this machine, such as a client's on a host, never asks it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from apyfal.exceptions import AuthenticationError, MountError

__all__ = ["Anonymous", "Credential", "EntraToken", "SharedAccessSignature", "SharedKey", "settings_of_connection"]

#: Scope of tokens for every storage account (REST reference, "Authorize with Microsoft Entra ID").
_SCOPE = "https://storage.azure.com/.default"
#: Header fields of the string to sign, in its order; Content-Length is handled apart.
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


class Credential(ABC):
    """Adds to requests what makes the store accept them."""

    @abstractmethod
    def authorize(
        self, method: str, target: str, headers: list[tuple[str, str]], length: int
    ) -> tuple[str, list[tuple[str, str]]]:
        """Return the request target and header fields to send.

        Parameters
        ----------
        method, target, headers
            Of the request; `target` is percent-encoded and begins at the server's root.
        length
            Bytes of its body.
        """


#: Permissions of a shared access signature by the method that they allow ("Create a service SAS").
_PERMISSIONS = {"GET": "r", "HEAD": "r", "PUT": "cw", "DELETE": "d"}


class Anonymous(Credential):
    """For containers that everybody may read."""

    def authorize(
        self, method: str, target: str, headers: list[tuple[str, str]], length: int
    ) -> tuple[str, list[tuple[str, str]]]:
        """Add nothing."""
        return target, headers


class SharedAccessSignature(Credential):
    """A signed query string that somebody handed out.

    Parameters
    ----------
    sas
        With or without its leading ``?``.
    """

    def __init__(self, sas: str) -> None:
        self._sas = sas.strip().lstrip("?")
        if "sig=" not in self._sas:
            raise MountError("azure: the sas has no 'sig='; expected the query string of a shared access signature")

    def authorize(
        self, method: str, target: str, headers: list[tuple[str, str]], length: int
    ) -> tuple[str, list[tuple[str, str]]]:
        """Append the signature to the query."""
        return f"{target}{'&' if '?' in target else '?'}{self._sas}", headers


class SharedKey(Credential):
    """An account's name and key.

    Parameters
    ----------
    account
        Its name.
    key
        Base64, as the portal shows it.
    """

    def __init__(self, account: str, key: str) -> None:
        self._account = account
        try:
            self._key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise MountError(
                "azure: secret_id is not an account key; expected the Base64 text that the portal shows"
            ) from None

    def authorize(
        self, method: str, target: str, headers: list[tuple[str, str]], length: int
    ) -> tuple[str, list[tuple[str, str]]]:
        """Sign the request."""
        headers = [*headers, ("x-ms-date", formatdate(usegmt=True))]
        fields = {name.lower(): value for name, value in headers}
        fields["content-length"] = str(length) if length else ""
        lines = [method, *(fields.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{' '.join(fields[name].split())}" for name in sorted(fields) if name.startswith("x-ms-")]
        parts = urlsplit(target)
        lines.append(f"/{self._account}{parts.path}")
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            query.setdefault(name.lower(), []).append(value)
        lines += [f"{name}:{','.join(sorted(query[name]))}" for name in sorted(query)]
        signature = hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).digest()
        authorization = f"SharedKey {self._account}:{base64.b64encode(signature).decode()}"
        return target, [*headers, ("Authorization", authorization)]

    def signed_query(self, method: str, path: str, seconds: int, *, secure: bool, version: str) -> str:
        """Return the query of a shared access signature for one blob ("Create a service SAS", REST reference).

        Parameters
        ----------
        method, seconds
            What it allows, and for how long.
        path
            ``container/blob``, not encoded.
        secure
            Whether it is good over https alone.
        version
            Of the protocol, from 2020-12-06 on.
        """
        fields = {
            "sp": _PERMISSIONS[method],
            "se": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds)),
            "spr": "https" if secure else "https,http",
            "sv": version,
            "sr": "b",
        }
        resource = f"/blob/{self._account}/{path}"
        # start, identifier, address range, snapshot, encryption scope and five headers of the response: none
        lines = [fields["sp"], "", fields["se"], resource, "", "", fields["spr"], version, "b", *[""] * 7]
        signature = hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).digest()
        return urlencode({**fields, "sig": base64.b64encode(signature).decode()})


class EntraToken(Credential):
    """A token of Microsoft Entra ID: a managed identity, a service principal, or whoever is signed in.

    Parameters
    ----------
    source
        A credential of azure-identity, or anything else with its ``get_token``.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    @classmethod
    def find(
        cls,
        *,
        tenant_id: str | None,
        client_id: str | None,
        secret_id: str | None,
        managed_identity: bool,
        authority: str | None,
    ) -> EntraToken:
        """Choose azure-identity's credential for what was given."""
        try:
            from azure import identity
        except ImportError:
            raise MountError(
                "azure: tokens of Microsoft Entra ID need azure-identity: pip install 'apyfal[az]'"
            ) from None
        if tenant_id is not None:
            if not client_id or not secret_id:
                raise MountError("azure: tenant_id needs client_id and secret_id, those of the service principal")
            # Microsoft's public cloud knows nothing of another one's authority, so it is not asked about it.
            place: dict[str, Any] = {"authority": authority, "disable_instance_discovery": True} if authority else {}
            return cls(identity.ClientSecretCredential(tenant_id, client_id, secret_id, **place))
        if managed_identity:
            return cls(identity.ManagedIdentityCredential(client_id=client_id))
        return cls(identity.DefaultAzureCredential(managed_identity_client_id=client_id))

    def authorize(
        self, method: str, target: str, headers: list[tuple[str, str]], length: int
    ) -> tuple[str, list[tuple[str, str]]]:
        """Add the token; azure-identity keeps and renews it."""
        try:
            token = self._source.get_token(_SCOPE).token
        except Exception as error:  # azure-identity documents several, all of other libraries
            reason = str(error).strip().partition("\n")[0][:200]
            raise AuthenticationError(f"azure: no token of Microsoft Entra ID: {reason}") from error
        return target, [*headers, ("Authorization", f"Bearer {token}")]


def settings_of_connection(
    text: str | None, account: str | None = None, *, environ: Mapping[str, str]
) -> dict[str, str]:
    """Read a connection string, or without one the environment variables of Azure's tools.

    Parameters
    ----------
    text
        The connection string, if there is one.
    account
        The account, if it is known. Variables that are about another one say nothing of it.
    environ
        The variables.

    Returns
    -------
    dict
        Some of ``account``, ``key``, ``sas``, ``endpoint``.

    Raises
    ------
    MountError
        For a text that is not a connection string; it is not repeated, as it holds a key.
    """
    if not text:
        names = {"account": "AZURE_STORAGE_ACCOUNT", "key": "AZURE_STORAGE_KEY", "sas": "AZURE_STORAGE_SAS_TOKEN"}
        whole = environ.get("AZURE_STORAGE_CONNECTION_STRING")
        if whole:
            found = settings_of_connection(whole, environ={})
        else:
            found = {name: environ[variable] for name, variable in names.items() if environ.get(variable)}
        return {} if account is not None and found.get("account", account) != account else found
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    fields = {name: value for name, _, value in parts}
    keys = {"AccountName": "account", "AccountKey": "key", "SharedAccessSignature": "sas", "BlobEndpoint": "endpoint"}
    found = {name: fields[field] for field, name in keys.items() if fields.get(field)}
    if "account" not in found and "endpoint" not in found:
        raise MountError("azure: the connection string has neither AccountName nor BlobEndpoint")
    if "endpoint" not in found:
        protocol = fields.get("DefaultEndpointsProtocol", "https")
        suffix = fields.get("EndpointSuffix", "core.windows.net")
        found["endpoint"] = f"{protocol}://{found['account']}.blob.{suffix}"
    return found
