"""10,000 small objects by `sync` and `process`: memory stays flat; killed ten times, each is written once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from servers.stores.ceph import Ceph

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT = 10_000
FEW = 1_000
#: KiB by which memory may grow from few files to all: two listings of about 1 KiB a file, and what allocators keep.
GROWTH = 2 * (COUNT - FEW) + (24 << 10)
BUCKET = "ten-thousand"
CONFIGURATION = """
[storage.lab]
provider     = s3
root         = {bucket}
endpoint_url = {server.endpoint_url}
client_id    = {server.access_key}
secret_id    = {server.secret_key}
region       = us-east-1
"""


class Run(NamedTuple):
    """How a command ended.

    Attributes
    ----------
    status
        Exit status; negative: the signal.
    memory
        Most memory that it held (KiB).
    """

    status: int
    memory: int


def content(number: int) -> bytes:
    return b"%d," % number * (number % 50 + 1)


@pytest.fixture
def client(ceph_server: Ceph, tmp_path: Path) -> Iterator[Any]:
    """A client of a bucket that keeps every version, so that what is written twice can be counted."""
    made = boto3.client(
        "s3",
        endpoint_url=ceph_server.endpoint_url,
        aws_access_key_id=ceph_server.access_key,
        aws_secret_access_key=ceph_server.secret_key,
        region_name="us-east-1",
    )
    made.create_bucket(Bucket=BUCKET)
    made.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    (tmp_path / "accelerator.conf").write_text(CONFIGURATION.format(bucket=BUCKET, server=ceph_server))
    yield made
    made.close()


def run(folder: Path, *arguments: str, kill: signal.Signals | None = None, after: float = 0.0) -> Run:
    """Run a command, and send it a signal some seconds after its start."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "apyfal", *arguments, "-q"], cwd=folder, stdout=log, stderr=log
        )
        if kill is not None:
            time.sleep(after)
            os.kill(process.pid, kill)  # not `send_signal`, which would take its status
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(process.returncode, used.ru_maxrss)


def versions(client: Any, prefix: str) -> Counter[str]:
    """Return how often each object below a prefix was written."""
    found: Counter[str] = Counter()
    for page in client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=prefix):
        found.update(one["Key"] for one in page.get("Versions", ()))
    return found


def interrupted(folder: Path, *arguments: str, seconds: float) -> int:
    """Run a command ten times and kill it at a random moment, then let it end; return how often it was killed."""
    chance = random.Random(11)
    killed = 0
    for number in range(10):
        kill = signal.SIGINT if number % 2 else signal.SIGKILL
        ended = run(folder, *arguments, kill=kill, after=0.3 + chance.uniform(0.0, seconds / 6))
        # interrupted before it has taken the signal over, Python ends by it
        assert ended.status in (0, 130, -signal.SIGINT, -signal.SIGKILL)
        killed += ended.status != 0
    last = run(folder, *arguments)
    assert last.status == 0, (folder / "log").read_text()[-2000:]
    return killed


def test_sync_and_process(client: Any, tmp_path: Path) -> None:
    for number in range(COUNT):
        file = tmp_path / "tree" / f"{number % 100:02}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(number))
    few = tmp_path / "few"
    few.mkdir()
    for number in range(FEW):
        (few / f"{number}").write_bytes(content(number))

    began = time.monotonic()
    small = run(tmp_path, "sync", "few", "lab://few")
    rate = FEW / (time.monotonic() - began)
    assert small.status == 0, (tmp_path / "log").read_text()
    expected = {f"tree/{number % 100:02}/{number}.txt" for number in range(COUNT)}
    assert interrupted(tmp_path, "sync", "tree", "lab://tree", seconds=COUNT / rate) >= 8
    assert versions(client, "tree/") == Counter(dict.fromkeys(expected, 1))
    again = run(tmp_path, "sync", "tree", "lab://tree")
    assert again.status == 0
    whole = run(tmp_path, "sync", "tree", "lab://whole")  # all of it in one run
    assert whole.status == 0
    assert max(again.memory, whole.memory) < small.memory + GROWTH

    job = ("process", "-a", "loopback", "--resume", "-r")
    began = time.monotonic()
    small = run(tmp_path, *job, "lab://few", "-o", "lab://few-out/{path}")
    rate = FEW / (time.monotonic() - began)
    assert small.status == 0, (tmp_path / "log").read_text()
    assert interrupted(tmp_path, *job, "lab://tree", "-o", "lab://out/{path}", seconds=COUNT / rate) >= 8
    assert versions(client, "out/") == Counter({name.replace("tree/", "out/"): 1 for name in expected})
    whole = run(tmp_path, *job, "lab://whole", "-o", "lab://whole-out/{path}")
    assert whole.status == 0
    assert whole.memory < small.memory + GROWTH

    assert run(tmp_path, "sync", "lab://out", "back").status == 0
    for number in range(COUNT):
        assert (tmp_path / "back" / f"{number % 100:02}" / f"{number}.txt").read_bytes() == content(number)
