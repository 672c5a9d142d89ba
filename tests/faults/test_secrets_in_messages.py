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
from apyfal.log import redact
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
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
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
