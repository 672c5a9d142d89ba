"""What AWS's tools find in the environment and its files: endpoints, in their order; and names that lead elsewhere."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, InvalidURL, MountError
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.url import parse

KEYS = {"client_id": "key", "secret_id": "hidden"}
AWS = "https://bucket.s3.us-east-1.amazonaws.com"
CONFIG = """\
[default]
endpoint_url = http://default.test
[profile global]
endpoint_url = http://global.test
[profile service]
endpoint_url = http://global.test
services = lab
[profile ignoring]
endpoint_url = http://global.test
ignore_configured_endpoint_urls = true
[profile broken]
services = nothing
[profile other]
services = elsewhere
[services lab]
s3 =
  endpoint_url = http://service.test
[services elsewhere]
dynamodb =
  endpoint_url = http://dynamo.test
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return tmp_path


def endpoint(**parameters: object) -> str:
    """Give the origin that a request on a bucket goes to."""
    return str(S3Handler(**parameters)._s3._address("bucket", "key", "us-east-1")[0])  # type: ignore[arg-type]


@functools.cache
def endpoint_of_the_sdk(environ: tuple[tuple[str, str], ...], config: str) -> str:
    """Give what the SDK itself finds, once it is all set: an independent reference. A client of its own takes long."""
    boto3 = pytest.importorskip("boto3")
    client = boto3.Session().client("s3", aws_access_key_id="a", aws_secret_access_key="b")
    return str(client.meta.endpoint_url)


@pytest.mark.parametrize("keys", [KEYS, {}, {"anonymous": True}], ids=["keys", "chain", "anonymous"])
@pytest.mark.parametrize(
    ("environ", "config", "expected"),
    [
        ({}, "", AWS),
        ({"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": ""}, "", AWS),
        ({"AWS_ENDPOINT_URL": "http://all.test"}, "", "http://all.test"),
        ({"AWS_ENDPOINT_URL_S3": "http://s3.test"}, "", "http://s3.test"),
        ({"AWS_ENDPOINT_URL": "http://all.test", "AWS_ENDPOINT_URL_S3": "http://s3.test"}, "", "http://s3.test"),
        ({"AWS_ENDPOINT_URL": "http://all.test", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, CONFIG, AWS),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "http://dynamo.test"}, "", AWS),
        ({}, CONFIG, "http://default.test"),
        ({"AWS_ENDPOINT_URL": "http://all.test"}, CONFIG, "http://all.test"),
        ({"AWS_PROFILE": "global"}, CONFIG, "http://global.test"),
        ({"AWS_PROFILE": "service"}, CONFIG, "http://service.test"),
        ({"AWS_PROFILE": "service", "AWS_ENDPOINT_URL": "http://all.test"}, CONFIG, "http://all.test"),
        ({"AWS_PROFILE": "ignoring"}, CONFIG, AWS),
        ({"AWS_PROFILE": "ignoring", "AWS_ENDPOINT_URL": "http://all.test"}, CONFIG, AWS),
        ({"AWS_PROFILE": "other"}, CONFIG, AWS),
    ],
)
def test_endpoints_as_the_sdk_finds_them(
    environ: Mapping[str, str],
    config: str,
    expected: str,
    keys: dict[str, object],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(config)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert endpoint(**keys) == expected
    theirs = endpoint_of_the_sdk(tuple(environ.items()), config)
    assert theirs == expected or (expected == AWS and theirs.endswith(".amazonaws.com"))
    # what is given counts, and without `ambient` nothing else does
    assert endpoint(**keys, endpoint_url="http://given.test") == "http://given.test"
    if keys:
        assert str(S3Handler(False, **keys)._s3._address("bucket", "k", "us-east-1")[0]) == AWS  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [KEYS, {}, {"anonymous": True}], ids=["keys", "chain", "anonymous"])
