"""The allowed directories of ``host://``: every row of the path table, by both resolvers, and the race."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.support.path_cases import (
    ALLOWED,
    ALLOWED_DIRECTORIES,
    DENIED,
    DENIED_URLS,
    INSIDE,
    OUTSIDE,
    build,
    fill,
    snapshot,
)

from apyfal.exceptions import AccessDenied, ConfigurationError, IsADirectory, ObjectExists, ObjectNotFound
from apyfal.host.server.policy import linux_sandbox
from apyfal.host.server.policy.allowed_directories import AllowedDirectories, host_path
from apyfal.host.server.policy.path_resolver import Resolver, kernel_resolve, walk_resolve

RESOLVERS = [pytest.param(kernel_resolve, id="openat2"), pytest.param(walk_resolve, id="walk")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("host") / "ROOT"
    sockets = build(root)
    yield root
    for opened in sockets:
        opened.close()


@pytest.fixture(scope="module", params=RESOLVERS)
def allowed(request: pytest.FixtureRequest, tree: Path) -> Iterator[AllowedDirectories]:
    with AllowedDirectories([str(tree)], resolver=request.param) as opened:
        yield opened


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def read(allowed: AllowedDirectories, path: str) -> bytes:
    with os.fdopen(allowed.open(path), "rb") as file:
        return file.read()


def test_the_table_is_as_long_as_promised() -> None:
    assert len(set(DENIED) | set(DENIED_URLS) | set(ALLOWED)) >= 120


@pytest.mark.parametrize("path", DENIED)
def test_denied_to_read_list_remove_and_lookup(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    path = fill(path, tree)
    before, opened = snapshot(tree.parent), descriptors()

    def through_url(operation: str) -> None:
        result = getattr(allowed, operation)(host_path("host://" + path))
        if isinstance(result, int):
            os.close(result)

    for operation in ("open", "remove"):
        with pytest.raises((AccessDenied, ObjectNotFound)):
            through_url(operation)
    assert snapshot(tree.parent) == before
    assert descriptors() == opened


# Rows that name something legitimate once it may be created, or an inner file that may be replaced.
CREATABLE = {"missing", "dangling", "~", "*", "t?x", "t#x"}


@pytest.mark.parametrize("path", [path for path in DENIED if path not in CREATABLE])
def test_denied_to_write(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    path = fill(path, tree)
    before, opened = snapshot(tree.parent), descriptors()
    with pytest.raises((AccessDenied, ObjectNotFound, IsADirectory)):
        allowed.create(host_path("host://" + path))
    assert snapshot(tree.parent) == before
    assert descriptors() == opened


@pytest.mark.parametrize("url", DENIED_URLS)
def test_denied_spellings_of_the_scheme(allowed: AllowedDirectories, tree: Path, url: str) -> None:
    before = snapshot(tree.parent)
    with pytest.raises((AccessDenied, ObjectNotFound)):
        allowed.open(host_path(url))
    assert snapshot(tree.parent) == before


@pytest.mark.parametrize("path", ALLOWED)
def test_allowed_to_read(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    path = fill(path, tree)
    assert read(allowed, host_path("host://" + path)) == INSIDE
    assert allowed.stat(path).size == len(INSIDE)


@pytest.mark.parametrize("path", ALLOWED)
def test_allowed_to_write(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    path = fill(path, tree)
    links = {name for name, (_, content) in snapshot(tree).items() if isinstance(content, str)}
    with allowed.create(host_path("host://" + path)) as pending:
        os.write(pending.fd, INSIDE[:5])
        assert read(allowed, path) == INSIDE, "nothing may be visible before the commit"
        os.write(pending.fd, INSIDE[5:])
        assert pending.commit().size == len(INSIDE)
    assert read(allowed, path) == INSIDE
    assert {name for name, (_, content) in snapshot(tree).items() if isinstance(content, str)} == links
    assert not list(tree.rglob(".apyfal-*"))


@pytest.mark.parametrize("path", ALLOWED_DIRECTORIES)
def test_allowed_to_list(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    path = fill(path, tree)
    entries = allowed.scan(host_path("host://" + path))
    assert any(entry.path.rpartition("/")[2] == "t" for entry in entries)
    for entry in entries:  # what is listed can be asked for
        assert allowed.stat(entry.path) == entry
    names = {entry.path.rpartition("/")[2] for entry in entries}
    assert not names & {"fifo", "socket", "up", "upup", "absolute_in", "absolute_out", "dev_null", "slash", "cycle"}


@pytest.mark.parametrize(
    "path", ["..", "up", "a/../..", "/", "/etc", "{base}", "slash", "absolute_out_dir", "out_and_in"]
)
def test_denied_to_list(allowed: AllowedDirectories, tree: Path, path: str) -> None:
    with pytest.raises(AccessDenied):
        allowed.scan(fill(path, tree))


def test_one_answer_whether_the_target_exists(allowed: AllowedDirectories, tree: Path) -> None:
    answers = set()
    for path in ("../secret", "../nothing"):
        with pytest.raises(AccessDenied) as caught:
            allowed.open(path)
        answers.add(str(caught.value).replace(path, "PATH"))
    for target in ("secret", "nothing"):
        link = tree / "to_probe"
        link.symlink_to(f"../{target}")
        with pytest.raises(AccessDenied) as caught:
            allowed.open("to_probe")
        answers.add(str(caught.value).replace("to_probe", "PATH"))
        link.unlink()
    assert len(answers) == 1


def test_writing_through_an_inner_link_keeps_the_link(allowed: AllowedDirectories, tree: Path) -> None:
    (tree / "new_link").symlink_to("a/fresh")
    with allowed.create("new_link") as pending:
        os.write(pending.fd, b"x")
        pending.commit()
    assert (tree / "new_link").is_symlink()
    assert (tree / "a" / "fresh").read_bytes() == b"x"
    allowed.remove("a/fresh").close()
    (tree / "new_link").unlink()


def test_an_abandoned_write_leaves_nothing(allowed: AllowedDirectories, tree: Path) -> None:
    before, opened = snapshot(tree), descriptors()
    pending = allowed.create("t")
    os.write(pending.fd, b"half")
    pending.close()
    pending.close()
    assert snapshot(tree) == before
    assert descriptors() == opened


def test_exclusive_creation(allowed: AllowedDirectories, tree: Path) -> None:
    with pytest.raises(ObjectExists):
        allowed.create("t", exclusive=True)
    first, second = allowed.create("only_once", exclusive=True), allowed.create("only_once", exclusive=True)
    first.commit()
    with pytest.raises(ObjectExists):
        second.commit()
    first.close()
    second.close()
    allowed.remove("only_once").close()
    assert not (tree / "only_once").exists()


def test_makedirs(allowed: AllowedDirectories, tree: Path) -> None:
    allowed.makedirs("made/deep/er")
    allowed.makedirs("made/deep/er")
    assert (tree / "made/deep/er").is_dir()
    for directory in ("made/deep/er", "made/deep", "made"):
        (tree / directory).rmdir()
    before = snapshot(tree.parent)
    for denied in ("../out", "made/../../out", "up/out", "absolute_out_dir/out", "/tmp/never", "t/x"):
        with pytest.raises((AccessDenied, ObjectNotFound, ObjectExists)):
            allowed.makedirs(denied)
    assert snapshot(tree.parent) == before


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_several_nested_and_linked_directories(tmp_path: Path, resolver: Resolver) -> None:
    first, second, inner = tmp_path / "first", tmp_path / "second", tmp_path / "second" / "inner"
    for directory in (first, second, inner):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / directory.name).write_bytes(directory.name.encode())
    (inner / "up").symlink_to("../second")
    link = tmp_path / "link"
    link.symlink_to("second")
    with AllowedDirectories([str(first), str(link), str(inner)], resolver=resolver) as allowed:
        assert allowed.directories == (str(first), str(second), str(inner))
        assert read(allowed, "first") == b"first"
        assert read(allowed, "second") == b"second"
        assert read(allowed, "inner/inner") == b"inner"
        assert read(allowed, "inner/up") == b"second"
        for absolute in (f"{first}/first", f"{second}/second", f"{link}/second", f"{inner}/../second", f"{inner}/up"):
            assert read(allowed, absolute) in (b"first", b"second")
        with allowed.create(f"{inner}/made") as pending:
            pending.commit()
        assert (inner / "made").exists()
        with allowed.create("second") as pending:  # it is in the second directory: it stays there
            os.write(pending.fd, b"SECOND")
            pending.commit()
        assert not (first / "second").exists()
        assert (second / "second").read_bytes() == b"SECOND"
        assert {entry.path for entry in allowed.scan("")} == {"first", "second", "inner", "made"}
        with pytest.raises(AccessDenied):
            allowed.open("../first/first")
        # Resolved once, at the start: another target of the link changes nothing.
        link.unlink()
        link.symlink_to("/etc")
        assert read(allowed, f"{link}/second") == b"SECOND"
        with pytest.raises(ObjectNotFound):
            allowed.open(f"{link}/passwd")


def test_default_directory_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with AllowedDirectories() as allowed:
        assert allowed.directories == (str(tmp_path / "shared"),)
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o700


def test_unusable_directory_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened = descriptors()
    for wrong in ("missing", "file"):
        with pytest.raises(ConfigurationError, match=r"authorized_host_dirs.*not a usable directory"):
            AllowedDirectories([str(tmp_path), str(tmp_path / wrong)])
    assert descriptors() == opened


@pytest.mark.skipif(linux_sandbox.landlock_version() == 0, reason="the kernel has no Landlock")
def test_landlock_holds_where_the_resolver_fails(tree: Path) -> None:
    def careless(directory: int, path: str) -> int:
        return os.open(path, os.O_PATH, dir_fd=directory)

    with AllowedDirectories([str(tree)], resolver=careless) as allowed:
        assert allowed.landlocked
        assert read(allowed, "t") == INSIDE
        for path in ("../secret", "absolute_passwd", "up/secret"):
            with pytest.raises(AccessDenied):
                allowed.open(path)
        with pytest.raises(AccessDenied):
            allowed.create("../planted")
    assert not (tree.parent / "planted").exists()
    (tree.parent / "secret").read_bytes()  # other threads are not confined


# Another process exchanges names without pause: a thread of this one would wait for the interpreter's lock.
ATTACKER = """
import os, sys
here = os.open(sys.argv[1], os.O_PATH)
print(flush=True)
while os.getppid() == int(sys.argv[2]):
    for one, other in (("real", "link"), ("file", "file_link")) * 100:
        os.rename(one, "swap", src_dir_fd=here, dst_dir_fd=here)
        os.rename(other, one, src_dir_fd=here, dst_dir_fd=here)
        os.rename("swap", other, src_dir_fd=here, dst_dir_fd=here)
