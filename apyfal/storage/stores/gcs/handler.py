"""Google Cloud Storage.

With tokens (a service account, the machine's own, whoever is signed in): the JSON API over apyfal's own connections.
google-cloud-storage hands out `bytes` and copies what it uploads; a GET of this API is a body that can be received at
its final address, and its CRC-32C covers every object. Parts of an upload are objects of their own that the store
composes: unlike its resumable uploads, they can be sent in parallel.

With an HMAC key (`client_id` and `secret_id`): the S3-compatible XML API, the only one that takes such keys, through
the S3 handler. It has no exclusive writing, and states no CRC-32C that way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from apyfal.exceptions import MountError
from apyfal.storage.http.origin import split_url
from apyfal.storage.http.pool import ConnectionPool, Timeouts
from apyfal.storage.metadata import HTTP_FIELDS
from apyfal.storage.stores.gcs.auth import Tokens
from apyfal.storage.stores.gcs.removal import GSHandler
from apyfal.storage.stores.s3.handler import S3Handler

__all__ = ["open_gs"]

_SERVICE = "https://storage.googleapis.com"


def open_gs(
    ambient: bool = True,
    /,
    *,
    client_id: str | None = None,
    secret_id: str | None = None,
    region: str | None = None,
    endpoint_url: str | None = None,
    project: str | None = None,
    credentials_file: str | None = None,
    anonymous: bool = False,
    verify: str | bool = True,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    proxy: str | None = None,
) -> S3Handler | GSHandler:
    """Make the handler of the protocol that the credentials are for.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id
        An HMAC key.
    region
        Where buckets are made with an HMAC key.
    endpoint_url
        Of another server than Google's; by default ``$STORAGE_EMULATOR_HOST``, without credentials, if that is set.
    project
        That buckets are listed and made in; by default that of the credentials.
    credentials_file
        Of a service account or an external account. Without it google-auth looks in the usual places.
    anonymous
        Whether to be nobody.
    verify, timeout, connect_timeout, proxy
        As for `apyfal.storage.stores.s3.handler.S3Handler`.

    Raises
    ------
    MountError
        A parameter is wrong, or there are no credentials.
    """
    if (client_id is None) != (secret_id is None):
        raise MountError("gs: client_id and secret_id come together: they are an HMAC key")
    if client_id is not None and (credentials_file is not None or anonymous):
        raise MountError("gs: an HMAC key (client_id), credentials_file and anonymous exclude each other")
    environ: Mapping[str, str] = os.environ if ambient else {}
    if not ambient and client_id is None and not anonymous:
        raise MountError("gs: no credentials; expected client_id and secret_id (an HMAC key), or anonymous=True")
    emulator = environ.get("STORAGE_EMULATOR_HOST")
    if endpoint_url is None and emulator:
        endpoint_url = emulator if "://" in emulator else f"http://{emulator}"
        anonymous = anonymous or (client_id is None and credentials_file is None)
    endpoint_url = endpoint_url or _SERVICE
    if client_id is not None:
        return _Interoperable(
            ambient,
            client_id=client_id,
            secret_id=secret_id,
            region=region or "auto",
            endpoint_url=endpoint_url,
            addressing="path",
            checksum="none",
            verify=verify,
            timeout=timeout,
            connect_timeout=connect_timeout,
            proxy=proxy,
        )
    tokens = None
    if not anonymous:
        tokens = Tokens(credentials_file, ConnectionPool(Timeouts.of(timeout, connect_timeout), proxy=proxy))
    return GSHandler(
        ambient,
        split_url(endpoint_url)[0],
        tokens,
        project or environ.get("GOOGLE_CLOUD_PROJECT"),
        verify=verify,
        timeout=timeout,
        connect_timeout=connect_timeout,
        proxy=proxy,
    )


class _Interoperable(S3Handler):
    """The XML API, as an S3 client uses it."""

    scheme = "gs"
    conditional_writes = False
    metadata_fields = (*HTTP_FIELDS, "storage_class", "acl", "user")
    why_unconditional = "not possible with an HMAC key; mount gs with credentials_file"
