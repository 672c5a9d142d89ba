"""What a configuration file alone makes work, against a real S3 server: the documented examples, as written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers.stores.moto import Moto

import apyfal
from apyfal import storage
from apyfal.exceptions import InvalidURL, ObjectNotFound
from apyfal.storage.mounting import table
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.url import parse

pytestmark = pytest.mark.server

DATA = np.arange(3_000_000, dtype=np.uint8)


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_server: Moto) -> Iterator[Path]:
    """A configuration with a host and a storage of one's own, found in the home directory."""
    bucket = f"bucket-{os.getpid()}-{abs(hash(tmp_path.name)) % 10_000}"
    home = tmp_path / "home"
    home.mkdir()
    (home / "accelerator.conf").write_text(
        f"""
[host]
host_type = aws
region = {moto_server.region}
endpoint_url = {moto_server.endpoint_url}

[host.aws]
client_id = {moto_server.access_key}
secret_id = {moto_server.secret_key}

[storage.my_storage]
client_id = my_client_id
secret_id = my_secret_id
root = {bucket}/prefix

[accelerator.my_accelerator]
driver = emulator
kernel = loopback
"""
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    table.table.clear()
    storage.makedirs(f"s3://{bucket}")
    yield Path(bucket)
    table.table.clear()


def test_a_job_over_a_configured_store(configuration: Path) -> None:
    storage.save("my_storage://coefficients", DATA)
    storage.save("my_storage://src", DATA)
    with apyfal.Accelerator(accelerator="my_accelerator") as myaccel:
        myaccel.start(src="my_storage://coefficients")
        myaccel.process(src="my_storage://src", dst="my_storage://dst")
    assert np.array_equal(storage.load("my_storage://dst"), DATA)
    assert storage.listdir("my_storage://") == ["coefficients", "dst", "src"]
    assert storage.listdir(f"s3://{configuration}/prefix") == ["coefficients", "dst", "src"]
    assert storage.glob("my_storage://s*") == ["my_storage://src"]


def test_the_hosts_store_is_there_under_each_of_its_names(configuration: Path) -> None:
    storage.save(f"aws://{configuration}/key", DATA)
    assert storage.stat(f"s3://{configuration}/key").size == len(DATA)
    info = storage.mounts()["s3"]
    assert info.parameters["secret_id"] == "***"
    assert info.origins["secret_id"].endswith("[host.aws] secret_id")
    assert info.origins["region"].endswith("[host] region")


def test_a_mount_in_one_call(configuration: Path) -> None:
    storage.mount(storage_type="other", client_id="a", secret_id="b", root=str(configuration))
    with storage.open("other://text", "w", encoding="utf-8") as file:
        file.write("hello")
    with storage.open(f"s3://{configuration}/text", "r", encoding="utf-8") as file:
        assert file.read() == "hello"
    storage.unmount("other")
    with pytest.raises(InvalidURL, match="unmounted"):
        storage.open("other://text")


def test_the_full_address_of_an_object_goes_to_its_store(configuration: Path, moto_server: Moto) -> None:
    storage.save(f"s3://{configuration}/a key", DATA)
    address = f"{moto_server.endpoint_url}/{configuration}/a%20key"
    with table.resolve(parse(address)) as target:
        assert isinstance(target.handler, S3Handler)
    assert np.array_equal(storage.load(address), DATA)
    with table.resolve(parse(f"{address}?X-Amz-Signature=x")) as target:
        assert not isinstance(target.handler, S3Handler)


@pytest.mark.parametrize(
    "key",
    ["a b", " leading", "trailing ", "a%20b", "a%2Fb", "a?b=c", "a#b", "a&b=c+d", "ключ", "a//b", "a/", "~.-_'()*!"],
)
def test_keys_are_verbatim(configuration: Path, tmp_path: Path, key: str) -> None:
    url = f"s3://{configuration}/keys/{key}"
    storage.save(url, DATA[:100])
    assert np.array_equal(storage.load(url), DATA[:100])
    copied = f"s3://{configuration}/copies/{key}"
    storage.copy(url, copied) if not key.endswith("/") else storage.save(copied, DATA[:100])
    assert storage.exists(copied)
    below, found = f"s3://{configuration}/copies", []
    for top, _, names in storage.walk(below):
        found += [f"{top}/{name}".removeprefix(below + "/") for name in names]
    if "//" not in key and not key.endswith("/"):  # which no listing by directories can show
        assert found == [key]
    storage.remove(copied)
    storage.remove(url)
    with pytest.raises(ObjectNotFound):
        storage.load(url)
