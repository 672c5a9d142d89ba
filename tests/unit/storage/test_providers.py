"""The table of providers, and what each says about itself."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from apyfal.exceptions import MountError
from apyfal.storage import providers
from apyfal.storage.handler import Handler
from apyfal.storage.mounting.parameters import accepted, takes_anything
from apyfal.storage.mounting.table import MountTable


@pytest.mark.parametrize("name", providers.BUILT_IN)
def test_the_table_and_the_handlers_agree(name: str) -> None:
    provider = providers.BUILT_IN[name]
    handler = providers.handler_factory(provider)
    if isinstance(handler, type) and issubclass(handler, Handler):
        assert handler.scheme == name
        assert handler.aliases == provider.aliases
        assert not inspect.isabstract(handler)
    if provider.buckets:
        assert {"client_id", "secret_id", "region", "endpoint_url"} <= set(accepted(handler))
        assert not takes_anything(handler)


def test_names() -> None:
    assert providers.canonical("aws") == "s3"
    assert providers.canonical("aws.lab") == "s3.lab"
    assert providers.canonical("other.aws") == "other.aws"
    assert providers.find("gcs") is providers.BUILT_IN["gs"]
    assert providers.find("nothing") is None
    assert {"s3", "aws", "azure", "file"} <= set(providers.names())


def test_a_provider_without_parameters(mounts: MountTable) -> None:
    with pytest.raises(MountError, match="unknown parameter of 'file'"):
        mounts.mount("data", provider="file", region="x")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("bucket.s3.eu-west-1.amazonaws.com/key", ["s3"]),
        ("s3.amazonaws.com/bucket/key", ["s3"]),
        ("s3.eu-west-1.amazonaws.com/bucket/key", ["s3"]),
        ("bucket.s3.cn-north-1.amazonaws.com.cn/key", ["s3"]),
        ("amazonaws.com.example/bucket/key", []),
        ("cloud.example/v1/AUTH_project/container/object", ["swift"]),
        ("cloud.example:8080/swift/v1/container/object", ["swift"]),
        ("cloud.example/v1/project/", []),
        ("bucket.oss-cn-hangzhou.aliyuncs.com/key", ["oss"]),
        ("storage.googleapis.com/bucket/key", ["gs"]),
        ("bucket.storage.googleapis.com/key", ["gs"]),
        ("account.blob.core.windows.net/container/blob", ["az"]),
        ("www.example/index.html", []),
    ],
)
def test_web_addresses(address: str, expected: list[str]) -> None:
    found = [provider.name for provider in providers.BUILT_IN.values() if provider.may_be_at(address, None)]
    assert found == expected


def test_the_endpoint_of_a_mount_is_its_own() -> None:
    provider = providers.BUILT_IN["s3"]
    assert provider.may_be_at("minio.lab:9000/bucket/key", "https://minio.lab:9000/")
    assert not provider.may_be_at("minio.lab:9000.example/bucket/key", "https://minio.lab:9000")


def test_using_local_files_imports_no_sdk() -> None:
    program = (
        "import sys, apyfal.storage as s; s.exists('/'); s.open('/dev/null').close(); s.mounts();"
        "bad = {'boto3', 'botocore', 'requests', 'fsspec', 'aiohttp'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
