"""Tab in Zsh and Fish themselves, on a terminal: what is completed reaches the program as it is named, and is not run.

Each test types a line, Tab and Enter. A program in the place of ``apyfal`` lets the real one answer the shell's
questions, in the environment that the shell gave it (forked from a process that has imported it: a shell asks several
times for a Tab), and else writes its arguments down. Debian's packages ``zsh`` and ``fish``: without them the tests are
skipped, except where ``APYFAL_CI`` is set, as ``.ci/run`` does, which also installs them.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest

import apyfal.cli as cli

ROOT = Path(__file__).parents[4]
SHELLS = ("zsh", "fish")
#: Files whose names a shell must quote, by what is typed of them.
NAMES = {
    "f0": "f0 with spaces",
    "f1": "f1'quote",
    "f2": 'f2"quotes',
    "f3": "f3:colon:more",
    "f4": "f4$(touch evil)$HOME",
    "f5": "f5`touch evil`",
    "f6": "f6;touch evil",
    "f7": "f7\nnew\nline",
    "f8": "f8*?[a]{b,c}",
    "f9": "f9\\back",
    "fa": "fa,comma",
    "fb": "fb&|<>#!~",
    "fc": "fc\u00fc\u20ac",
    "./f3": "./f3:colon:more",
    "~/acc": "{home}/accelerator.conf",
    "--json f0": "--json\0f0 with spaces",
}
CONFIGURATION = """
[storage.disk]
provider = file
root     = {files}
[accelerator.mine]
kernel   = scale
"""
IN_STORE = ("data/one.bin", "data/other.bin", "data/deep/x", "data/b$(touch evil)", "data/c d", "data/e;touch evil")

#: What is typed before Tab, and the arguments that arrive.
TYPED = {
    "proc": "process",
    "copy --recu": "copy --recursive",
    "process -a mi": "process -a mine",
    "process -a 'mi": "process -a mine",
    "process --accelerator=mi": "process --accelerator=mine",
    "process --driver op": "process --driver opencl",
    "process --driver=op": "process --driver=opencl",
    "token create bob --mount di": "token create bob --mount disk",
    "ls dis": "ls disk://",
    "process -o dis": "process -o disk://",
    "process --output=dis": "process --output=disk://",
    "process --output=plai": "process --output=plain.raw",
    "ls disk://b/data/on": "ls disk://b/data/one.bin",
    "ls disk://b/data/de": "ls disk://b/data/deep/",
    "ls disk://b/data/o": "ls disk://b/data/o",  # two names
    "ls disk://b/data/b": "ls disk://b/data/b",  # not offered
    "ls disk://b/data/c": "ls disk://b/data/c",
    "ls disk://b/data/e": "ls disk://b/data/e",
    "copy plain.raw dis": "copy plain.raw disk://",
}


def program_of(shell: str) -> str:
    """Return the shell's path; without it skip, or fail where tests of all shells were promised."""
    found = shutil.which(shell)
    if found is None:
        reason = f"{shell} is missing (Debian: apt install {shell})"
        if "APYFAL_CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Answers:
    """What ``apyfal`` says to a shell: the program in its place leaves its environment in a folder, and waits there."""

    PROGRAM = """#!/bin/sh
[ -n "$_APYFAL_COMPLETE" ] || {{
    printf '%s\\0' "$@" > {folder}/words.new
    exec mv {folder}/words.new {folder}/words
}}
question=$(mktemp -d {folder}/question.XXXXXX) || exit
mkfifo "$question/answer"
env -0 > "$question/environment"
echo "$question" > {folder}/questions
exec cat "$question/answer"
"""

    def __init__(self, folder: Path) -> None:
        self.words, self._questions = folder / "words", folder / "questions"
        os.mkfifo(self._questions)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "apyfal").write_text(self.PROGRAM.format(folder=folder))
        (programs / "apyfal").chmod(0o755)
        self.path = str(programs)
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        with self._questions.open("r+b", buffering=0) as questions:  # for writing, too: so that it never ends
            while line := questions.readline().strip():
                question = Path(os.fsdecode(line))
                pairs = os.fsdecode((question / "environment").read_bytes()).split("\0")[:-1]
                environment = dict(pair.split("=", 1) for pair in pairs)
                answer = forked.run([], Path(environment["PWD"]), environment)
                (question / "answer").write_bytes(answer.output)

    def close(self) -> None:
        """Answer no more."""
        with self._questions.open("r+b", buffering=0) as questions:
            questions.write(b"\n")
            self._thread.join()


