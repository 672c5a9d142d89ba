"""Small objects by `sync` and `process`: memory stays flat over 10,000; killed in mid-work, each is written once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from servers.stores.ceph import Ceph
from servers.stores.moto import Moto

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 10_000
FEW = 1_000
#: KiB by which memory may grow from few files to all: what is held of each, at most 2 KiB, and what allocators keep.
GROWTH = 2 * (COUNT - FEW) + (24 << 10)
#: Objects of the commands that are killed (two pages of a listing), how often, and what each writes before.
KILLED = 1_200
KILLS = 4
STEP = 60
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


def content(name: str) -> bytes:
    return name.encode() * (len(name) + int(name[:2]) % 50)


def connect(server: Ceph | Moto, folder: Path) -> Any:
    """Make the bucket and the configuration of a mount; return a client."""
    (folder / "accelerator.conf").write_text(CONFIGURATION.format(bucket=BUCKET, server=server))
    made = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    made.create_bucket(Bucket=BUCKET)
    return made


def make_tree(folder: Path, count: int) -> set[str]:
    """Write files below a folder; return their paths in it."""
    names = {f"{number % 100:02}/{number}.txt" for number in range(count)}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content(name))
    return names


def run(folder: Path, *arguments: str, kill: signal.Signals | None = None, when: Callable[[], bool] = bool) -> Run:
    """Run a command; if there is a signal, send it as soon as `when` says so."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "apyfal", *arguments, "-q"], cwd=folder, stdout=log, stderr=log
        )
        if kill is not None:
            while not when():
                # `waitid` leaves the status, and with it the memory, to `wait4`
                ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                assert ended is None, "it came to its end before it was killed"
                time.sleep(0.02)
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


def held(client: Any) -> int:
    """Return how many versions the bucket has. The gateway keeps count, so that asking often costs little."""
    return int(client.head_bucket(Bucket=BUCKET)["ResponseMetadata"]["HTTPHeaders"]["x-rgw-object-count"])


def interrupted(client: Any, folder: Path, *arguments: str) -> None:
    """Run a command and kill it in the midst of its writes, several times; then let it end."""
    before = held(client)
    for number in range(KILLS):
        kill = signal.SIGINT if number % 2 else signal.SIGKILL
        enough = held(client) + STEP
        ended = run(folder, *arguments, kill=kill, when=lambda enough=enough: held(client) >= enough)
        assert ended.status == (130 if kill is signal.SIGINT else -kill), (folder / "log").read_text()[-2000:]
    succeed(folder, *arguments)
    assert held(client) - before == KILLED


def succeed(folder: Path, *arguments: str) -> int:
    """Run a command that has to end well; return the most memory that it held (KiB)."""
    ended = run(folder, *arguments)
    assert ended.status == 0, (folder / "log").read_text()[-2000:]
    return ended.memory


def test_each_object_is_written_once_whatever_kills_the_command(ceph_server: Ceph, tmp_path: Path) -> None:
    """The bucket keeps every version, so that what is written twice can be counted."""
    client = connect(ceph_server, tmp_path)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    names = make_tree(tmp_path / "tree", KILLED)
    interrupted(client, tmp_path, "sync", "tree", "lab://tree")
    succeed(tmp_path, "sync", "tree", "lab://tree")
    assert versions(client, "tree/") == Counter(dict.fromkeys((f"tree/{name}" for name in names), 1))
    job = ("process", "-a", "loopback", "--resume", "-r", "lab://tree", "-o", "lab://out/{path}")
    interrupted(client, tmp_path, *job)
    succeed(tmp_path, *job)
    assert versions(client, "out/") == Counter(dict.fromkeys((f"out/{name}" for name in names), 1))
    client.close()

    succeed(tmp_path, "sync", "lab://out", "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in names} == {n: content(n) for n in names}


def test_memory_stays_flat(moto_server: Moto, tmp_path: Path) -> None:
    """Whole runs over all objects and over few; each reads back what it is to write."""
    connect(moto_server, tmp_path).close()
    names = make_tree(tmp_path / "tree", COUNT)
    make_tree(tmp_path / "few", FEW)
    few = succeed(tmp_path, "sync", "few", "lab://few")
    assert succeed(tmp_path, "sync", "tree", "lab://tree") < few + GROWTH
    assert succeed(tmp_path, "sync", "tree", "lab://tree") < few + GROWTH  # both listings, and nothing to write
    job = ("process", "-a", "loopback", "--resume", "-r")
    few = succeed(tmp_path, *job, "lab://few", "-o", "few-out/{path}")
    assert succeed(tmp_path, *job, "lab://tree", "-o", "out/{path}") < few + GROWTH
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == {n: content(n) for n in names}
