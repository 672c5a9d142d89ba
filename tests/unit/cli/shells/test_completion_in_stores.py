"""Tab inside a store: what begins like a URL, in the time that a prompt has, and only if the user chose whom to ask."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from servers.web.hostile import Fault, Hostile, hostile

import apyfal.cli as cli
from apyfal.cli.shells import UrlBashComplete

CODE = "from apyfal.cli import main; main()"
CONFIGURATION = """
[storage.lab]
provider     = s3
root         = {root}
endpoint_url = {store.endpoint_url}
client_id    = key
secret_id    = secret
"""
NAMES = ("data/one.bin", "data/other.bin", "data/deep/x", "data/b$(touch evil)", "date", "ü")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Hostile]:
    """A store, its mount in the user's own configuration, and files as they are in it, for a mount of a directory."""
    with hostile() as server:
        for name in NAMES:
            server.put(f"b/{name}", b"1")
        (tmp_path / "home").mkdir()
        (tmp_path / "work").mkdir()
        files = tmp_path / "files"
        for name in NAMES:
            (files / "b" / name).parent.mkdir(parents=True, exist_ok=True)
            (files / "b" / name).write_bytes(b"1")
        text = CONFIGURATION.format(store=server, root="b/")
        text += f"[storage.disk]\nprovider = file\nroot = {files}\n"
        (tmp_path / "home/accelerator.conf").write_text(text)
        yield server


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    path = str(Path(cli.__file__).parents[2])
    home = {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": path}
    return {**os.environ, **home, **more}


def complete(tmp_path: Path, word: str, **more: str) -> list[str]:
    """Return what is offered for ``apyfal ls WORD``."""
    words = {"_APYFAL_COMPLETE": "bash_complete", "COMP_WORDS": f"apyfal ls {word}", "COMP_CWORD": "2"}
    done = forked.run([], tmp_path / "work", environment(tmp_path, **words, **more), code=CODE)
    assert done.error == b""
    return done.output.decode().split()


SLOW = {"APYFAL_COMPLETE_STORES": "50s"}  # of a busy machine


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("disk://b/da", ["plain,disk://b/data/", "plain,disk://b/date"]),
        ("disk://b/data/o", ["plain,disk://b/data/one.bin", "plain,disk://b/data/other.bin"]),
        ("disk://b/data/", [f"plain,disk://b/data/{name}" for name in ("deep/", "one.bin", "other.bin")]),
        ("disk://", ["plain,disk://b/"]),
        ("disk://b/none", []),
        ("disk://none/x", []),
        ("disk://b/$(x", ["file,disk://b/$(x"]),
        ("nowhere://x", []),
        ("https://example.org/x", ["file,https://example.org/x"]),
        ("host://x", ["file,host://x"]),
        ("file:///x", ["file,file:///x"]),
    ],
)
def test_names_of_a_store(store: Hostile, tmp_path: Path, word: str, expected: list[str]) -> None:
    assert complete(tmp_path, word, **SLOW) == expected
    assert not (tmp_path / "work/evil").exists()


def test_a_store_is_asked(store: Hostile, tmp_path: Path) -> None:
    complete(tmp_path, "lab://data/o", **SLOW)
    assert [request.query.get("prefix") for request in store.requests] == ["data/"]


@pytest.mark.parametrize("said", ["no", "0", "off", "nonsense"])
def test_a_setting_turns_it_off(store: Hostile, tmp_path: Path, said: str) -> None:
    assert complete(tmp_path, "disk://b/da", APYFAL_COMPLETE_STORES=said) == ["file,disk://b/da"]
    assert complete(tmp_path, "lab://da", APYFAL_COMPLETE_STORES=said) == ["file,lab://da"]
    assert not store.requests


def test_no_request_where_an_untrusted_file_says(store: Hostile, tmp_path: Path) -> None:
    text = CONFIGURATION.format(store=store, root="b/")
    (tmp_path / "work/accelerator.conf").write_text(text)
    for word in ("lab://da", "s3://b/da", "disk://b/da"):
        assert complete(tmp_path, word, **SLOW) == [f"file,{word}"]
    assert not store.requests
    named = str(tmp_path / "work/accelerator.conf")  # the user's word
    complete(tmp_path, "lab://da", APYFAL_CONFIG_FILE=named, **SLOW)
    assert store.requests


def test_a_store_that_does_not_answer_keeps_nobody(store: Hostile, tmp_path: Path) -> None:
    store.faults.append(Fault("stall", at=-1000, times=-1))
    for seconds in (1, 5, 25):  # on a busy machine it takes long until the store is asked
        began = time.monotonic()
        assert complete(tmp_path, "lab://da", APYFAL_COMPLETE_STORES=f"{seconds}s") == []
        assert time.monotonic() - began < seconds + 20
        if store.hit:
            return
    pytest.fail("the store was not asked")


