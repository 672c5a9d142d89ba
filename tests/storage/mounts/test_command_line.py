"""``apyfal copy`` and ``apyfal ls`` of patterns and directories between a folder and real stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from servers.stores.ceph import Ceph
from servers.stores.moto import Moto

CONFIGURATION = """
[storage.{name}]
provider     = s3
root         = {bucket}/tree
endpoint_url = {server.endpoint_url}
client_id    = {server.access_key}
secret_id    = {server.secret_key}
region       = us-east-1
"""


def client_of(server: Ceph | Moto) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )


def make_bucket(server: Ceph | Moto, name: str) -> None:
    client = client_of(server)
    client.create_bucket(Bucket=name)
    client.close()


def apyfal(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "apyfal", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.server
def test_a_tree_to_one_store_to_another_and_back(ceph_server: Ceph, moto_server: Moto, tmp_path: Path) -> None:
    configuration = ""
    for name, server in (("first", ceph_server), ("second", moto_server), ("third", moto_server)):
        bucket = f"command-line-{name}"
        make_bucket(server, bucket)
        configuration += CONFIGURATION.format(name=name, bucket=bucket, server=server)
    (tmp_path / "accelerator.conf").write_text(configuration)
    expected = {}
    for number in range(30):
        path = Path("deep" if number % 2 else ".") / f"part {number:02}.{'bin' if number % 3 else 'txt'}"
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        expected[str(path)] = bytes([number]) * number * 1000
        (tmp_path / "tree" / path).write_bytes(expected[str(path)])
    apyfal(tmp_path, "copy", "-r", "tree", "first://run")
    apyfal(tmp_path, "copy", "-r", "first://run", "second://again")
    apyfal(tmp_path, "copy", "-r", "second://again", "back")
    back = tmp_path / "back"
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == expected
    apyfal(tmp_path, "copy", "second://again/deep/*.txt", "texts")
    apyfal(tmp_path, "copy", "-r", "second://", "root")  # the mount itself, to a folder and to another mount
    apyfal(tmp_path, "copy", "-r", "back/deep", "third://")
    assert len(list((tmp_path / "root/again/deep").iterdir())) == 15
    assert apyfal(tmp_path, "ls", "third://") == apyfal(tmp_path, "ls", "second://again/deep")
    wanted = {Path(name).name for name in expected if name.startswith("deep/") and name.endswith(".txt")}
    assert {p.name for p in (tmp_path / "texts").iterdir()} == wanted
    assert len(apyfal(tmp_path, "ls", "first://run/**/*.bin")) == 2 * sum(name.endswith(".bin") for name in expected)


@pytest.mark.server
@pytest.mark.parametrize("key", ["tree/deep/../../../escaped", "tree/deep/./inside"])
def test_names_that_lead_out_of_the_destination_are_refused(moto_server: Moto, tmp_path: Path, key: str) -> None:
    bucket = "command-line-hostile"
    make_bucket(moto_server, bucket)
    client = client_of(moto_server)
    client.put_object(Bucket=bucket, Key=key, Body=b"hostile")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/accelerator.conf").write_text(CONFIGURATION.format(name="lab", bucket=bucket, server=moto_server))
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "apyfal", "copy", "-r", "lab://deep", "new/out"],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    client.delete_object(Bucket=bucket, Key=key)
    client.close()
    assert done.returncode == 2
    assert "would not be in 'new/out'" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
