"""Every path of up to three names out of a list of hostile ones, by both resolvers, against a model of what it means.

The model follows names and links of a tree that stays as it is, by text alone: neither ``openat2`` nor the walker.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from host.support.daemon import running
from host.support.path_cases import INSIDE, build, snapshot

from apyfal.exceptions import AccessDenied, IsADirectory, ObjectNotFound
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.path_resolver import kernel_resolve, walk_resolve

NAMES = [
    "t", "a", "b", "..", ".", "", "missing", "up", "inner_dir", "inner_link", "absolute_in", "slash", "chain1", "cycle",
    "fifo", "file_link", "link_up_dir", "upup", "around", "inner_up2", "slash_target", "out_and_in", "deep_links",
]  # fmt: skip
PATHS = sorted({"/".join(names) for length in (1, 2, 3) for names in itertools.product(NAMES, repeat=length)})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("files") / "ROOT"
    sockets = build(root)
    yield root
    for opened in sockets:
        opened.close()


def means(root: Path, path: str) -> str:
    """Return what a client gets: ``file``, ``directory`` or ``nothing``."""
    if path.startswith("/"):
        return "nothing"
    here, links = [root], 0
    pending = [*reversed([name for name in path.split("/") if name])]
    if path.endswith("/"):
        pending.insert(0, ".")
    while pending:
        name = pending.pop()
        if not here[-1].is_dir():
            return "nothing"
        if name == ".":
            continue
        if name == "..":
            if len(here) == 1:
                return "nothing"
            here.pop()
            continue
        following = here[-1] / name
        if not os.path.lexists(following):
            return "nothing"
        if not following.is_symlink():
            here.append(following)
            continue
        target = os.readlink(following)
        links += 1
        if links > 40 or target.startswith("/"):
            return "nothing"
        if target.endswith("/"):
            pending.append(".")
        pending += reversed([part for part in target.split("/") if part])
    mode = os.lstat(here[-1]).st_mode
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "nothing"


def test_the_table_is_as_long_as_promised() -> None:
    assert len(PATHS) >= 5_000


@pytest.mark.parametrize("resolver", [kernel_resolve, walk_resolve])
def test_both_resolvers_agree_with_the_model(tree: Path, resolver: object) -> None:
    wrong = []
    with AllowedDirectories([str(tree)], resolver=resolver) as directories:  # type: ignore[arg-type]
        for path in PATHS:
            try:
                found = "directory" if directories.stat(path).is_directory else "file"
            except (AccessDenied, ObjectNotFound):
                found = "nothing"
            expected = means(tree, path)
            if found != expected:
                wrong.append((path, expected, found))
            if expected == "file":
                descriptor = directories.open(path)
                with open(descriptor, "rb") as file:
                    if file.read() != INSIDE:
                        wrong.append((path, "inside", "an escape"))
            else:
                try:
                    os.close(directories.open(path))
                    wrong.append((path, expected, "opened"))
                except (AccessDenied, ObjectNotFound, IsADirectory):
                    pass
    assert wrong == []


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
@pytest.mark.parametrize("walk", [False, True], ids=["openat2", "walk"])
def test_the_daemon_answers_as_the_model_says(tree: Path, tmp_path: Path, walk: bool, every: int) -> None:
    """Every row as an object to read; none is answered with status 500, and nothing is changed."""
    before = snapshot(tree.parent)
    wrong = []
    with running(tmp_path, walk=walk, authorized_host_dirs=[str(tree)], request_rate=1_000_000) as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        headers = {"Authorization": f"Bearer {daemon.token('alice')}"}
        for path in PATHS[::every]:
            connection.request("GET", f"/v1/storage/object?url={quote(f'host://{path}', safe='')}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if means(tree, path) == "file":
                fine = answer.status == 200 and body == INSIDE
            else:
                fine = answer.status in (400, 403, 404) and json.loads(body)["error"]["type"] != "StorageError"
            if not fine:
                wrong.append((path, answer.status, body[:80]))
        connection.close()
    assert wrong == []
    assert snapshot(tree.parent) == before
