"""``host://`` on a client: files of the host in `apyfal.storage` and on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host.support.daemon import RunningDaemon

from apyfal import cli, storage
from apyfal.exceptions import AccessDenied, ObjectExists, ObjectNotFound, StoreUnavailable
from apyfal.host.client.http import Host, Refused
from apyfal.host.client.store import RemoteStore, attach_host
from apyfal.host.protocol.address import HostAddress
from apyfal.storage.mounting import table


@pytest.fixture
def attached(daemon: RunningDaemon) -> Iterator[None]:
    attach_host(daemon.host(daemon.token()))
    yield
    table.table.unmount("host")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_copies_to_and_from_the_host(daemon: RunningDaemon, attached: None, tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "src").write_bytes(content)
    storage.copy(tmp_path / "src", "host://copied")
    assert (daemon.shared / "copied").read_bytes() == content
    storage.copy("host://copied", "host://again")
    storage.copy("host://again", tmp_path / "dst")
    assert (tmp_path / "dst").read_bytes() == content
    assert storage.stat("host://again").size == size
    storage.remove("host://again")
    assert not (daemon.shared / "again").exists()


def test_file_objects_and_names(daemon: RunningDaemon, attached: None) -> None:
    with storage.open("host://text", "w") as file:
        file.write("line\n" * 1000)
    assert (daemon.shared / "text").read_text() == "line\n" * 1000
    with storage.open("host://text") as file:
        assert file.read(5) == b"line\n"
    (daemon.shared / "folder").mkdir(exist_ok=True)
    assert {"folder", "text"} <= set(storage.listdir("host://"))
    assert storage.exists("host://text")
    assert not storage.exists("host://nothing")
    with pytest.raises(ObjectNotFound):
        storage.open("host://nothing")
    with pytest.raises(AccessDenied):
        storage.open("host://../secret")


@pytest.mark.parametrize("size", [0, 3, 20_000_000])
def test_a_file_that_must_be_new_replaces_none(daemon: RunningDaemon, attached: None, size: int) -> None:
    name = f"new-{size}"
    with storage.open(f"host://{name}", "xb") as file:
        file.write(bytes(size))
    assert (daemon.shared / name).stat().st_size == size
    (daemon.shared / name).write_bytes(b"kept")
    with pytest.raises(ObjectExists), storage.open(f"host://{name}", "xb") as file:
        file.write(bytes(size))
    assert (daemon.shared / name).read_bytes() == b"kept"
    late = storage.open(f"host://{name}-late", "xb")
    late.write(bytes(size))
    (daemon.shared / f"{name}-late").write_bytes(b"kept")  # it came between the first byte and the last
    with pytest.raises(ObjectExists):
        late.close()
    assert (daemon.shared / f"{name}-late").read_bytes() == b"kept"


@pytest.mark.parametrize("value", ["x", '"etag"', "*, *"])
def test_other_conditions_are_refused(daemon: RunningDaemon, value: str) -> None:
    host = daemon.host(daemon.token())
    with pytest.raises(Refused) as caught:
        host.request("PUT", "/v1/storage/object?url=host://c", headers={"If-None-Match": value}, body=[], length=0)
    assert caught.value.status == 400
    assert not (daemon.shared / "c").exists()
    host.close()


def test_a_failed_write_leaves_the_file_as_it_was(daemon: RunningDaemon, attached: None) -> None:
    (daemon.shared / "kept").write_bytes(b"before")

    def write() -> None:
        with storage.open("host://kept", "wb") as file:
            file.write(b"after")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert (daemon.shared / "kept").read_bytes() == b"before"


def test_command_line(
    daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "accelerator.conf"
    config.write_text(f"[host]\nhost_ip = {daemon.url}\n")
    monkeypatch.setenv("APYFAL_TOKEN", daemon.token())
    (tmp_path / "file").write_bytes(b"content")
    try:
        assert cli.main(["copy", "--config", str(config), str(tmp_path / "file"), "host://from_cli"]) == 0
        assert (daemon.shared / "from_cli").read_bytes() == b"content"
        assert cli.main(["ls", "--config", str(config), "host://"]) == 0
        assert "from_cli" in capsys.readouterr().out.split()
        assert cli.main(["ls", "--config", str(config), "host://.."]) == 4
    finally:
        table.table.unmount("host")
        os.environ.pop("APYFAL_CONFIG_FILE", None)  # --config set it; monkeypatch would put it back


def test_a_host_that_is_not_there() -> None:
    store = RemoteStore(Host(HostAddress("127.0.0.1", 9, secure=False), None))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.describe("x")
