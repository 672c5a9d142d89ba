"""``apyfal mkdir``: make directories and buckets."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_json, use_host
from apyfal.cli.completion import complete_path
from apyfal.storage.url import redact

__all__ = ["command"]


@click.command(cls=Command, name="mkdir")
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_path)
@click.option("-p", "--exist-ok", is_flag=True, help="No error if it is there.")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...], exist_ok: bool) -> None:
    """Make each URL, a directory with its parents or a bucket.

    In a bucket, directories are only names: there is nothing to make, and nothing is.
    """
    use_host(settings, *urls)
    for url in urls:
        storage.makedirs(url, exist_ok=exist_ok)
    if settings.json:
        print_json([redact(url) for url in urls])
