"""Make manual pages from the commands themselves: ``python tools/man_pages.py [FOLDER]`` (default: build/man).

One page for ``apyfal``, and one for each command and subcommand: ``apyfal-process.1``. They say what ``--help`` says.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import click

ROOT = Path(__file__).parents[1]
if find_spec("apyfal") is None:
    sys.path.insert(0, str(ROOT))

import apyfal  # noqa: E402 - the one that is installed, or this tree's
from apyfal.cli import group  # noqa: E402

__all__ = ["pages", "write"]


def _escaped(text: str) -> str:
    """Return text that roff shows as it is, wherever a line of it begins."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in text.splitlines())


def _paragraphs(text: str) -> list[str]:
    lines = []
    for paragraph in text.split("\n\n"):
        stripped = paragraph.strip()
        if stripped.startswith("\b"):  # click's mark for lines to be kept as they are
            lines += [".PP", ".nf", _escaped(dedent(stripped.lstrip("\b\n"))), ".fi"]
        elif stripped:
            lines += [".PP", _escaped(" ".join(stripped.split()))]
    return lines


def _page(command: click.Command, path: str, context: click.Context, date: str) -> str:
    name = path.replace(" ", "-")
    summary = (command.get_short_help_str(200) or path).rstrip(".")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" "1" "{date}" "apyfal {apyfal.__version__}" "User Commands"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary)}",
        ".SH SYNOPSIS",
        f".B {_escaped(path)}",
        _escaped(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or command.short_help or ""),
        ".SH OPTIONS",
    ]
    for option in command.get_params(context):
        if isinstance(option, click.Option) and (record := option.get_help_record(context)) is not None:
            lines += [".TP", f"\\fB{_escaped(record[0])}\\fR", _escaped(" ".join(record[1].split()))]
    if inner := _inner(command, context):
        lines.append(".SH COMMANDS")
        for each, one in inner.items():
            lines += [".TP", f"\\fB{_escaped(f'{path} {each}')}\\fR", _escaped(one.get_short_help_str(200))]
    above = name.rpartition("-")[0]
    others = [above] if above else []
    others += [f"{name}-{each}" for each in inner]
    if others:
        lines += [".SH SEE ALSO", ",\n".join(f".BR {_escaped(other)} (1)" for other in others)]
    return "\n".join(lines) + "\n"


def _inner(command: click.Command, context: click.Context) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {}
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: one for name, one in found.items() if one is not None}


def pages() -> dict[str, str]:
    """Return the pages by the names of their files.

    Their date is ``$SOURCE_DATE_EPOCH``, so that a build can be repeated; by default that of today.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.now(timezone.utc) if epoch is None else datetime.fromtimestamp(int(epoch), timezone.utc)
    found: dict[str, str] = {}

    def add(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, max_content_width=100)
        found[f"{path.replace(' ', '-')}.1"] = _page(command, path, context, now.strftime("%Y-%m-%d"))
        for name, one in _inner(command, context).items():
            add(one, f"{path} {name}", context)

    add(group, "apyfal", None)
    return found


def write(folder: Path) -> None:
    """Write the pages into a folder, which is made; pages of commands that are no more are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for old in folder.glob("apyfal*.1"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/man")
