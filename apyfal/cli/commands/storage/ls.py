"""``apyfal ls``: what is below a storage URL."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from apyfal import storage
from apyfal.cli.common import Command, Settings, common_options, complete_path, print_json, print_rows, use_host
from apyfal.cli.selection import matches
from apyfal.exceptions import NotADirectory
from apyfal.storage.api.namespace import entries
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import parse

__all__ = ["command"]


@click.command(cls=Command, name="ls")
@click.argument("url", default=".", shell_complete=complete_path)
@click.option("-l", "--long", "long", is_flag=True, help="Size, time and ETag, too.")
@common_options
@click.pass_obj
def command(settings: Settings, /, *, url: str, long: bool) -> None:
    """List what is directly below URL: a bucket, a prefix, a directory (by default the working directory).

    A pattern lists what matches it.
    """
    use_host(settings, url)
    matching = matches(url)
    if matching is not None:
        found = [(one, storage.stat(one)) for one in matching]
    else:
        try:
            found = entries(parse(url))
        except NotADirectory:
            found = [(url, storage.stat(url))]
    if settings.json:
        print_json([_document(name, info) for name, info in found])
    elif long:
        print_rows([_row(name, info) for name, info in found], header=("size", "modified", "etag", "name"))
    else:
        for name, info in found:
            click.echo(_shown(name, info))


def _shown(name: str, info: ObjectInfo) -> str:
    return f"{name}/" if info.is_directory else name


def _document(name: str, info: ObjectInfo) -> dict[str, object]:
    return {
        "name": name,
        "directory": info.is_directory,
        "size": info.size,
        "mtime": info.mtime,
        "etag": info.etag,
    }


def _row(name: str, info: ObjectInfo) -> list[str]:
    when = "-"
    if info.mtime is not None:
        when = datetime.fromtimestamp(info.mtime, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    return ["-" if info.size is None else str(info.size), when, info.etag or "-", _shown(name, info)]
