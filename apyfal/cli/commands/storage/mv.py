"""``apyfal mv``: move or rename files and objects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_json_list, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.progress import ProgressSum, progress_bar
from apyfal.cli.selection import matches
from apyfal.exceptions import ParameterError
from apyfal.storage.api.copying import place_of_copy
from apyfal.storage.packed import Packed
from apyfal.storage.trees.names import clashes
from apyfal.storage.url import parse, redact

__all__ = ["command"]

#: Objects that are looked up at once.
_BATCH = 1000


@click.command(cls=Command, name="mv")
@click.argument("urls", nargs=-1, metavar="SOURCE... DESTINATION", shell_complete=complete_path)
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...]) -> None:
    """Move each SOURCE (a storage URL, path or pattern) to DESTINATION.

    Within a local file system it is renamed. Elsewhere it is copied, and removed if it is still what was copied: if
    anything fails, at least one of the two is whole. The first that fails ends the command.
    """
    if len(urls) < 2:
        raise click.UsageError("expected SOURCE... and DESTINATION", click.get_current_context())
    *sources, destination = urls
    use_host(settings, *urls)
    found = [(one, url) for url in sources for one in (matches(url) or [url])]
    if len(found) > 1 or any(one != url for one, url in found):
        if parse(destination).is_local and not os.path.isdir(parse(destination).path):
            raise ParameterError(f"{destination!r} is not a directory: expected one for several files")
        destination = destination if destination.endswith("/") else f"{destination}/"
    named = [one for one, _ in found]
    places = ((place_of_copy(parse(one), parse(destination)).url, one) for one in named)
    for clash in clashes(places, (), on_disk=False):
        if clash.source != clash.other:
            both = f"{redact(clash.other)!r} and {redact(clash.source)!r}"
            raise ParameterError(f"{both} would both become {redact(clash.name)!r}")
    moved: Packed[tuple[str, ...]] = Packed(tuple)
    with progress_bar(named[0] if len(named) == 1 else f"{len(named)} objects", enabled=settings.progress) as progress:
        shown = ProgressSum(progress, _sizes(named))
        for number, one in enumerate(named):
            moved.append((one, storage.move(one, destination, progress=shown.part(number))))
            shown.finished(number)
    if settings.json:
        print_json_list({"source": redact(one), "destination": redact(place)} for one, place in moved)


def _sizes(urls: Sequence[str]) -> Iterator[int | None]:
    """Yield the size of each in bytes; ``None``: not known."""
    for begin in range(0, len(urls), _BATCH):
        for info in storage.stat_many(urls[begin : begin + _BATCH], return_exceptions=True):
            yield None if isinstance(info, Exception) else info.size
