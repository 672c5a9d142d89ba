"""The first example of the documentation, as written, against a real store, with nothing but a configuration file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from servers.stores.ceph import Ceph

EXAMPLE = """
import apyfal

with apyfal.Accelerator(accelerator="my_accelerator") as myaccel:
    myaccel.start(src="my_storage://coefficients")
    myaccel.process(src="my_storage://src", dst="my_storage://dst")
"""
CONFIGURATION = """
[accelerator.my_accelerator]
driver    = emulator
kernel    = loopback

[storage.my_storage]
provider     = s3
root         = examples/2026
endpoint_url = {url}
client_id    = {key}
secret_id    = {secret}
region       = us-east-1
"""


@pytest.mark.server
def test_the_first_example(ceph_server: Ceph, tmp_path: Path) -> None:
    url, key, secret = ceph_server.endpoint_url, ceph_server.access_key, ceph_server.secret_key
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )
    client.create_bucket(Bucket="examples")
    data = bytes(range(256)) * 50_000
    client.put_object(Bucket="examples", Key="2026/coefficients", Body=b"1 2 3")
    client.put_object(Bucket="examples", Key="2026/src", Body=data)
    (tmp_path / "accelerator.conf").write_text(CONFIGURATION.format(url=url, key=key, secret=secret))
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    with client.get_object(Bucket="examples", Key="2026/dst")["Body"] as body:
        assert body.read() == data
    command = [sys.executable, "-m", "apyfal", "ls", "my_storage://"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert {"coefficients", "dst", "src"} <= set(listed.stdout.split())
    client.close()
