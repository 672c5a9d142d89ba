"""``apyfal copy``: between any two storage URLs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock

import click

from apyfal import storage
from apyfal.cli.common import Command, Settings, common_options, print_json, use_host
from apyfal.cli.progress import ProgressCallback, progress_bar
from apyfal.cli.selection import Pair, pairs
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.url import parse

__all__ = ["command"]

#: Objects that are copied at once: small ones wait for their stores nearly all the time.
_SIDE_BY_SIDE = 8


@click.command(cls=Command, name="copy")
@click.argument("urls", nargs=-1, metavar="SOURCE... DESTINATION")
@click.option("-r", "--recursive", is_flag=True, help="Copy what is below directories, too.")
@common_options
@click.pass_obj
def command(settings: Settings, /, *, urls: tuple[str, ...], recursive: bool) -> None:
    """Copy each SOURCE to DESTINATION: storage URLs, paths, patterns such as 's3://lab/*.bin', '-' for a pipe.

    Within one store the store copies by itself; between two, the data is streamed in bounded memory. A copy that fails
    leaves its destination as it was; of several, no more are begun then, and those that were done stay.
    """
    if len(urls) < 2:
        raise click.UsageError("expected SOURCE... and DESTINATION", click.get_current_context())
    *sources, destination = urls
    use_host(settings, *urls)
    if "-" in urls:
        if len(sources) > 1:
            raise click.UsageError("'-' stands for one pipe: expected one SOURCE", click.get_current_context())
        _copy_piped(settings, sources[0], destination)
        return
    chosen = pairs(sources, destination, recursive=recursive)
    _make_folders(chosen, destination)
    description = sources[0] if len(chosen) == 1 else f"{len(chosen)} objects"
    with progress_bar(description, enabled=settings.progress) as progress:
        if len(chosen) == 1:
            storage.copy(*chosen[0], progress=progress)
        else:
            _copy_all(chosen, progress)
    if settings.json:
        documents = [one._asdict() for one in chosen]
        print_json(documents[0] if chosen and chosen[0].destination == destination else documents)


def _copy_piped(settings: Settings, source: str, destination: str) -> None:
    with progress_bar(source, enabled=settings.progress) as progress:
        storage.copy(
            sys.stdin.buffer if source == "-" else source,
            sys.stdout.buffer if destination == "-" else destination,
            progress=progress,
        )
    if settings.json and destination != "-":
        print_json({"source": source, "destination": destination})


def _make_folders(chosen: Sequence[Pair], destination: str) -> None:
    """Make the directories that the copies go into; stores have none to make."""
    for folder in sorted({os.path.dirname(one.destination) for one in chosen if one.destination != destination}):
        if parse(folder).is_local:
            storage.makedirs(folder, exist_ok=True)


def _copy_all(chosen: Sequence[Pair], progress: ProgressCallback | None) -> None:
    """Copy several at once; the first failure, or an interrupt, ends those under way and lets no other begin."""
    shown = _Sum(progress)
    cancel = CancelToken()

    def copy(number: int) -> None:
        with cancel.scope():
            storage.copy(*chosen[number], progress=shown.part(number))

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="apyfal-copy") as threads:
        copies = [threads.submit(copy, number) for number in range(len(chosen))]
        try:
            for done in as_completed(copies):
                done.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            cancel.set()
            raise


class _Sum:
    """One progress bar for several transfers: the total grows as their sizes become known."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress
        self._parts: dict[int, tuple[int, int | None]] = {}
        self._lock = Lock()

    def part(self, number: int) -> ProgressCallback | None:
        """Return what the transfer of this number calls."""
        progress = self._progress
        if progress is None:
            return None

        def update(done: int, total: int | None) -> None:
            with self._lock:
                self._parts[number] = (done, total)
                progress(sum(part[0] for part in self._parts.values()), self._total())

        return update

    def _total(self) -> int | None:
        sizes = [size for _, size in self._parts.values() if size is not None]
        return sum(sizes) if len(sizes) == len(self._parts) else None
