"""Manual pages: one for each command, made from the commands, in roff that means what it shows."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from apyfal import cli

TOOL = Path(__file__).parents[3] / "tools/man_pages.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_pages", TOOL)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def pages(tool: ModuleType) -> dict[str, str]:
    return tool.pages()


def commands() -> dict[str, click.Command]:
    """Return every command and subcommand by the name of its page."""
    found: dict[str, click.Command] = {"apyfal.1": cli.group}
    waiting = [(f"apyfal-{name}", cli.group.get_command(click.Context(cli.group), name)) for name in cli.COMMANDS]
    for name, command in waiting:
        assert command is not None
        found[f"{name}.1"] = command
        if isinstance(command, click.Group):
            waiting += [(f"{name}-{inner}", one) for inner, one in command.commands.items()]
    return found


def shown(page: str) -> str:
    """Return the text of a page as a reader sees it, nearly."""
    text = re.sub(r"\\f[BR]|\\&", "", page).replace("\\-", "-").replace("\\e", "\\")
    return " ".join(text.split())


def test_each_command_has_a_page_and_no_other_has(pages: dict[str, str]) -> None:
    assert set(pages) == set(commands())
    assert len(pages) > 25


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_page_has_its_sections_options_and_help(pages: dict[str, str], name: str) -> None:
    page, command = pages[name], commands()[name]
    heads = re.findall(r"^\.SH (.*)$", page, re.MULTILINE)
    assert heads[:4] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]
    assert set(heads[4:]) <= {"COMMANDS", "SEE ALSO"}
    assert re.match(rf'\.TH "{name[:-2].upper()}" "1" "\d{{4}}-\d\d-\d\d" "apyfal ', page)
    text = shown(page)
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(one in text for one in option.opts)
            assert " ".join((option.help or "").split()) in text
    for word in (command.help or "").replace("\b", "").split():
        assert word in text
    if isinstance(command, click.Group):
        for inner in command.list_commands(click.Context(command)):
            assert f"{name[:-2]}-{inner} (1)" in text


@pytest.mark.parametrize("name", sorted(commands()))
def test_no_line_of_text_is_taken_for_a_request(pages: dict[str, str], name: str) -> None:
    known = {".TH", ".SH", ".B", ".BR", ".PP", ".TP", ".nf", ".fi"}
    requests = [line.split()[0] for line in pages[name].splitlines() if line[:1] in (".", "'")]
    assert set(requests) <= known
    assert requests.count(".nf") == requests.count(".fi")
    assert re.sub(r"\\(f[BR]|&|-|e)", "", pages[name]).count("\\") == 0
    assert pages[name].isprintable() is False  # it has lines
    assert all(line.isprintable() for line in pages[name].splitlines())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (".so /etc/passwd", "\\&.so /etc/passwd"),
        ("'br", "\\&'br"),
        ("a\n.b", "a\n\\&.b"),
        ("--dry-run", "\\-\\-dry\\-run"),
        ("C:\\n", "C:\\en"),
        ("", ""),
    ],
)
def test_what_roff_would_take_for_its_own_is_escaped(tool: ModuleType, text: str, escaped: str) -> None:
    assert tool._escaped(text) == escaped


def test_a_build_can_be_repeated_and_removes_old_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    folder = tmp_path / "new/man"
    folder.mkdir(parents=True)
    (folder / "apyfal-gone.1").touch()
    (folder / "other.1").touch()
    made = []
    for _ in range(2):
        subprocess.run([sys.executable, str(TOOL), str(folder)], check=True)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert set(made[0]) == {*commands(), "other.1"}
    assert b'"1970-01-01"' in made[0]["apyfal.1"]


def test_the_reader_of_manuals_takes_them(pages: dict[str, str], tmp_path: Path) -> None:
    reader = next((name for name in ("mandoc", "groff") if shutil.which(name)), None)
    for name, page in pages.items():
        (tmp_path / name).write_text(page)
        if reader is not None:  # where one is installed
            arguments = ["-Tlint", "-Wwarning"] if reader == "mandoc" else ["-man", "-ww", "-z"]
            done = subprocess.run([reader, *arguments, tmp_path / name], capture_output=True, text=True, check=False)
            assert done.stdout + done.stderr == ""
        assert page.startswith(".TH ")