class Session:
    """A shell on a terminal, its words to ``apyfal`` and all that it has printed."""

    def __init__(self, shell: str, folder: Path) -> None:
        self.work, home = folder / "work", folder / "home"
        for place in (self.work, home):
            place.mkdir()
        for name in IN_STORE:
            (folder / "files/b" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "files/b" / name).touch()
        for name in ("plain.raw", *(name for typed, name in NAMES.items() if typed.isalnum())):
            (self.work / name).touch()
        (home / "accelerator.conf").write_text(CONFIGURATION.format(files=folder / "files"))
        self.home = home
        self._answers = Answers(folder)
        self._words = self._answers.words
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("ZDOT", "XDG_"))}
        environment |= {"HOME": str(home), "PATH": f"{self._answers.path}:{os.environ['PATH']}", "TERM": "xterm"}
        environment |= {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "APYFAL_COMPLETE_STORES": "50s"}
        environment |= {"LC_ALL": "C.UTF-8"}
        script = subprocess.run(
            [Path(self._answers.path) / "apyfal"],
            cwd=folder,
            env={**environment, "_APYFAL_COMPLETE": f"{shell}_source"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        start = folder / "start"
        command = [program_of(shell)]
        if shell == "zsh":
            (home / ".zshrc").write_text(f"autoload -Uz compinit\ncompinit -u -D\nsource {start}\nPS1='ready> '\n")
            command += ["-o", "no_global_rcs", "-i"]
        else:
            script += "\nfunction fish_greeting; end\nfunction fish_prompt; echo -n 'ready> '; end\n"
            command += ["--no-config", "-i", "-C", f"source {start}"]
        start.write_text(script)
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 50, 200, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, cwd=self.work, env=environment,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)
        self.seen = ""
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._wait(lambda: "ready> " in self.seen)

    def _read(self) -> None:
        while not self._ended.is_set():
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._leader, 65536).decode(errors="replace")
                except OSError:  # the shell has left
                    return

    def _wait(self, done: Callable[[], bool], seconds: float = 100.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.seen[-2000:]
            assert self._process.poll() is None, self.seen[-2000:]
            time.sleep(0.02)

    def arguments_of(self, typed: str) -> list[str]:
        """Type a line of ``apyfal``, Tab and Enter; return the arguments that the program got."""
        self._words.unlink(missing_ok=True)
        os.write(self._leader, f"apyfal {typed}\t\r".encode())
        self._wait(self._words.exists)
        return self._words.read_bytes().decode().split("\0")[:-1]

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        self._ended.set()
        self._reader.join()
        os.close(self._leader)
        self._answers.close()


@pytest.fixture(scope="module", params=SHELLS)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    program_of(request.param)
    session = Session(request.param, tmp_path_factory.mktemp(request.param))
    yield session
    session.close()


@pytest.mark.parametrize("typed", TYPED)
def test_names_are_completed(session: Session, typed: str) -> None:
    assert session.arguments_of(typed) == TYPED[typed].split(" ")
    assert not (session.work / "evil").exists()


@pytest.mark.parametrize("typed", NAMES)
def test_a_file_arrives_under_its_own_name(session: Session, typed: str) -> None:
    expected = NAMES[typed].replace("{home}", str(session.home)).split("\0")
    assert session.arguments_of(f"ls {typed}") == ["ls", *expected]
    assert not (session.work / "evil").exists()


def test_ci_has_the_shells() -> None:
    if not (ROOT / ".ci").is_dir():
        pytest.skip("the sources' own files are elsewhere")
    packages = (ROOT / ".ci/debian-packages.txt").read_text().split()
    assert set(SHELLS) <= set(packages)
    assert "export APYFAL_CI=1\n" in (ROOT / ".ci/run").read_text()