#: What the process that asks a store finds of a terminal.
LOOK = """
import sys
try:
    open("/dev/tty")
except OSError:
    print("none" + sys.stdin.read())
print("Password:", file=sys.stderr)
"""


def test_nothing_can_be_asked_for(store: Hostile, tmp_path: Path) -> None:
    """A provider that wants a password finds no terminal, and its text is not seen."""
    code = f"import apyfal.cli.store_names as names\nnames._CODE = {LOOK!r}\nopen('/dev/tty')\n"
    code += "print(names.names_in_store('disk://b/da'))"
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, **SLOW),
        cwd=tmp_path / "work",
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        check=True,
        timeout=60,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    assert done.stdout.strip() == b"['none']"
    assert not select.select([leader], [], [], 0)[0]
    os.close(follower)
    os.close(leader)


def test_more_names_than_are_of_use(store: Hostile, tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / "files/b/data" / f"n{number}").touch()
    assert complete(tmp_path, "disk://b/data/n", **SLOW) == []
    assert complete(tmp_path, "disk://b/data/one", **SLOW) == ["plain,disk://b/data/one.bin"]


# -- what Bash says ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "current", "arguments", "incomplete", "answer"),
    [
        (["apyfal", "ls", "s3", ":", "//b/x"], 4, ["ls"], "s3://b/x", "//b/xyz"),
        (["apyfal", "copy", "s3", ":", "//b/x", "lab", ":", "//"], 7, ["copy", "s3://b/x"], "lab://", "//b/xyz"),
        (["apyfal", "ls", "s3", ":"], 3, ["ls"], "s3:", "//b/xyz"),
        (["apyfal", "ls", "s3://b/x"], 2, ["ls"], "s3://b/x", "s3://b/xyz"),  # without ":" in COMP_WORDBREAKS
        (["apyfal", "ls"], 2, ["ls"], "", "s3://b/xyz"),
        (["apyfal", "ls", ""], 2, ["ls"], "", "s3://b/xyz"),
        (["apyfal"], 1, [], "", "s3://b/xyz"),
        (["apyfal", "process", "--output", "=", "s3", ":", "//b/x"], 6, ["process"], "--output=s3://b/x", "//b/xyz"),
        (["apyfal", "process", "--output", "=", "s3"], 4, ["process"], "--output=s3", "s3://b/xyz"),
        (["apyfal", "process", "--output", "="], 3, ["process"], "--output=", "s3://b/xyz"),
        (["apyfal", "process", "--output", "=", "s3://b/x"], 4, ["process"], "--output=s3://b/x", "s3://b/xyz"),
        (["apyfal", "process", "--output=s3://b/x"], 2, ["process"], "--output=s3://b/x", "--output=s3://b/xyz"),
    ],
)
def test_words_that_bash_has_cut(
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    current: int,
    arguments: list[str],
    incomplete: str,
    answer: str,
) -> None:
    from click.shell_completion import CompletionItem

    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(current))
    shell = UrlBashComplete(cli.group, {}, "apyfal", "_APYFAL_COMPLETE")
    assert shell.get_completion_args() == (arguments, incomplete)
    store = "lab" if "lab" in incomplete else "s3"
    assert shell.format_completion(CompletionItem(f"{store}://b/xyz")) == f"plain,{answer}"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("apyfal ls disk://b/dat\t\t", ["data/", "date"]),
        ("echo; apyfal ls disk://b/data/on\t", ["disk://b/data/one.bin "]),
        ("apyfal ls disk://b/data/de\t", ["disk://b/data/deep/"]),
        ("apyfal ls dis\t", ["disk://"]),
    ],
)
def test_keys_in_bash(store: Hostile, tmp_path: Path, typed: str, expected: list[str]) -> None:
    bash = shutil.which("bash")
    assert bash
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apyfal").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{CODE}" "$@"\n')
    (programs / "apyfal").chmod(0o755)
    variables = environment(tmp_path, PATH=f"{programs}:{os.environ['PATH']}", TERM="dumb", PS1="$ ", **SLOW)
    script = forked.run([], tmp_path, {**variables, "_APYFAL_COMPLETE": "bash_source"}, code=CODE).output.decode()
    (tmp_path / "rc").write_text(f"{script}\nPS1='ready> '\nbind 'set bell-style none'\n")
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [bash, "--rcfile", tmp_path / "rc", "-i"],
        stdin=follower, stdout=follower, stderr=follower, cwd=tmp_path / "work", env=variables, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(follower)
        try:
            wait_for(leader, "ready> ")
            os.write(leader, typed.encode())
            seen = wait_for(leader, expected[-1])
            for text in expected:
                assert text in seen
        finally:
            process.kill()
            os.close(leader)


def wait_for(leader: int, text: str, seconds: float = 60.0) -> str:
    """Read until a text has come."""
    seen = ""
    end = time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([leader], [], [], 0.2)[0]:
            seen += os.read(leader, 65536).decode(errors="replace")
            seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07", "", seen)
    return seen
