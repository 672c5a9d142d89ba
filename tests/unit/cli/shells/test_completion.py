"""What the shells are offered: names of mounts, accelerators and drivers; nothing that opens, runs or connects."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import forked
import pytest

import apyfal.cli as cli
from apyfal.cli import completion

CODE = "import apyfal.cli.shells; from apyfal.cli import group; group(prog_name='apyfal')"
MOUNTS = "[storage.lab]\nprovider = s3\nendpoint_url = {endpoint}\nclient_id = a\nsecret_id = b\n"


def environment_of(here: Path, **more: str) -> dict[str, str]:
    path = str(Path(cli.__file__).parents[2])
    home = str(here.parent / "home")  # else the file would be the user's own
    return {**os.environ, "PYTHONPATH": path, "HOME": home, "XDG_STATE_HOME": str(here / "state"), **more}


def complete(here: Path, words: str, shell: str = "bash") -> list[str]:
    """Return what click's script for a shell is told for the last word."""
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    if shell == "fish":
        variables["COMP_CWORD"] = words.split(" ")[-1]
    environment = environment_of(here, _APYFAL_COMPLETE=f"{shell}_complete", **variables)
    done = forked.run([], here, environment, code=CODE)
    assert done.error == b""
    return [line for line in done.output.decode().splitlines() if line]


@pytest.fixture
def listening() -> socket.socket:
    """A socket that nobody may connect to."""
    opened = socket.create_server(("127.0.0.1", 0))
    yield opened
    assert not select.select([opened], [], [], 0)[0], "completion opened a connection"
    opened.close()


@pytest.fixture
def here(tmp_path: Path, listening: socket.socket) -> Path:
    """A working directory whose file, which nobody trusts, names a store, a host and programs there."""
    endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    text = MOUNTS.format(endpoint=endpoint)
    text += f"[storage.large]\nprovider = http\nroot = {endpoint}/x\n[host]\nhost_ip = {endpoint}\n"
    text += f"[accelerator.mine]\ndriver = opencl\nkernel = k\nprogram = {endpoint}/p.cl\n"
    text += "[accelerator.broken]\nkernel = 1\n"
    work = tmp_path / "work"
    work.mkdir()
    (work / "accelerator.conf").write_text(text)
    return work


COMMANDS_OF_PATHS = ("copy", "sync", "ls", "cat", "stat", "mkdir", "mv", "rm", "sign", "bench", "process")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        *((f"apyfal {name} la", ["plain,lab://", "plain,large://"]) for name in COMMANDS_OF_PATHS),
        ("apyfal copy x la", ["plain,lab://", "plain,large://"]),
        ("apyfal process -o lab", ["plain,lab://"]),
        ("apyfal ls lab://x", ["file,lab://x"]),
        ("apyfal ls lab : //x", ["file,//x"]),  # as Bash says it
        ("apyfal copy large://x", ["file,large://x"]),
        ("apyfal ls ./la", ["file,./la"]),
        ("apyfal process -a mi", ["plain,mine"]),
        ("apyfal process -a br", ["plain,broken"]),
        ("apyfal bench -a mi", ["plain,mine"]),
        ("apyfal token create bob --accelerator mi", ["plain,mine"]),
        ("apyfal token create bob --mount la", ["plain,lab", "plain,large"]),
        *((f"apyfal {name} --driver op", ["plain,opencl"]) for name in ("process", "bench", "devices")),
        ("apyfal process --driver=op", ["plain,--driver=opencl"]),
        ("apyfal process --driver = op", ["plain,opencl"]),  # as Bash says it
        ("apyfal process -a $", []),
    ],
)
def test_names_are_offered_and_nothing_is_opened(here: Path, words: str, expected: list[str]) -> None:
    assert complete(here, words) == expected


def test_every_option_for_a_name_offers_names() -> None:
    silent = []
    waiting = [(f"apyfal {name}", cli.group.get_command(click.Context(cli.group), name)) for name in cli.COMMANDS]
    for path, command in waiting:
        if isinstance(command, click.Group):
            waiting += [(f"{path} {name}", one) for name, one in command.commands.items()]
        for option in command.params:
            of_names = {"--accelerator", "--driver", "--mount"} & set(option.opts)
            if of_names and option._custom_shell_complete is None:
                silent.append((path, *of_names))
    assert silent == []


