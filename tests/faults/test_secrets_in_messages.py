"""A URL's password and signature appear in no message: errors, warnings, logs, output of functions and commands.

Each function and command is called with URLs that carry a canary, in every place where a URL can carry a secret,
against servers that refuse, break or are not there. Most calls fail; that is the point.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.web.hostile import Answer, Fault, Hostile, hostile

import apyfal
import apyfal.storage as st
import apyfal.storage.http.pool
from apyfal.cli import main
from apyfal.exceptions import StorageError
from apyfal.log import redact, redact_text
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.stores.web import HTTPHandler
from apyfal.storage.transfer import MultipartWriter, download, stream, upload
from apyfal.storage.transfer import copy as transfer_copy
from apyfal.storage.url import parse

CANARY = "CANARY"
PLACES = {
    "user and password": "http://me:CANARY@{host}/b/x",
    "password alone": "http://:CANARY@{host}/b/x",
    "user alone": "http://CANARY@{host}/b/x",
    "password with a slash": "http://me:a/CANARY@{host}/b/x",
    "password with an at sign": "http://me:a@CANARY@{host}/b/x",
    "password with a hash": "http://me:a#CANARY@{host}/b/x",
    "password with a question mark": "http://me:a?CANARY@{host}/b/x",
    "password without a host": "http://me:CANARY/b/x",
    "encoded password": "http://me:CANARY%40@{host}/b/x",
    "scheme in capitals": "HTTP://me:CANARY@{host}/b/x?sig=CANARY",
    "AWS signature": "http://{host}/b/x?X-Amz-Credential=A&X-Amz-Signature=CANARY",
    "AWS session token": "http://{host}/b/x?X-Amz-Security-Token=CANARY&X-Amz-Signature=s",
    "AWS signature of version 2": "http://{host}/b/x?AWSAccessKeyId=a&Signature=CANARY&Expires=1",
    "Azure": "http://{host}/b/x?sv=2020&sig=CANARY",
    "Google": "http://{host}/b/x?X-Goog-Signature=CANARY",
    "token": "http://{host}/b/x?token=CANARY",
    "any parameter": "http://{host}/b/x?q=CANARY",
    "fragment": "http://{host}/b/x#access_token=CANARY",
    "parameter of the path": "http://{host}/b/x;token=CANARY",
    "one slash": "http:/me:CANARY@{host}/b/x?sig=CANARY",
    "no slash": "http:me:CANARY@{host}/b/x?sig=CANARY",
    "no scheme that exists": "htpp://me:CANARY@{host}/b/x?sig=CANARY",
    "no scheme at all": "1http://me:CANARY@{host}/b/x?sig=CANARY",
    "control character": "http://me:CANARY@{host}/b/x\n?sig=CANARY",
    "NUL": "http://me:CANARY@{host}/b/x\0?sig=CANARY",
    "not mounted": "s3.lab://me:CANARY@{host}/b/x?X-Amz-Signature=CANARY",
    "keys as in Hadoop": "s3a://AKIA:CA/CANARY@bucket/x",
    "sftp": "sftp://me:CANARY@{host}/b/x",
    "host": "host://me:CANARY@{host}/b/x?token=CANARY",
    "file": "file://me:CANARY@{host}/b/x",
}


def _write(url: str) -> None:
    with st.open(url, "wb") as file:
        file.write(b"x")


def _drain(url: str) -> None:
    with st.open(url) as file:
        while file.read(1 << 16):
            pass


def _process(src: Any, dst: Any = None) -> None:
    with apyfal.Accelerator("loopback") as card:
        card.process(src, dst)


def _pool(function: Callable[[apyfal.AcceleratorPoolExecutor], Any], **options: Any) -> None:
    with apyfal.AcceleratorPoolExecutor("loopback", workers=2, **options) as pool:
        print(repr(pool))
        print(repr(function(pool)))


def _submit(pool: apyfal.AcceleratorPoolExecutor, url: str) -> None:
    jobs = [pool.process_submit(url) for _ in range(3)]
    try:
        for job in jobs:
            print(repr(job))
            job.result()
    finally:
        print(repr(jobs))


def _device(accelerator: str = "loopback", **options: Any) -> None:
    with apyfal.Accelerator(accelerator, **options) as card:
        print(repr(card))
        card.process(b"x")


def _told(url: str) -> None:
    told: dict[str, Any] = {}
    try:
        with apyfal.Accelerator("loopback") as card:
            card.process(url, url, info_dict=told)
    finally:
        print(told, repr(card))


def _opened(url: str, mode: str) -> None:
    file = st.open(url, mode)
    print(repr(file), file)
    file.close()
    print(repr(file))
    file.read(1)


def _mounted(name: str = "lab", path: str = "lab://c/x", /, **parameters: Any) -> None:
    st.mount(name, **parameters)
    print(st.mounts(), *st.mounts().values())
    st.load(path)


def _by_fsspec(name: str, *arguments: Any) -> Callable[[str], Any]:
    return lambda url: getattr(st.filesystem(), name)(url, *arguments)


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "load": st.load,
    "load into out": lambda url: st.load(url, out=np.zeros(3, np.uint8)),
    "save": lambda url: st.save(url, np.zeros(3)),
    "open": _drain,
    "open to write": _write,
    "open to append": lambda url: st.open(url, "ab"),
    "open to update": lambda url: st.open(url, "r+b"),
    "open exclusively": lambda url: st.open(url, "xb"),
    "copy from": lambda url: st.copy(url, os.devnull),
    "copy to": lambda url: st.copy("/etc/hostname", url),
    "exists": st.exists,
    "stat": st.stat,
    "remove": st.remove,
    "listdir": st.listdir,
    "walk": lambda url: list(st.walk(url)),
    "glob": lambda url: list(st.glob(url + "*")),
    "makedirs": st.makedirs,
    "mount": lambda url: st.mount("lab", provider="s3", endpoint_url=url, client_id="a", secret_id="b"),
    "mount a proxy": lambda url: st.mount("lab", provider="http", proxy=url),
    "process from": _process,
    "process to": lambda url: _process(np.zeros(3, np.uint8), url),
    "process_map": lambda url: _map(url),
    "of a wrong type": lambda url: st.load(url.encode()),  # type: ignore[arg-type]
    "of a pair": lambda url: st.load((url, 1)),
    "repr of a location": lambda url: print(repr(parse(url)), parse(url)),
    "fsspec cat": _by_fsspec("cat_file"),
    "fsspec pipe": _by_fsspec("pipe_file", b"x"),
    "fsspec get": _by_fsspec("get_file", os.devnull),
    "fsspec put": lambda url: st.filesystem().put_file("/etc/hostname", url),
    "fsspec rm": _by_fsspec("rm_file"),
    "fsspec ls": lambda url: st.filesystem().ls(url, detail=False) and None,
    "fsspec touch": _by_fsspec("touch"),
    "fsspec copy": lambda url: st.filesystem().cp_file(url, url + "2"),
    "fsspec move": lambda url: st.filesystem().mv(url, url + "2"),
    "fsspec find": lambda url: len(st.filesystem().find(url)),
    "fsspec glob": lambda url: len(st.filesystem().glob(url + "*")),
    "fsspec mkdir": _by_fsspec("mkdir"),
    "fsspec open": lambda url: print(repr(st.filesystem()), repr(st.filesystem().open(url))),
    "rmdir": st.rmdir,
    "snapshot": lambda url: print(repr(st.snapshot(url))),
    "repr of stat": lambda url: print(repr(st.stat(url)), st.stat(url)),
    "repr of a file": partial(_opened, mode="rb"),
    "repr of a file of text": partial(_opened, mode="r"),
    "repr of a file to write": partial(_opened, mode="wb"),
    "copy to the same": lambda url: st.copy(url, url),
    "copy a directory": lambda url: st.copy(url, "/nonexistent/x/", recursive=True),
    "info_dict": _told,
    "pool": lambda url: _pool(partial(_submit, url=url)),
    "pool's process": lambda url: _pool(lambda pool: pool.process(url, url)),
    "pool's map": lambda url: _pool(lambda pool: list(pool.process_map([url, url]))),
    "pool of a host": lambda url: _pool(lambda pool: pool.process(b"x"), host_ip=url, token="CANARY"),
    "host": lambda url: _device(host_ip=url, token="CANARY"),
    "name": lambda url: _device(url),
    "driver": lambda url: _device(driver=url),
    "device": lambda url: _device(device=url),
    "program": lambda url: _device(program=url),
    "program of a card": lambda url: _device(driver="xrt", program=url, kernel="k", arguments="src, dst"),
    "configuration": lambda url: _device(config=url),
    "devices": lambda url: print(apyfal.devices(url)),
    "a parameter": lambda url: _device(nothing=url),
    "a name of a mount": lambda url: _mounted(url, provider="s3"),
    "provider": lambda url: _mounted(provider=url),
    "root": lambda url: _mounted(provider="http", root=url),
    "region": lambda url: _mounted(provider="s3", region=url, client_id="a", secret_id="CANARY"),
    "sas": lambda url: _mounted(provider="az", endpoint_url=url, client_id="a", sas="sig=CANARY"),
    "connection string": lambda url: _mounted(provider="az", connection_string=f"BlobEndpoint={url};AccountKey=CANARY"),
    "gs": lambda url: _mounted(provider="gs", endpoint_url=url, client_id="a", secret_id="CANARY"),
    "swift": lambda url: _mounted(provider="swift", endpoint_url=url, client_id="a", secret_id="CANARY", project="p"),
    "proxy": lambda url: _mounted(provider="s3", proxy=url, client_id="a", secret_id="CANARY"),
    "unmount": st.unmount,
}


def _map(url: str) -> None:
    with apyfal.Accelerator("loopback") as card:
        list(card.process_map([url]))


COMMANDS: dict[str, list[str]] = {
    "ls": ["ls", "{}"],
    "ls -l": ["ls", "-l", "{}"],
    "ls --json": ["ls", "--json", "{}"],
    "copy from": ["copy", "{}", "-"],
    "copy to": ["copy", "/etc/hostname", "{}"],
    "copy -r": ["copy", "-r", "{}", "{folder}"],
    "process from": ["process", "-a", "loopback", "{}"],
    "process to": ["process", "-a", "loopback", "/etc/hostname", "-o", "{}"],
    "process --host": ["process", "-a", "loopback", "--host", "{}", "/etc/hostname"],
    "process -i": ["process", "-a", "loopback", "-i", "x={}"],
    "bench": ["bench", "-a", "loopback", "{}"],
    "process of a name": ["process", "-a", "{}", "/etc/hostname"],
    "process -p": ["process", "-a", "loopback", "-p", "x={}", "/etc/hostname"],
    "ls --host": ["ls", "--host", "{}"],
    "accelerators": ["accelerators", "{}"],
    "devices": ["devices", "{}"],
    "mounts": ["mounts", "{}"],
    "a command": ["{}"],
    "token create --expires": ["token", "create", "u", "--expires", "{}"],
    "token create --directory": ["token", "create", "u", "--directory", "{}"],
    "token revoke": ["token", "revoke", "{}"],
    "host check": ["host", "check", "--config", "{}"],
    "serve": ["serve", "--config", "{}", "--listen", "{}"],
    "config trust": ["config", "trust", "{}"],
    "config show": ["config", "show"],  # with $APYFAL_CONFIG_FILE
}

SERVERS: dict[str, Callable[[Hostile], Fault | None]] = {
    "there": lambda store: None,
    "forbidden": lambda store: Fault("change", times=-1, act=lambda request: Answer(403)),
    "broken": lambda store: Fault("cut", at=3, times=-1),
    "redirecting": lambda store: Fault(
        "change", times=-1, act=lambda request: Answer(302, {"location": "https://u:CANARY@[x?sig=CANARY"})
    ),
}


@pytest.fixture(scope="module")
def store() -> Iterator[Hostile]:
    with hostile() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "")
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    monkeypatch.setattr("apyfal.storage.http.pool.ConnectionPool._open_socket", _only_here)


_open_socket = apyfal.storage.http.pool.ConnectionPool._open_socket


def _only_here(self: Any, host: str, port: int) -> Any:
    """Connect to this machine only, whatever a crippled URL names."""
    return _open_socket(self, "127.0.0.1", port if host == "127.0.0.1" else 9)


def texts_of(error: BaseException | None) -> Iterator[str]:
    """Yield all that is ever shown of an error, its causes included."""
    while error is not None:
        yield from (str(error), repr(error), *getattr(error, "__notes__", ()))
        if isinstance(error, StorageError):
            yield from (str(error.path), str(error.filename))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def check(run: Callable[[], Any], what: str) -> None:
    """Run something, and look for the canary in all that it says."""
    log, out = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger("apyfal")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    texts: list[str] = []
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            try:
                run()
            except Exception as error:  # whatever it is
                texts += texts_of(error)
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    texts += [log.getvalue(), out.getvalue(), *(str(one.message) for one in warned)]
    for text in texts:
        assert CANARY not in text, f"{what}: {text}"


@pytest.mark.parametrize("place", PLACES)
def test_functions(store: Hostile, place: str) -> None:
    for server, fault in SERVERS.items():
        store.reset()
        store.put("b/x", bytes(1000))
        if (one := fault(store)) is not None:
            store.faults.append(one)
        url = PLACES[place].format(host=store.address)
        for name, function in FUNCTIONS.items():
            if server == "there" or name in ("load", "open", "copy from", "stat", "process from"):
                check(partial(function, url), f"{name}, {server}")
                with contextlib.suppress(Exception):
                    st.unmount("lab")


@pytest.mark.parametrize("place", PLACES)
def test_commands(store: Hostile, tmp_path: Path, place: str) -> None:
    store.reset()
    store.faults.append(Fault("change", times=-1, act=lambda request: Answer(403)))
    url = PLACES[place].format(host=store.address)
    for name, command in COMMANDS.items():
        os.environ["APYFAL_CONFIG_FILE"] = url.replace("\0", "") if name == "config show" else ""
        arguments = [one.replace("{}", url).replace("{folder}", str(tmp_path)) for one in command]
        check(partial(main, arguments), f"apyfal {name}")


def test_the_engine_itself(store: Hostile) -> None:
    """Below the functions a path has no scheme; the handler knows what of it may be shown."""
    store.reset()
    store.put("b/x", bytes(1000))
    path = f"me:CANARY@{store.address}/b/x?sig=CANARY"
    handler = HTTPHandler()
    memory = memoryview(bytearray(1000))
    known = handler.describe(path)
    store.put("b/x", bytes(1001))
    quick = TransferOptions(attempts=2)
    calls: dict[str, Callable[[], Any]] = {
        "a version that has changed": lambda: download(handler, path, memory, info=known),
        "a range outside": lambda: download(handler, path, memory, start=5000, stop=6000),
        "too little memory": lambda: download(handler, path, memory[:7]),
        "no range": lambda: download(handler, path, memory, start=7, stop=3),
        "upload": lambda: upload(handler, path, memory, options=quick),
        "multipart": lambda: MultipartWriter(handler, path, 10, options=quick).commit(),
        "copy to": lambda: transfer_copy(handler, path, handler, path + "y", options=quick),
        "closed": lambda: _closed(handler, path),
    }
    for name, call in calls.items():
        check(call, name)
    store.faults.append(Fault("cut", at=3, times=-1))
    check(lambda: download(handler, path, memory, options=quick), "cut")
    check(lambda: stream(handler, path, options=quick).readinto(memory), "cut stream")


def _closed(handler: HTTPHandler, path: str) -> None:
    reading = stream(handler, path)
    reading.close()
    reading.readinto(memoryview(bytearray(1)))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a@b?", "http://h/a@b?..."),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("http://[::1]:80/a@b#x", "http://[::1]:80/a@b#..."),
        ("http://me@h", "http://h"),
        ("http://me:a/b@h/x", "http://h/x"),
        ("http://me:pw/x", "http://me:.../x"),
        ("http://http://me:pw@h/x?y", "http://http://h/x?..."),
        ("s3://b/k?x&sig=1&y", "s3://b/k?x&sig=...&y"),
        ("s3://b/k#@:x", "s3://b/k#@:x"),
        ("s3://me:pw@b/k", "s3://b/k"),
        ("gs://b/design=1", "gs://b/design=1"),
        ("/a/b?token=x", "/a/b?token=x"),
        ("", ""),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "text", ["9", "-", "a.", "_", "http:", "http://", "@", "a:/", "token", "x-amz-", "a:@/", "token="]
)
def test_a_long_text_is_read_once(text: str) -> None:
    """Not as often as it has letters, and without recursion: an error may quote what somebody else has sent."""
    long = text * (300_000 // len(text))
    redact(f"http://{long}")
    redact_text(f"{long}:")


def test_a_message_is_not_longer_than_anybody_reads() -> None:
    assert len(str(StorageError("x" * 1_000_000))) < 20_000
