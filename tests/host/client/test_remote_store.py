"""``host://`` on a client: files of the host in `apyfal.storage` and on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon

from apyfal import cli, storage
from apyfal.exceptions import AccessDenied, ObjectChanged, ObjectExists, ObjectNotFound, StoreUnavailable
from apyfal.host.client.http import Host, HostResponse, Refused
from apyfal.host.client.store import RemoteStore, attach_host
from apyfal.host.protocol.address import HostAddress
from apyfal.host.protocol.messages import ENTRY_HEADER
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


class Requests:
    """Counts a host's requests, and changes what its responses say of an object."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, said: Callable[[str | None], str | None]) -> None:
        self.targets: list[str] = []
        request, header = Host.request, HostResponse.header

        def counted(host: Host, method: str, target: str, **more: Any) -> HostResponse:
            self.targets.append(target.partition("?")[0].rpartition("/")[2])
            return request(host, method, target, **more)

        def changed(response: HostResponse, name: str) -> str | None:
            found = header(response, name)
            return said(found) if name == ENTRY_HEADER else found

        monkeypatch.setattr(Host, "request", counted)
        monkeypatch.setattr(HostResponse, "header", changed)


NAMES = ["plain", "a b&+é.txt", "/".join(["é" * 120] * 6)]  # the last one is longer than a header


@pytest.mark.parametrize("name", NAMES, ids=["plain", "odd", "long"])
def test_an_object_is_loaded_with_one_request(
    daemon: RunningDaemon, attached: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = np.arange(1000, dtype=np.uint16)
    (daemon.shared / name).parent.mkdir(parents=True, exist_ok=True)
    (daemon.shared / name).write_bytes(content.tobytes())
    store = RemoteStore(daemon.host(daemon.token()))
    requests = Requests(monkeypatch, lambda said: said)
    with store.read(name, 0, None, None) as reader:
        assert requests.targets == (["object"] if len(name) < 100 else ["object", "stat"])
        assert reader.info == store.describe(name)
    store.close()
    requests.targets.clear()
    assert np.array_equal(storage.load(f"host://{name}", np.uint16), content)
    assert requests.targets == (["object"] if len(name) < 100 else ["object", "stat"])


@pytest.mark.parametrize("said", [None, "", "no JSON", "[]", "{}", '{"size": 3}', "another size"])
def test_a_host_that_does_not_describe_what_it_sends(
    daemon: RunningDaemon, attached: None, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    def changed(found: str | None) -> str | None:
        assert found is not None
        return json.dumps({**json.loads(found), "size": 4095}) if said == "another size" else said

    content = np.random.default_rng(4).integers(0, 256, 4096, np.uint8)
    (daemon.shared / "told").write_bytes(content.tobytes())
    requests = Requests(monkeypatch, changed)
    assert np.array_equal(storage.load("host://told"), content)
    assert requests.targets == ["object", "stat"]


def test_another_version_is_not_read(daemon: RunningDaemon) -> None:
    store = RemoteStore(daemon.host(daemon.token()))
    (daemon.shared / "version").write_bytes(b"before")
    before = store.describe("version")
    with store.read("version", 0, None, before) as reader:
        assert reader.info == before
    (daemon.shared / "version").write_bytes(b"afterwards")
    with pytest.raises(ObjectChanged, match="version"):
        store.read("version", 0, None, before)
    with store.read("version", 0, None, store.describe("version")) as reader:
        assert reader.readinto(memoryview(bytearray(100))) == 10
    store.close()


def test_a_directory_and_nothing_cannot_be_loaded(daemon: RunningDaemon, attached: None) -> None:
    (daemon.shared / "directory").mkdir(exist_ok=True)
    for name in ("directory", "no-such-file"):
        with pytest.raises(ObjectNotFound, match=name):
            storage.load(f"host://{name}")


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
