"""Credentials, regions and endpoints the way AWS's own tools find them."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from apyfal.exceptions import AuthenticationError, MountError, StorageError
from apyfal.storage.stores.s3.sigv4 import Keys

__all__ = ["Credentials", "DefaultCredentialChain", "StaticCredentials", "default_endpoint", "default_region"]


class Credentials:
    """Where the keys of requests come from. This one has none: requests are not signed."""

    def keys(self) -> Keys | None:
        """Return the keys that are valid now; ``None`` for anonymous requests."""
        return None

    def refresh(self) -> bool:
        """Replace keys that the store calls expired; ``False`` if there are no others."""
        return False


class StaticCredentials(Credentials):
    """Keys that were given."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def keys(self) -> Keys:
        return self._keys


class DefaultCredentialChain(Credentials):
    """Keys that boto3 finds: environment, profiles, single sign-on, container and instance roles.

    Parameters
    ----------
    profile
        The profile's name, or ``None`` for the default.
    """

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._found: Any = None

    def keys(self) -> Keys:
        with self._lock:
            if self._found is None:
                self._found = self._look_up()
            found = self._found
        try:
            frozen = found.get_frozen_credentials()  # refreshes them before they expire
        except Exception as error:  # botocore's own, its parsers', those of STS and of the network
            raise AuthenticationError(f"cannot refresh the AWS credentials: {_first_line(error)}") from error
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def refresh(self) -> bool:
        before = self.keys()
        with self._lock:
            self._found = None
        return self.keys() != before

    def _look_up(self) -> Any:
        import boto3

        try:
            found = boto3.Session(profile_name=self._profile).get_credentials()
        except Exception as error:  # as above
            raise AuthenticationError(f"cannot get AWS credentials: {_first_line(error)}") from error
        if found is None:
            raise AuthenticationError(
                "no AWS credentials: give client_id and secret_id, or a profile, or anonymous=True for public data"
            )
        return found


def default_region(profile: str | None, *, light: bool) -> str | None:
    """Return the region that AWS's tools would use.

    Parameters
    ----------
    profile
        Whose configuration counts.
    light
        Look at the environment only, without importing botocore.

    Raises
    ------
    MountError
        There is no such profile.
    """
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region or light:
        return region
    import boto3
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        found = boto3.Session(profile_name=profile).region_name
    except ProfileNotFound as error:
        raise MountError(str(error)) from None
    except BotoCoreError as error:
        raise StorageError(f"cannot read the AWS configuration: {error}") from error
    return str(found) if found else None


def default_endpoint(profile: str | None) -> str | None:
    """Return the endpoint that AWS's tools would use instead of Amazon's; ``None`` if none is configured.

    In their order ("Service-specific endpoints" of the AWS SDKs reference): ``AWS_ENDPOINT_URL_S3``,
    ``AWS_ENDPOINT_URL``, ``endpoint_url`` below ``s3`` in the profile's ``services`` section, ``endpoint_url`` of the
    profile. Nothing with ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` or the profile's ``ignore_configured_endpoint_urls``.

    Raises
    ------
    MountError
        There is no such profile or ``services`` section; or the environment asks for endpoints that are not supported.
    """
    found = _named_endpoint(profile)
    for variable, host in (("AWS_USE_FIPS_ENDPOINT", "s3-fips"), ("AWS_USE_DUALSTACK_ENDPOINT", "s3.dualstack")):
        if found is None and _is_true(os.environ.get(variable)):
            raise MountError(
                f"s3: {variable} is not supported; expected endpoint_url='https://{host}.REGION.amazonaws.com'"
            )
    return found


def _named_endpoint(profile: str | None) -> str | None:
    if _is_true(os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")):
        return None
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    if named and profile is None and not _configured("ignore_configured_endpoint_urls"):
        return named
    if not _configured("endpoint_url"):  # reading the files as AWS does takes a library that is large
        return named
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        session = Session(profile=profile)
        scoped: Any = session.get_scoped_config()
        if _is_true(scoped.get("ignore_configured_endpoint_urls")):
            return None
        services: Any = {}
        if "services" in scoped:
            services = session.full_config.get("services", {}).get(scoped["services"])
            if services is None:
                raise MountError(f"s3: the AWS configuration has no [services {scoped['services']}]")
    except BotoCoreError as error:
        raise MountError(f"s3: {_first_line(error)}") from None
    found = named or services.get("s3", {}).get("endpoint_url") or scoped.get("endpoint_url")
    return str(found) if found else None


def _configured(word: str) -> bool:
    """Whether a word is anywhere in the files of AWS's tools."""
    files = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
    for variable, usual in files:
        with contextlib.suppress(OSError), open(os.path.expanduser(os.environ.get(variable) or usual), "rb") as file:
            if word.encode() in file.read(4 << 20):
                return True
    return False


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "true"  # as AWS's tools read it


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
