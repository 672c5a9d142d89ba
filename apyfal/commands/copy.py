"""``apyfal copy``: between any two storage URLs."""

from __future__ import annotations

import sys

import click

from apyfal import storage
from apyfal.commands.common import Command, Settings, common_options, print_json, use_host
from apyfal.progress import progress_bar

__all__ = ["command"]


@click.command(cls=Command, name="copy")
@click.argument("source")
@click.argument("destination")
@common_options
@click.pass_obj
def command(settings: Settings, /, *, source: str, destination: str) -> None:
    """Copy SOURCE to DESTINATION; each is a storage URL, a path, or '-' for standard input and output.

    Within one store the store copies by itself; between two, the data is streamed in bounded memory. A copy that fails
    leaves the destination as it was.
    """
    use_host(settings, source, destination)
    with progress_bar(source, enabled=settings.progress) as progress:
        storage.copy(
            sys.stdin.buffer if source == "-" else source,
            sys.stdout.buffer if destination == "-" else destination,
            progress=progress,
        )
    if settings.json and destination != "-":
        print_json({"source": source, "destination": destination})
