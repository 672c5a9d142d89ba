"""Make the reference of the command line from the commands themselves."""

from __future__ import annotations

import importlib
import re
import textwrap

import click

from apyfal.cli import COMMANDS, group

PAGE = "reference/command-line.md"


def _escaped(text: str) -> str:
    text = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"([|*{}_])", r"\\\1", text)


def _option(option: click.Parameter, context: click.Context) -> tuple[str, str]:
    """Return an option's names, and what it does."""
    record = option.get_help_record(context)
    if record is None:
        return ", ".join(option.opts), ""
    return record[0], record[1]


def _sections(command: click.Command, path: str, level: int, parent: click.Context | None) -> list[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"{'#' * level} {path}", ""]
    help_text = command.help or command.short_help or ""
    for paragraph in help_text.split("\n\n"):
        text = paragraph.strip()
        if text.startswith("\b"):
            body = textwrap.dedent(text.lstrip("\b\n"))
            lines += ["```text", body, "```", ""]
        else:
            lines += [_escaped(text), ""]
    lines += ["```text", f"{path} {usage}", "```", ""]
    rows = [_option(one, context) for one in command.get_params(context) if isinstance(one, click.Option)]
    if rows:
        lines += ["| option | |", "|---|---|"]
        lines += ["| `{}` | {} |".format(names.replace("|", "\\|"), _escaped(text)) for names, text in rows]
        lines.append("")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                lines += _sections(inner, f"{path} {name}", level + 1, context)
    return lines


def page() -> str:
    """Return the page."""
    lines = [
        "# Commands and options",
        "",
        "Made from the commands themselves: `apyfal COMMAND --help` shows the same. How to use them is under",
        "[Work from a shell](../how-to/command-line.md).",
        "",
        "| command | |",
        "|---|---|",
    ]
    lines += [f"| [`apyfal {name}`](#apyfal-{name}) | {summary} |" for name, (_, summary) in COMMANDS.items()]
    lines.append("")
    context = click.Context(group, info_name="apyfal")
    for name, (module, _) in COMMANDS.items():
        lines += _sections(importlib.import_module(module).command, f"apyfal {name}", 2, context)
    return "\n".join(lines)
