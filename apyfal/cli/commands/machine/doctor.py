"""``apyfal doctor``: what this machine lacks, and the line that provides it."""

from __future__ import annotations

from dataclasses import asdict

import click

from apyfal.cli.common import Command, CommonOptions, common_options, print_json
from apyfal.doctor.diagnosis import diagnose

__all__ = ["command"]

_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "problem": ("!!", "red")}


@click.command(cls=Command, name="doctor")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("-v", "--verbose", is_flag=True, help="Show what is in order, too.")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...], verbose: bool) -> None:
    """Look at this machine: memory, cards, files, credentials, network; say what is wrong and what mends it.

    A URL (https://...) is asked for its head: whether it can be reached, and whether its clock agrees with this one's.
    Nothing else is contacted, nothing is changed, no secret is shown. Exit status 1 if there is a problem.
    """
    found = list(diagnose(*urls))
    problems = [one for one in found if one.state == "problem"]
    if settings.json:
        print_json({"findings": [asdict(one) for one in found], "problems": len(problems)})
    else:
        area = ""
        for one in found:
            if one.state == "ok" and not verbose:
                continue
            if one.area != area:
                area = one.area
                click.echo(click.style(area, bold=True))
            mark, colour = _MARKS[one.state]
            click.echo(f"  {click.style(mark, fg=colour)} {one.what}")
            if one.remedy:
                click.echo(f"     {click.style('->', dim=True)} {one.remedy}")
        notes = sum(one.state == "note" for one in found)
        fine = sum(one.state == "ok" for one in found)
        click.echo(f"{len(problems)} problems, {notes} notes, {fine} in order")
    if problems:
        click.get_current_context().exit(1)
