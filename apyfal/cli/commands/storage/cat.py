"""``apyfal cat``: the content of files and objects, one after the other."""

from __future__ import annotations

import sys

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.selection import matches

__all__ = ["command"]


@click.command(cls=Command, name="cat")
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_path)
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...]) -> None:
    """Write what is in each URL (a storage URL, path or pattern) to standard output, in this order.

    All names are looked up before anything is written. If one cannot be read, the command ends there.
    """
    use_host(settings, *urls)
    named = [one for url in urls for one in (matches(url) or [url])]
    for one in named:
        storage.copy(one, sys.stdout.buffer)
    sys.stdout.buffer.flush()
