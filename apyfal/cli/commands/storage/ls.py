"""``apyfal ls``: what is below a storage URL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import NamedTuple

import click

from apyfal import storage
from apyfal.cli.common import (
    Command,
    CommonOptions,
    common_options,
    print_error,
    print_json_list,
    print_rows,
    use_host,
)
from apyfal.cli.completion import complete_path
from apyfal.cli.selection import matches
from apyfal.exceptions import NotADirectory, StorageError
from apyfal.storage.api.namespace import iter_entries
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.packed import Packed
from apyfal.storage.url import parse
from apyfal.units import format_size

__all__ = ["command"]

#: Objects that are looked up at once.
_BATCH = 1000


class _Line(NamedTuple):
    """What is printed of one file, object or directory."""

    name: str
    size: int | None = None
    mtime: float | None = None
    etag: str | None = None
    is_directory: bool = False

    @classmethod
    def of(cls, name: str, info: ObjectInfo) -> _Line:
        return cls(name, info.size, info.mtime, info.etag, info.is_directory)


class _Rows:
    """Lines as the columns of a table, made each time that they are read."""

    def __init__(self, found: Packed[_Line], human_readable: bool) -> None:
        self._found = found
        self._human_readable = human_readable

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[list[str]]:
        return (_row(line, self._human_readable) for line in self._found)

    def __contains__(self, row: object) -> bool:
        return any(one == row for one in self)


@click.command(cls=Command, name="ls")
@click.argument("url", default=".", shell_complete=complete_path)
@click.option("-l", "--long", "long", is_flag=True, help="Size, time and ETag, too.")
@click.option("-h", "--human-readable", is_flag=True, help="With -l, sizes as 1.5 KiB, 20.0 MiB.")
@click.option("-R", "--recursive", is_flag=True, help="All that is below, by its path.")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, url: str, long: bool, human_readable: bool, recursive: bool) -> None:
    """List what is directly below URL: a bucket, a prefix, a directory (by default the working directory).

    A pattern lists what matches it. With -R, what is not a file (a broken link, a pipe) is named at the end, and the
    exit status is not 0; links to directories are not followed.
    """
    left: list[Exception] = []
    use_host(settings, url)
    found: Packed[_Line] = Packed(_Line._make)
    matching = matches(url)
    if recursive:
        for top in matching or [url]:
            found.extend(_below(top, left, look_up=long or settings.json))
    elif matching is not None:
        found.extend(_Line.of(one, storage.stat(one)) for one in matching)
    else:
        try:
            found.extend(_Line.of(name, info) for name, info in iter_entries(parse(url)))
        except NotADirectory:
            found.append(_Line.of(url, storage.stat(url)))
    if settings.json:
        print_json_list(_document(line) for line in found)
    elif long:
        print_rows(_Rows(found, human_readable), header=("size", "modified", "etag", "name"))
    else:
        for line in found:
            click.echo(_shown(line))
    if left:
        for error in left:
            print_error(error, as_json=settings.json)
        raise StorageError(f"{len(left)} of {len(left) + len(found)} are not files")


def _below(url: str, left: list[Exception], *, look_up: bool) -> Iterator[_Line]:
    """List a file, or all that is below a directory; with `look_up`, with size, time and ETag."""
    info = storage.stat(url)
    if not info.is_directory:
        yield _Line.of(url, info)
        return
    items = tree(parse(url), follow_links=False, sizes_only=True)
    while some := list(islice(items, _BATCH)):
        left += [item.problem for item in some if item.problem is not None]
        named = [item for item in some if item.problem is None]
        if look_up:
            infos = storage.stat_many([item.location.url for item in named])
            yield from map(_Line.of, (item.name for item in named), infos)
        else:
            yield from (_Line(item.name, is_directory=item.is_directory) for item in named)


def _shown(line: _Line) -> str:
    return f"{line.name}/" if line.is_directory else line.name


def _document(line: _Line) -> dict[str, object]:
    return {
        "name": line.name,
        "directory": line.is_directory,
        "size": line.size,
        "mtime": line.mtime,
        "etag": line.etag,
    }


def _row(line: _Line, human_readable: bool) -> list[str]:
    when = "-"
    if line.mtime is not None:
        when = datetime.fromtimestamp(line.mtime, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    size = "-" if line.size is None else format_size(line.size) if human_readable else str(line.size)
    return [size, when, line.etag or "-", _shown(line)]
