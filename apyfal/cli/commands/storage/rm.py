"""``apyfal rm``: remove files and objects, and with ``-r`` what is below directories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from itertools import chain, islice
from typing import NamedTuple

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_error, print_json_list, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.selection import matches
from apyfal.exceptions import AcceleratorException, ObjectNotFound, ParameterError, StorageError
from apyfal.storage.api.namespace import not_too_deep
from apyfal.storage.api.tree import require_removable, tree
from apyfal.storage.local.atomic import storage_error
from apyfal.storage.mounting.table import resolve
from apyfal.storage.packed import Packed, repeated
from apyfal.storage.trees.names import Folders, has_directories
from apyfal.storage.url import parse, redact

__all__ = ["command"]

#: Objects that are removed at once, between two looks at what failed.
_BATCH = 1000


@click.command(cls=Command, name="rm")
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_path)
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with all that is below them.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@click.option("-k", "--keep-going", is_flag=True, help="Go on past what cannot be removed, and sum up at the end.")
@common_options
@click.pass_obj
def command(
    settings: CommonOptions, /, *, urls: tuple[str, ...], recursive: bool, dry_run: bool, keep_going: bool
) -> None:
    """Remove each URL: a file, an object, or a pattern such as 's3://lab/*.tmp'.

    Nothing is removed before every name was looked up. Never a bucket, a store's root, a disk's root or the working
    directory. Of a link, the link is removed, and not what it leads to.
    """
    use_host(settings, *urls)
    chosen = _Chosen(Packed(tuple), [], Folders())
    named = list(dict.fromkeys(one for url in urls for one in (matches(url) or [url])))
    for one in named:
        _choose(one, chosen, recursive=recursive)
    files = chosen.files if len(named) == 1 else _each_once(chosen.files)
    removed = chain((url for (url,) in files), chosen.trees)
    if dry_run:
        _show(settings, removed)
        return
    failed = _remove(files, keep_going=keep_going)
    for path in chosen.trees:
        failed += _remove_tree(path, keep_going=keep_going)
    failed += _remove_marks(chosen.marks, keep_going=keep_going) if not failed else []
    if failed:
        for error in failed:
            print_error(error, as_json=settings.json)
        # what is in directories of this machine is not counted before
        total = "" if chosen.trees else f" of {len(files)}"
        raise StorageError(f"{len(failed)}{total} could not be removed")
    if settings.json:
        _show(settings, removed)


class _Chosen(NamedTuple):
    """What is removed.

    Attributes
    ----------
    files
        Files and objects.
    trees
        Directories of this machine, with all that is below them.
    marks
        Directories of stores, which are removed last: real ones, or those that objects of their own may mark.
    """

    files: Packed[tuple[str, ...]]
    trees: list[str]
    marks: Folders


def _each_once(files: Packed[tuple[str, ...]]) -> Packed[tuple[str, ...]]:
    """Leave out what is there for a second time."""
    again = repeated(url for (url,) in files)
    if not any(again):
        return files
    found: Packed[tuple[str, ...]] = Packed(tuple)
    found.extend(row for row, is_again in zip(files, again, strict=True) if not is_again)
    return found


def _choose(url: str, chosen: _Chosen, *, recursive: bool) -> None:
    """Find what a name means; raise for what must not be removed."""
    files = chosen.files
    location = parse(url)
    if location.is_local and os.path.islink(location.path.rstrip("/") or "/"):
        files.append((url.rstrip("/"),))
        return
    if not recursive:
        info = storage.stat(url)
        if info.is_directory:
            raise ParameterError(f"{redact(url)!r} is a directory: -r removes it with all that is below it")
        files.append((url,))
        return
    if location.is_local:
        require_removable(location)
        if storage.stat(url).is_directory:
            chosen.trees.append(url)
        else:
            files.append((url,))
        return
    require_removable(location)
    if has_directories(url):
        _choose_below_real(url, chosen)
        return
    is_object = not url.endswith("/") and _is_object(url)
    if is_object:
        files.append((url,))
    folder = url if url.endswith("/") else f"{url}/"
    empty = True
    for item in tree(parse(folder), follow_links=False, sizes_only=True):
        if item.problem is not None:
            raise item.problem
        empty = False
        if item.is_directory and not item.location.path.endswith("//"):
            chosen.marks.add(item.location.url)  # `rmdir` removes `x/`, and no `x//`
        else:
            files.append((item.location.url,))
    if empty and not is_object:
        storage.stat(url)  # a directory's mark alone, or nothing at all, which is an error
    chosen.marks.add(folder)


def _choose_below_real(url: str, chosen: _Chosen) -> None:
    """Choose a file, or a directory with all that is below it, of a store that has real directories."""
    if not storage.stat(url).is_directory:
        chosen.files.append((url,))
        return
    location = parse(url)
    with resolve(location) as target:
        if target.on_this_machine:
            chosen.trees.append(url)
            return
    top = url.rstrip("/")
    chosen.marks.add(top)
    for item in tree(location, follow_links=False, sizes_only=True):
        if item.problem is not None:
            raise item.problem
        if not item.is_directory:
            chosen.files.append((item.location.url,))
        chosen.marks.add_with_those_above(item.name if item.is_directory else item.name.rpartition("/")[0], top)


def _is_object(url: str) -> bool:
    try:
        return not storage.stat(url).is_directory
    except ObjectNotFound:
        return False


def _remove(files: Packed[tuple[str, ...]], *, keep_going: bool) -> list[Exception]:
    """Remove files and objects; return the errors, if that is to go on."""
    failed: list[Exception] = []
    waiting = (url for (url,) in files)
    while some := list(islice(waiting, _BATCH)):
        outcomes = storage.remove_many(some, return_exceptions=keep_going)
        failed += [error for error in outcomes if error is not None]
    return failed


class _Stopped(Exception):
    """Ends `shutil.rmtree` with an error, which is none that it handles."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _remove_tree(url: str, *, keep_going: bool) -> list[Exception]:
    failed: list[Exception] = []

    def note(_: object, path: str, caught: tuple[type[BaseException], BaseException, object]) -> None:
        error = caught[1]
        if not isinstance(error, OSError):
            raise error
        if not keep_going:  # the system's error has the last part of the path alone
            raise _Stopped(storage_error(error.errno or 0, f"cannot remove: {error.strerror}", path)) from error
        failed.append(AcceleratorException(f"cannot remove {path!r}: {error.strerror}"))

    location = parse(url)
    try:
        with not_too_deep(location):
            if location.is_local:
                shutil.rmtree(location.path, onerror=note)
            else:
                with resolve(location) as target:
                    shutil.rmtree(target.path, onerror=note)
    except _Stopped as stopped:
        raise stopped.error from stopped.__cause__
    return failed


def _remove_marks(marks: Folders, *, keep_going: bool) -> list[Exception]:
    """Remove the objects that mark directories, the deepest first; most directories of stores have none."""
    failed: list[Exception] = []
    for url in marks:
        try:
            storage.rmdir(url.rstrip("/"))
        except ObjectNotFound:
            pass
        except (AcceleratorException, OSError) as error:
            if not keep_going:
                raise
            failed.append(error)
    return failed


def _show(settings: CommonOptions, removed: Iterable[str]) -> None:
    if settings.json:
        print_json_list(redact(url) for url in removed)
    else:
        for url in removed:
            click.echo(redact(url))
