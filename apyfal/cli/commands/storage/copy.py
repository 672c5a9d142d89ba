"""``apyfal copy``: between any two storage URLs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import chain

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_error, print_json, print_json_list, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.progress import ProgressSum, progress_bar
from apyfal.cli.selection import Block, Selection, parent_of, select
from apyfal.exceptions import AcceleratorException, ParameterError, StorageError
from apyfal.storage.api.copying import copy_to
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.trees.names import has_directories
from apyfal.storage.url import parse

__all__ = ["command"]

#: Objects that are copied at once: small ones wait for their stores nearly all the time.
_SIDE_BY_SIDE = 8
#: Directories that are known to be there.
_REMEMBERED = 8 << 10


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
    settings: CommonOptions,
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
    What is not a file (a broken link, a pipe) is left and named at the end. In all these cases the exit status is
    not 0.
    """
    if len(urls) < 2:
        raise click.UsageError("expected SOURCE... and DESTINATION", click.get_current_context())
    *sources, destination = urls
    stated = ObjectMetadata.parse(metadata)
    use_host(settings, *urls)
    if preserve and ("-" in urls or not parse(destination).is_local):
        raise ParameterError(f"--preserve: {destination!r} is not a local file, and only those can be given a time")
    if "-" in urls:
        if len(sources) > 1:
            raise click.UsageError("'-' stands for one pipe: expected one SOURCE", click.get_current_context())
        _copy_piped(settings, sources[0], destination, stated)
        return
    selected = select(sources, destination, recursive=recursive, follow_links=follow_links)
    if selected.problems and not keep_going:
        raise _first(selected.problems)
    _make_folders(selected, destination)
    description = sources[0] if len(selected) == 1 else f"{len(selected)} objects"
    with progress_bar(description, enabled=settings.progress) as progress:
        shown = ProgressSum(progress, selected.sizes)
        failed = _copy_all(selected, shown, preserve=preserve, keep_going=keep_going, metadata=stated)
    for mark in selected.marks:
        storage.open(mark, "wb").close()
    if settings.json:
        _print(selected, failed, destination)
    problems = [*selected.problems, *selected.left, *failed.values()]
    if problems:
        for error in problems:
            print_error(error, as_json=settings.json)
        every = len(selected) + len(selected.problems) + len(selected.left)
        raise StorageError(f"{len(problems)} of {every} could not be copied")


def _first(problems: Sequence[Exception]) -> Exception:
    """Return the first error, which says how many there are."""
    error = problems[0]
    if len(problems) > 1:
        error.args = (f"{error} (and {len(problems) - 1} more; -k copies the rest)", *error.args[1:])
    return error


def _print(selected: Selection, failed: Mapping[int, Exception], destination: str) -> None:
    done = (pair._asdict() for number, pair in enumerate(selected.pairs) if number not in failed)
    if len(selected) - len(failed) == 1 and (only := next(done))["destination"] == destination:
        print_json(only)
        return
    print_json_list(pair._asdict() for number, pair in enumerate(selected.pairs) if number not in failed)


def _copy_piped(settings: CommonOptions, source: str, destination: str, metadata: ObjectMetadata | None) -> None:
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
    made: set[str] = set()
    inside = (parent_of(one.destination) for one in selected.pairs if one.destination != destination)
    for folder in chain(inside, selected.folders):
        if folder and folder not in made:
            storage.makedirs(folder, exist_ok=True)
            if len(made) == _REMEMBERED:
                made.clear()
            made.add(folder)


def _copy_all(
    selected: Selection,
    shown: ProgressSum,
    *,
    preserve: bool,
    keep_going: bool,
    metadata: ObjectMetadata | None,
) -> dict[int, Exception]:
    """Copy several at once. A failure, or an interrupt, ends those under way and lets no other begin.

    Returns
    -------
    dict
        With `keep_going`, the errors of those that failed, by their numbers; none of them ends anything.
    """
    cancel = CancelToken()
    failed: dict[int, Exception] = {}
    for block in selected.blocks():
        copies = _Copies(block, shown, preserve=preserve, metadata=metadata, cancel=cancel)
        if len(selected) == 1:  # in this thread, where a signal ends it at once, also while a pipe gives nothing
            try:
                copies.copy(0)
            except (AcceleratorException, OSError) as error:
                if not keep_going:
                    raise
                failed[0] = error
            return failed

        def one_by_one(numbers: Sequence[int], copies: _Copies = copies) -> None:
            for number, error in _copy_by_threads(copies.cancellable, numbers, cancel, keep_going).items():
                failed[copies.block.first + number] = error

        copy_each(block.locations, block.sizes, metadata=metadata, copied=copies.copied, one_by_one=one_by_one)
    return failed


class _Copies:
    """Copies of some objects, by their numbers in the block."""

    def __init__(
        self,
        block: Block,
        shown: ProgressSum,
        *,
        preserve: bool,
        metadata: ObjectMetadata | None,
        cancel: CancelToken,
    ) -> None:
        self.block = block
        self._shown = shown
        self._preserve = preserve
        self._metadata = metadata
        self._cancel = cancel

    def copy(self, number: int) -> None:
        source, destination = self.block.pairs[number]
        shown = self.block.first + number
        progress = self._shown.part(shown)
        try:
            if self.block.is_placed:  # what is a directory there is not copied into
                start, end = self.block.locations[number]
                written = copy_to(start, end, progress=progress, metadata=self._metadata)
            else:
                written = storage.copy(source, destination, progress=progress, metadata=self._metadata)
        except BaseException:
            self._shown.failed(shown)
            raise
        self._shown.finished(shown)
        if self._preserve and (mtime := storage.stat(source).mtime) is not None:
            nanoseconds = round(mtime * 1e9)
            os.utime(written, ns=(nanoseconds, nanoseconds))

    def cancellable(self, number: int) -> None:
        with self._cancel.scope():
            self.copy(number)

    def copied(self, done: Sequence[tuple[int, ObjectInfo]]) -> None:
        """Count copies that were made together."""
        for number, info in done:
            shown = self.block.first + number
            if (update := self._shown.part(shown)) is not None:
                update(info.size or 0, info.size)
            self._shown.finished(shown)


def _copy_by_threads(
    copy: Callable[[int], None], chosen: Sequence[int], cancel: CancelToken, keep_going: bool
) -> dict[int, Exception]:
    failed: dict[int, Exception] = {}
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="apyfal-copy") as threads:
        copies = {threads.submit(copy, number): number for number in chosen}
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
