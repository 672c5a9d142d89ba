"""``apyfal ls``: what is below a storage URL."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from apyfal import storage
from apyfal.cli.common import (
    Command,
    Settings,
    common_options,
    print_error,
    print_json,
    print_rows,
    use_host,
)
from apyfal.cli.completion import complete_path
from apyfal.cli.selection import matches
from apyfal.exceptions import NotADirectory, StorageError
from apyfal.storage.api.namespace import entries
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import parse
from apyfal.units import format_size

__all__ = ["command"]


@click.command(cls=Command, name="ls")
@click.argument("url", default=".", shell_complete=complete_path)
@click.option("-l", "--long", "long", is_flag=True, help="Size, time and ETag, too.")
@click.option("-h", "--human-readable", is_flag=True, help="With -l, sizes as 1.5 KiB, 20.0 MiB.")
@click.option("-R", "--recursive", is_flag=True, help="All that is below, by its path.")
@common_options
@click.pass_obj
def command(settings: Settings, /, *, url: str, long: bool, human_readable: bool, recursive: bool) -> None:
    """List what is directly below URL: a bucket, a prefix, a directory (by default the working directory).

    A pattern lists what matches it. With -R, what is no file (a broken link, a pipe) is named at the end, and the exit
    status is not 0; links to directories are not followed.
    """
    left: list[Exception] = []
    use_host(settings, url)
    found: list[tuple[str, ObjectInfo]]
    matching = matches(url)
    if recursive:
        found = [one for top in (matching or [url]) for one in _below(top, left, look_up=long or settings.json)]
    elif matching is not None:
        found = [(one, storage.stat(one)) for one in matching]
    else:
        try:
            found = entries(parse(url))
        except NotADirectory:
            found = [(url, storage.stat(url))]
    if settings.json:
        print_json([_document(name, info) for name, info in found])
    elif long:
        rows = [_row(name, info, human_readable) for name, info in found]
        print_rows(rows, header=("size", "modified", "etag", "name"))
    else:
        for name, info in found:
            click.echo(_shown(name, info))
    if left:
        for error in left:
            print_error(error, as_json=settings.json)
        raise StorageError(f"{len(left)} of {len(left) + len(found)} are no files")


def _below(url: str, left: list[Exception], *, look_up: bool) -> list[tuple[str, ObjectInfo]]:
    """List a file, or all that is below a directory; with `look_up`, with size, time and ETag."""
    info = storage.stat(url)
    if not info.is_directory:
        return [(url, info)]
    items = list(tree(parse(url), follow_links=False))
    left += [item.problem for item in items if item.problem is not None]
    named = [item for item in items if item.problem is None]
    if look_up:
        infos = storage.stat_many([item.location.url for item in named])
    else:
        infos = [ObjectInfo(item.name, None, is_directory=item.is_directory) for item in named]
    return [(item.name, one) for item, one in zip(named, infos, strict=True)]


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


def _row(name: str, info: ObjectInfo, human_readable: bool) -> list[str]:
    when = "-"
    if info.mtime is not None:
        when = datetime.fromtimestamp(info.mtime, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    size = "-" if info.size is None else format_size(info.size) if human_readable else str(info.size)
    return [size, when, info.etag or "-", _shown(name, info)]