@pytest.mark.parametrize("variable", ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"])
def test_endpoints_of_another_kind_are_refused_by_name(
    variable: str, keys: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to go to one of them, or nowhere, is not sent to another."""
    monkeypatch.setenv(variable, "True")
    with pytest.raises(MountError, match=f"{variable} is not supported; expected endpoint_url"):
        endpoint(**keys)
    assert endpoint(**keys, endpoint_url="http://given.test") == "http://given.test"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://named.test")
    assert endpoint(**keys) == "http://named.test"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv(variable, "false")
    assert endpoint(**keys) == AWS


def test_a_profile_that_is_named(home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(CONFIG)
    assert endpoint(profile="service") == "http://service.test"
    for profile, message in (("broken", "no \\[services nothing\\]"), ("nobody", "nobody")):
        with pytest.raises(MountError, match=message):
            endpoint(profile=profile)


def test_given_keys_load_no_large_library(home: Path) -> None:
    script = "import sys; from apyfal.storage.stores.s3.handler import S3Handler as H; H(client_id='a', secret_id='b');"
    found = subprocess.run(
        [sys.executable, "-c", script + "print([n for n in ('boto3', 'botocore') if n in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"


# -- names that are not a bucket's ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "arn:aws:s3:us-west-2:123456789012:accesspoint/name/key",
        "arn:aws:s3:us-west-2:123456789012:accesspoint:name/key",
        "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/name/key",
        "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/key",
        "arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/name/key",
        "arn:aws:s3-outposts:us-east-1:123456789012:outpost/op-1/accesspoint/name/key",
        "arn:aws:s3:::bucket/key",
        "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/name/key",
        "arn:aws-eusc:s3:eusc-de-east-1:123456789012:accesspoint/name/key",
        "ARN:AWS:S3:::bucket/key",
        "../key",
        "./key",
        "data--usw2-az1--x-s3/key",
        "point--usw2-az1--xa-s3/key",
    ],
)
def test_names_that_lead_elsewhere_are_refused_and_sent_nowhere(path: str) -> None:
    handler = S3Handler(**KEYS)  # type: ignore[arg-type]
    asked: list[str] = []

    def gate(host: str, port: int) -> list[str]:
        asked.append(host)
        raise InvalidURL("asked")

    handler.client.gate = gate
    calls = (
        lambda: handler.describe(path),
        lambda: handler.read(path, 0, None, None),
        lambda: handler.put(path, memoryview(b"x"), None),
        lambda: handler.upload(path, size=1),
        lambda: handler.remove(path),
        lambda: list(handler.list(path)),
        lambda: handler.makedirs(path),
    )
    for call in calls:
        with pytest.raises(InvalidURL, match="not supported; expected"):
            call()
    assert not asked


def test_other_names_are_a_buckets() -> None:
    for bucket in ("name-abcdef-s3alias", "x-s3", "a--b", "my.bucket"):
        S3Handler(**KEYS)._s3._address(bucket, "key", "us-east-1")  # type: ignore[arg-type]
    # another store's buckets may be called as it likes
    S3Handler(**KEYS, endpoint_url="http://lab.test")._s3._address("a--x-s3", "k", "r")  # type: ignore[arg-type]


# -- names of parameters -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("provider", ["s3", "oss", "gs"])
def test_keys_by_the_names_of_the_sdk(provider: str, mounts: MountTable, home: Path) -> None:
    given = {"access_key_id": "me", "secret_access_key": "hidden", "endpoint_url": "http://127.0.0.1:9"}
    mounts.mount("called", provider=provider, **given)  # type: ignore[arg-type]
    with mounts.resolve(parse("called://bucket/key")) as target:
        assert (target.handler._s3._credentials.keys().access, target.handler._s3._credentials.keys().secret) == (  # type: ignore[attr-defined]
            "me",
            "hidden",
        )
    file = home / "apyfal.conf"
    lines = "".join(f"{name} = {value}\n" for name, value in given.items())
    file.write_text(f"[storage.filed]\nprovider = {provider}\n{lines}")
    mounts.mount("filed", config=file)
    info = mounts.mounts()["filed"].parameters
    assert info["client_id"] == "me"
    assert info["secret_id"] == "***"
    with pytest.raises((MountError, ConfigurationError), match="another name of 'client_id'"):
        mounts.mount("twice", provider=provider, client_id="me", access_key_id="you", secret_id="x")
    assert "hidden" not in repr(mounts.snapshot())


def test_a_secret_goes_with_its_own_account_whatever_it_is_called(mounts: MountTable, home: Path) -> None:
    file = home / "apyfal.conf"
    file.write_text("[storage.filed]\nprovider = s3\naccess_key_id = one\nsecret_access_key = of-one\n")
    mounts.mount("filed", config=file, client_id="two")
    assert "secret_id" not in mounts.mounts()["filed"].parameters


def test_other_providers_have_no_such_names(mounts: MountTable) -> None:
    for provider in ("az", "swift"):
        with pytest.raises(MountError, match="unknown parameter"):
            mounts.mount("called", provider=provider, access_key_id="me")
