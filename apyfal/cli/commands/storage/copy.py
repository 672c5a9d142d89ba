"""``apyfal copy``: between any two storage URLs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import click

from apyfal import storage
from apyfal.cli.common import Command, Settings, common_options, print_error, print_json, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.progress import ProgressSum, progress_bar
from apyfal.cli.selection import Pair, Selection, parent_of, select
from apyfal.exceptions import AcceleratorException, ParameterError, StorageError
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.trees.names import has_directories
from apyfal.storage.url import parse

__all__ = ["command"]

#: Objects that are copied at once: small ones wait for their stores nearly all the time.
_SIDE_BY_SIDE = 8


@click.command(cls=Command, name="copy")
@click.argument("urls", nargs=-1, metavar="SOURCE... DESTINATION", shell_complete=complete_path)
@click.option("-r", "--recursive", is_flag=True, help="Copy what is below directories, too.")
@click.option("-k", "--keep-going", is_flag=True, help="Go on past what cannot be copied, and sum up at the end.")
@click.option(
    "--follow-links/--no-follow-links", default=True, help="With -r, copy what links to local directories lead to."
)
@click.option(
    "-m",
    "--metadata",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Give copies in a store a content_type, cache_control, user.NAME, tags.NAME, ...; may be repeated.",
)
@click.option("-p", "--preserve", is_flag=True, help="Give local copies the time of modification of their source.")
@common_options
@click.pass_obj
def command(
    settings: Settings,
    /,
    *,
    urls: tuple[str, ...],
    recursive: bool,
    keep_going: bool,
    follow_links: bool,
    preserve: bool,
    metadata: tuple[str, ...],
) -> None:
    """Copy each SOURCE to DESTINATION: storage URLs, paths, patterns such as 's3://lab/*.bin', '-' for a pipe.

    Within one store the store copies by itself; between two, the data is streamed in bounded memory. A copy that fails
    leaves its destination as it was. Names that two copies would share, or that the destination cannot hold, end the
    command before it begins; the first copy that fails ends it, and those that were done stay. With -k it goes on.
    What is no file (a broken link, a pipe) is left and named at the end. In all these cases the exit status is not 0.
    """
    if len(urls) < 2:
        raise click.UsageError("expected SOURCE... and DESTINATION", click.get_current_context())
    *sources, destination = urls
    stated = ObjectMetadata.parse(metadata)
    use_host(settings, *urls)
    if preserve and ("-" in urls or not parse(destination).is_local):
        raise ParameterError(f"--preserve: {destination!r} is no local file, and only those can be given a time")
    if "-" in urls:
        if len(sources) > 1:
            raise click.UsageError("'-' stands for one pipe: expected one SOURCE", click.get_current_context())
        _copy_piped(settings, sources[0], destination, stated)
        return
    selected = select(sources, destination, recursive=recursive, follow_links=follow_links)
    if selected.problems and not keep_going:
        raise _first(selected.problems)
    chosen = selected.pairs
    _make_folders(selected, destination)
    description = sources[0] if len(chosen) == 1 else f"{len(chosen)} objects"
    with progress_bar(description, enabled=settings.progress) as progress:
        shown = ProgressSum(progress, selected.sizes)
        failed = _copy_all(selected, shown, preserve=preserve, keep_going=keep_going, metadata=stated)
    for mark in selected.marks:
        storage.open(mark, "wb").close()
    if settings.json:
        _print([one for one in chosen if one not in failed], destination)
    problems = [*selected.problems, *selected.left, *failed.values()]
    if problems:
        for error in problems:
            print_error(error, as_json=settings.json)
        every = len(chosen) + len(selected.problems) + len(selected.left)
        raise StorageError(f"{len(problems)} of {every} could not be copied")


def _first(problems: Sequence[Exception]) -> Exception:
    """Return the first error, which says how many there are."""
    error = problems[0]
    if len(problems) > 1:
        error.args = (f"{error} (and {len(problems) - 1} more; -k copies the rest)", *error.args[1:])
    return error


def _print(done: Sequence[Pair], destination: str) -> None:
    documents = [one._asdict() for one in done]
    print_json(documents[0] if len(done) == 1 and done[0].destination == destination else documents)


def _copy_piped(settings: Settings, source: str, destination: str, metadata: ObjectMetadata | None) -> None:
    with progress_bar(source, enabled=settings.progress) as progress:
        storage.copy(
            sys.stdin.buffer if source == "-" else source,
            sys.stdout.buffer if destination == "-" else destination,
            progress=progress,
            metadata=metadata,
        )
    if settings.json and destination != "-":
        print_json({"source": source, "destination": destination})


def _make_folders(selected: Selection, destination: str) -> None:
    """Make the directories that the copies go into, if there are directories at the destination."""
    if not has_directories(destination):
        return
    wanted = {parent_of(one.destination) for one in selected.pairs if one.destination != destination}
    for folder in sorted(wanted.union(selected.folders) - {""}):
        storage.makedirs(folder, exist_ok=True)


def _copy_all(
    selected: Selection,
    shown: ProgressSum,
    *,
    preserve: bool,
    keep_going: bool,
    metadata: ObjectMetadata | None,
) -> dict[Pair, Exception]:
    """Copy several at once. A failure, or an interrupt, ends those under way and lets no other begin.

    Returns
    -------
    dict
        With `keep_going`, the errors of those that failed; none of them ends anything.
    """
    chosen = selected.pairs
    cancel = CancelToken()
    failed: dict[Pair, Exception] = {}

    def copy(number: int) -> None:
        source, destination = chosen[number]
        with cancel.scope() if len(chosen) > 1 else contextlib.nullcontext():
            try:
                written = storage.copy(source, destination, progress=shown.part(number), metadata=metadata)
            except BaseException:
                shown.failed(number)
                raise
        shown.finished(number)
        if preserve and (mtime := storage.stat(source).mtime) is not None:
            nanoseconds = round(mtime * 1e9)
            os.utime(written, ns=(nanoseconds, nanoseconds))

    if len(chosen) == 1:  # in this thread, where a signal ends it at once, also while a pipe gives nothing
        try:
            copy(0)
        except (AcceleratorException, OSError) as error:
            if not keep_going:
                raise
            failed[chosen[0]] = error
        return failed

    def copied(done: Sequence[tuple[int, ObjectInfo]]) -> None:
        for number, info in done:
            if (update := shown.part(number)) is not None:
                update(info.size or 0, info.size)
            shown.finished(number)

    def one_by_one(numbers: Sequence[int]) -> None:
        failed.update(_copy_by_threads(copy, {number: chosen[number] for number in numbers}, cancel, keep_going))

    copy_each(
        selected.locations,
        selected.sizes,
        metadata=metadata,
        copied=copied,
        one_by_one=one_by_one,
    )
    return failed


def _copy_by_threads(
    copy: Callable[[int], None], chosen: Mapping[int, Pair], cancel: CancelToken, keep_going: bool
) -> dict[Pair, Exception]:
    failed: dict[Pair, Exception] = {}
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="apyfal-copy") as threads:
        copies = {threads.submit(copy, number): pair for number, pair in chosen.items()}
        try:
            for done in as_completed(copies):
                try:
                    done.result()
                except (AcceleratorException, OSError) as error:
                    if not keep_going:
                        raise
                    failed[copies[done]] = error
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            cancel.set()
            raise
    return failed