"""


def race(tmp_path: Path, resolver: Resolver, opens: int) -> tuple[int, int]:
    """Open `opens` times while names change; how many found the file and how many did not."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root / "real" / "deep", outside / "deep"):
        directory.mkdir(parents=True)
    (root / "real/deep/t").write_bytes(INSIDE)
    (outside / "deep/t").write_bytes(OUTSIDE)
    (root / "link").symlink_to("../outside")
    (root / "file_link").symlink_to("../outside/deep/t")
    (root / "file").write_bytes(INSIDE)
    paths = ["real/deep/t", "link/deep/t", "file", "file_link", "real/deep/../deep/t", "link/../real/deep/t"]
    found = refused = 0
    with (
        subprocess.Popen(
            [sys.executable, "-c", ATTACKER, str(root), str(os.getpid())], stdout=subprocess.PIPE
        ) as attacker,
        AllowedDirectories([str(root)], resolver=resolver, landlock=False) as allowed,
    ):
        assert attacker.stdout is not None
        attacker.stdout.readline()
        try:
            for number in range(opens):
                try:
                    descriptor = allowed.open(paths[number % len(paths)])
                except (AccessDenied, ObjectNotFound):
                    refused += 1
                    continue
                found += 1
                content = os.read(descriptor, 100)
                os.close(descriptor)
                assert content == INSIDE
        finally:
            attacker.kill()
    return found, refused


# Landlock is off here: the resolvers alone have to hold.
@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("opens", [5_000, pytest.param(400_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_race_of_exchanged_names(tmp_path: Path, resolver: Resolver, opens: int) -> None:
    found, refused = race(tmp_path, resolver, opens)
    assert found + refused == opens
    assert min(found, refused) > opens // 100, "the names have to change under the opens for this to prove anything"
