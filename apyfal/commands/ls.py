"""``apyfal ls``: what is below a storage URL."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from apyfal import storage
from apyfal.commands.common import Command, Settings, common_options, print_json, print_rows

__all__ = ["command"]


@click.command(cls=Command, name="ls")
@click.argument("url", default=".")
@click.option("-l", "--long", "long", is_flag=True, help="Size, time and ETag, too.")
@common_options
@click.pass_obj
def command(settings: Settings, /, *, url: str, long: bool) -> None:
    """List what is below URL: a bucket, a prefix, a directory (by default the working directory)."""
    names = sorted(storage.listdir(url))
    if not long:
        if settings.json:
            print_json(names)
        else:
            for name in names:
                click.echo(name)
        return
    entries = []
    for name in names:
        path = f"{url.rstrip('/')}/{name}"
        entry = None if name.endswith("/") else storage.stat(path)
        entries.append(
            {
                "name": name,
                "size": entry.size if entry else None,
                "mtime": entry.mtime if entry else None,
                "etag": entry.etag if entry else None,
            }
        )
    if settings.json:
        print_json(entries)
    else:
        print_rows([_row(**entry) for entry in entries], header=("size", "modified", "etag", "name"))


def _row(name: str, size: int | None, mtime: float | None, etag: str | None) -> list[str]:
    when = "-" if mtime is None else datetime.fromtimestamp(mtime, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    return ["-" if size is None else str(size), when, etag or "-", name]
