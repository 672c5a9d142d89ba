"""``apyfal sync``: a directory made like another."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_error, print_json, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.progress import progress_bar
from apyfal.exceptions import StorageError
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.packed import Packed
from apyfal.units import format_size

__all__ = ["command"]


@click.command(cls=Command, name="sync")
@click.argument("source", shell_complete=complete_path)
@click.argument("destination", shell_complete=complete_path)
@click.option("-c", "--checksum", is_flag=True, help="Compare contents, and not sizes and times.")
@click.option("--delete", is_flag=True, help="Delete files at DESTINATION that SOURCE does not have.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("-k", "--keep-going", is_flag=True, help="Go on past what cannot be copied, and sum up at the end.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No file that matches; may be repeated.")
@click.option(
    "--follow-links/--no-follow-links", default=True, help="Copy what links to local directories in SOURCE lead to."
)
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=8, show_default=True, help="Files copied at once.")
@click.option(
    "-m",
    "--metadata",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Give copies in a store a content_type, cache_control, user.NAME, tags.NAME, ...; may be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print each file that was copied or deleted.")
@common_options
@click.pass_obj
def command(
    settings: CommonOptions,
    /,
    *,
    source: str,
    destination: str,
    checksum: bool,
    delete: bool,
    dry_run: bool,
    keep_going: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    follow_links: bool,
    jobs: int,
    metadata: tuple[str, ...],
    verbose: bool,
) -> None:
    """Make directory DESTINATION like directory SOURCE: copy the files that it lacks or that differ.

    A file differs if its size or time does; with -c, if its content does. Local copies have the time of their source;
    a copy in a store differs if it is older than its source. Each copy is whole or not there: interrupted, run it
    again. With --delete, nothing is deleted unless every file of SOURCE was listed and copied. PATTERN is of a name
    ('*.tmp', '.git') or, with a '/', of a path ('2026/**'). What is left is named, and the exit status is not 0.
    """
    use_host(settings, source, destination)
    report = _Report()
    complete = False
    try:
        with progress_bar(source, enabled=settings.progress and not dry_run) as progress:
            storage.sync(
                source,
                destination,
                checksum=checksum,
                delete=delete,
                dry_run=dry_run,
                keep_going=keep_going,
                include=include,
                exclude=exclude,
                follow_links=follow_links,
                concurrency=jobs,
                metadata=ObjectMetadata.parse(metadata),
                progress=progress,
                report=report,
            )
        complete = True
    finally:
        if complete or len(report.names):  # what was done before an error counts, too
            _print(settings, report, listed=verbose or dry_run, dry_run=dry_run)
    if report.left:
        for error in report.left:
            print_error(error, as_json=settings.json)
        nothing = "; nothing was deleted" if report.nothing_deleted else ""
        raise StorageError(f"{len(report.left)} could not be copied or deleted, or are not files{nothing}")


class _Report(storage.SyncReport):
    """Holds names compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Packed[tuple[str, ...]] = Packed(tuple)
        self.deletions: Packed[tuple[str, ...]] = Packed(tuple)

    def add_copied(self, name: str, reason: str) -> None:
        self.names.append((name, reason))

    def add_deleted(self, name: str) -> None:
        self.deletions.append((name,))


def _print(settings: CommonOptions, report: _Report, *, listed: bool, dry_run: bool) -> None:
    if settings.json:
        document = {
            "copied": [{"name": name, "reason": reason} for name, reason in report.names],
            "deleted": [name for (name,) in report.deletions],
            "same": report.same,
            "bytes": report.bytes,
            "left": len(report.left),
            "dry_run": dry_run,
        }
        print_json(document)
        return
    if listed:
        for name, reason in report.names:
            click.echo(f"copy {name} ({reason})")
        for (name,) in report.deletions:
            click.echo(f"delete {name}")
    if not settings.quiet:
        would = "would be " if dry_run else ""
        parts = [f"{len(report.names)} {would}copied ({format_size(report.bytes)})", f"{report.same} the same"]
        if report.deletions:
            parts.append(f"{len(report.deletions)} {would}deleted")
        if report.left:
            parts.append(f"{len(report.left)} left")
        click.echo(", ".join(parts))
