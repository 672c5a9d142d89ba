"""Which credentials each provider would find on this machine, and where; never the secrets themselves."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from apyfal.doctor.finding import Finding
from apyfal.log import redact_text

__all__ = ["check_aws", "check_azure", "check_google", "check_host", "check_swift"]

#: As `apyfal token create` prints them.
_TOKEN = re.compile(r"apf_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
#: By botocore's name for the source: what renews it.
_LOGIN = {
    "sso": "aws sso login",
    "sso-login": "aws sso login",
    "assume-role": "renew the credentials of the source profile",
}


def check_aws() -> Iterator[Finding]:
    """Say where Amazon's credentials come from. An instance's role is not asked for: that needs its network."""
    try:
        import boto3
    except ImportError as error:
        yield Finding("credentials", "problem", f"s3: boto3 cannot be imported: {_line(error)}", "pip install boto3")
        return
    before = os.environ.get("AWS_EC2_METADATA_DISABLED")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    try:
        found = boto3.Session().get_credentials()
    except Exception as error:  # botocore's own, its parsers', those of the files
        yield Finding("credentials", "problem", f"s3: {_line(error)}", "correct ~/.aws/config or the AWS_ variables")
        return
    finally:
        if before is None:
            del os.environ["AWS_EC2_METADATA_DISABLED"]
        else:
            os.environ["AWS_EC2_METADATA_DISABLED"] = before
    if found is None:
        yield Finding("credentials", "note", "s3: none found on this machine (an instance's role is not looked for)")
        return
    remedy = _LOGIN.get(found.method, "get new ones from whoever issued them")
    stated = os.environ.get("AWS_CREDENTIAL_EXPIRATION") if found.method == "env" else None
    if stated and (ended := _ended(stated)):
        yield Finding("credentials", "problem", f"s3: those from {found.method} expired {ended}", remedy)
        return
    try:
        frozen = found.get_frozen_credentials()
    except Exception as error:  # as above, and those of the network
        yield Finding("credentials", "problem", f"s3: those from {found.method} cannot be used: {_line(error)}", remedy)
        return
    shown = f"{frozen.access_key[:4]}..." if frozen.access_key else "without a key id"
    yield Finding("credentials", "ok", f"s3: from {found.method}, key id {shown}")


def check_google() -> Iterator[Finding]:
    """Say where Google's application default credentials would come from."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    root = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config/gcloud")
    file = Path(named) if named else root / "application_default_credentials.json"
    origin = "$GOOGLE_APPLICATION_CREDENTIALS" if named else "gcloud's application default"
    if not named and not file.exists():
        yield Finding("credentials", "note", "gs: none found on this machine", "gcloud auth application-default login")
        return
    try:
        kind = json.loads(file.read_text())["type"]
    except OSError as error:
        yield Finding(
            "credentials", "problem", f"gs: {origin} names {file}: {error.strerror}", "name a file that can be read"
        )
    except (ValueError, KeyError, TypeError):
        yield Finding(
            "credentials",
            "problem",
            f"gs: {file} ({origin}) holds no credentials in JSON",
            "gcloud auth application-default login, or download the key again",
        )
    else:
        yield Finding("credentials", "ok", f"gs: from {origin}, of type {str(kind)[:40]!r}")


def check_azure() -> Iterator[Finding]:
    """Say which of Azure's sources the environment names."""
    sources = {
        "a service principal": ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
        "a workload identity": ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
        "a connection string": ("AZURE_STORAGE_CONNECTION_STRING",),
    }
    found = [what for what, names in sources.items() if all(os.environ.get(name) for name in names)]
    token = os.environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if token and not os.access(token, os.R_OK):
        yield Finding(
            "credentials",
            "problem",
            f"az: $AZURE_FEDERATED_TOKEN_FILE names {token}, which cannot be read",
            "check the mount",
        )
    if not found and (Path.home() / ".azure/azureProfile.json").exists():
        found = ["the login of the Azure CLI"]
    if found:
        yield Finding("credentials", "ok", f"az: {', '.join(found)}")
    else:
        yield Finding("credentials", "note", "az: none found on this machine", "az login")


def check_swift() -> Iterator[Finding]:
    """Say whether OpenStack's variables are complete."""
    given = {name for name in os.environ if name.startswith("OS_")}
    if "OS_AUTH_URL" not in given:
        yield Finding("credentials", "note", "swift: none found on this machine", "source openrc.sh")
        return
    complete = ({"OS_USERNAME", "OS_PASSWORD"}, {"OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET"})
    if any(names <= given for names in complete):
        yield Finding("credentials", "ok", "swift: from the environment (OS_AUTH_URL and others)")
    else:
        yield Finding(
            "credentials",
            "problem",
            "swift: OS_AUTH_URL is set, but no user with a password and no application credential",
            "source openrc.sh again",
        )


def check_host() -> Iterator[Finding]:
    """Say whether there is a token for remote hosts."""
    token = os.environ.get("APYFAL_TOKEN")
    if token is None:
        yield Finding(
            "credentials", "note", "host: no $APYFAL_TOKEN", "export APYFAL_TOKEN=apf_..., from 'apyfal token create'"
        )
    elif not _TOKEN.fullmatch(token):
        yield Finding(
            "credentials",
            "problem",
            "host: $APYFAL_TOKEN is not a token: expected apf_, 12 hexadecimal digits, _ and 43 characters",
            "export APYFAL_TOKEN=apf_..., without blanks or quotation marks",
        )
    else:
        yield Finding("credentials", "ok", "host: from $APYFAL_TOKEN")


def _ended(text: str) -> str | None:
    """Return when it was, if a time of ISO 8601 is over."""
    try:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.timezone.utc)
    return when.isoformat() if when < datetime.datetime.now(datetime.timezone.utc) else None


def _line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:200]
    return redact_text(text) or type(error).__name__