def test_files_beside_a_mount_are_offered_too(here: Path) -> None:
    (here / "labels.raw").touch()
    assert complete(here, "apyfal ls la") == ["plain,lab://", "plain,large://", "plain,labels.raw"]
    (here / "la $(touch evil)").touch()  # the shell knows how to quote it
    assert complete(here, "apyfal ls la") == ["file,la"]


@pytest.mark.parametrize("name", ["$(touch_evil)", "`x`", "a;x", "a*", "-rf", "a'b", "a\x1bb", "a,b"])
def test_a_name_that_a_shell_would_run_is_not_offered(tmp_path: Path, name: str) -> None:
    section = f"[accelerator.{name}]\ndriver = emulator\nkernel = scale\n[accelerator.good]\nkernel = scale\n"
    (tmp_path / "accelerator.conf").write_text(section)
    assert all(re.fullmatch(r"plain,\w+", line) for line in complete(tmp_path, "apyfal process -a "))
    with pytest.MonkeyPatch.context() as patch:  # and if a configuration could say it
        patch.setattr(completion, "_accelerators", lambda: [name, "good"])
        assert completion.complete_accelerator(click.Context(cli.group), cli.group.params[0], "") == ["good"]


@pytest.mark.parametrize("content", ["no INI [", "[accelerator.x\n", "[unknown]\na = 1\n", "\x00\xff"])
@pytest.mark.parametrize("words", ["apyfal process -a s", "apyfal ls s", "apyfal token create b --mount s"])
def test_a_broken_configuration_says_nothing_at_the_prompt(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "accelerator.conf").write_bytes(content.encode("latin-1"))
    assert {line.partition(",")[0] for line in complete(tmp_path, words)} <= {"file", "plain"}


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "mark"), [("bash", "plain,lab://"), ("zsh", "lab://"), ("fish", "plain,lab://")])
def test_each_shell_has_its_script_and_its_answers(here: Path, shell: str, mark: str) -> None:
    assert mark in complete(here, "apyfal ls lab", shell)
    environment = environment_of(here, _APYFAL_COMPLETE=f"{shell}_source", PATH=os.environ["PATH"])
    script = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert f"{shell}_complete" in script.stdout
    if shutil.which(shell) is not None:  # its own shell can read it
        done = subprocess.run([shell, "-n"], input=script.stdout, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# -- terminals --------------------------------------------------------------------------------------------------------
def seen_on_a_terminal(here: Path, *arguments: str, **variables: str) -> str:
    """Run the command with all its streams on a terminal; return what that received."""
    environment = {name: text for name, text in environment_of(here).items() if name != "NO_COLOR"}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "apyfal", *arguments],
        stdin=follower, stdout=follower, stderr=follower, cwd=here, env={**environment, **variables},
    )  # fmt: skip
    os.close(follower)
    received = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # nobody has it open any more
            break
        received += data
    os.close(leader)
    assert process.wait(60) == 0, received
    return received.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "bar", "colour"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "NO_COLOR": "1"}, False, False),
        ({"TERM": "unknown"}, False, False),
    ],
)
def test_terminals_get_what_they_can_show(tmp_path: Path, variables: dict[str, str], bar: bool, colour: bool) -> None:
    (tmp_path / "in").write_bytes(bytes(1 << 20))
    for arguments in (("copy", "in", "out"), ("process", "-a", "loopback", "in", "-o", "out")):
        text = seen_on_a_terminal(tmp_path, *arguments, **variables)
        assert ("\x1b[" in text) is bar
        assert bool(COLOUR.search(text)) is colour


@pytest.mark.parametrize("name", ["accelerators", "mounts", "devices"])
def test_lists_have_no_colours(tmp_path: Path, name: str) -> None:
    assert "\x1b" not in seen_on_a_terminal(tmp_path, name, TERM="xterm-256color")
