"""The public functions over http and https, against a real nginx."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers.web.nginx import Nginx

from apyfal import storage
from apyfal.exceptions import ObjectNotFound, StorageError, UnsupportedByStore
from apyfal.storage.mounting import table

pytestmark = pytest.mark.server

DATA = np.random.default_rng(3).integers(0, 255, 3 << 20, np.uint8)


@pytest.fixture
def web(nginx_server: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nginx]:
    """The server, with a file whose name needs percent-encoding, and no configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    table.table.clear()
    DATA.tofile(nginx_server.root / "a file.bin")
    (nginx_server.root / "text.txt").write_text("grüß\nGott\n", encoding="utf-8")
    for path in nginx_server.root.iterdir():
        path.chmod(0o755)
    yield nginx_server
    table.table.clear()


def test_reading(web: Nginx, tmp_path: Path) -> None:
    url = f"{web.endpoint_url}/a%20file.bin"
    assert np.array_equal(storage.load(url), DATA)
    info = storage.stat(url)
    assert info.size == len(DATA)
    assert info.etag
    assert storage.exists(url)
    with storage.open(url) as file:
        assert file.seekable()
        file.seek(-100, io.SEEK_END)
        assert file.read() == DATA[-100:].tobytes()
        file.seek(5)
        out = bytearray(1 << 20)
        assert file.readinto(out) == len(out)
        assert out == DATA[5 : 5 + len(out)].tobytes()
    assert storage.copy(url, tmp_path / "copy") == str(tmp_path / "copy")
    assert np.array_equal(np.fromfile(tmp_path / "copy", np.uint8), DATA)
    assert storage.copy(url, tmp_path) == str(tmp_path / "a%20file.bin")
    with storage.open(f"{web.endpoint_url}/text.txt", "r", encoding="utf-8") as file:
        assert file.readlines() == ["grüß\n", "Gott\n"]


def test_without_ranges(web: Nginx, tmp_path: Path) -> None:
    url = f"{web.endpoint_url}/noranges/a%20file.bin"
    assert np.array_equal(storage.load(url), DATA)
    with storage.open(url) as file:
        assert not file.seekable()
        assert file.read(100) == DATA[:100].tobytes()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        assert file.read() == DATA[100:].tobytes()
    storage.copy(url, tmp_path / "copy")
    assert np.array_equal(np.fromfile(tmp_path / "copy", np.uint8), DATA)


def test_compressed_on_the_way(web: Nginx) -> None:
    url = f"{web.endpoint_url}/gzip/text.txt"
    assert storage.load(url).tobytes().decode() == "grüß\nGott\n"
    with storage.open(url) as file:
        assert file.read().decode() == "grüß\nGott\n"


def test_tls_by_a_mount(web: Nginx) -> None:
    address = web.tls_url.removeprefix("https://")
    with pytest.raises(StorageError, match="certificate"):
        storage.load(f"https://{address}/a%20file.bin")
    storage.mount("lab", provider="https", root=address, verify=str(web.ca), config={})
    assert np.array_equal(storage.load("lab://a%20file.bin"), DATA)


def test_what_the_web_cannot(web: Nginx) -> None:
    missing = f"{web.endpoint_url}/missing?token=canary"
    assert not storage.exists(missing)
    for use in (storage.load, storage.open, storage.stat):
        with pytest.raises(ObjectNotFound) as caught:
            use(missing)
        assert "canary" not in str(caught.value)
    url = f"{web.endpoint_url}/text.txt"
    for refused in (
        lambda: storage.listdir(f"{web.endpoint_url}/"),
        lambda: storage.remove(url),
        lambda: storage.open(url, "wb"),
        lambda: storage.open(url, "ab"),
        lambda: storage.copy(url, f"{url}.copy"),
    ):
        with pytest.raises(UnsupportedByStore, match="cannot"):
            refused()


def test_a_private_page(web: Nginx) -> None:
    address = web.endpoint_url.removeprefix("http://")
    with pytest.raises(PermissionError):
        storage.load(f"http://{address}/private/text.txt")
    assert storage.load(f"http://{web.user}:{web.password}@{address}/private/text.txt").nbytes == 12
    storage.mount(
        "private", provider="http", root=f"{address}/private", user=web.user, password=web.password, config={}
    )
    assert storage.load("private://text.txt").nbytes == 12
    assert web.password not in repr(storage.mounts())
