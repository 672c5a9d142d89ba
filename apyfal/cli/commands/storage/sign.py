"""``apyfal sign``: web addresses that are good for some time."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_json
from apyfal.cli.completion import complete_path
from apyfal.storage.url import redact

__all__ = ["command"]


@click.command(cls=Command, name="sign")
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_path)
@click.option(
    "-e", "--expires", default="15min", show_default=True, metavar="TIME", help="How long it is good: 30s, 15min, 2h."
)
@click.option("--method", default="GET", show_default=True, help="What it is for: GET, HEAD, PUT or DELETE.")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...], expires: str, method: str) -> None:
    """Print a web address for each URL of an object, by which whoever has it can read or write the object.

    It cannot be taken back before it expires: show it to nobody else. S3, OSS, Google Cloud Storage with an HMAC key,
    Azure with an account's key, and Swift with a key for temporary addresses have them; others are refused.
    """
    found = [(url, storage.sign(url, expires=expires, method=method)) for url in urls]
    if settings.json:
        print_json([{"url": redact(url), "signed": signed} for url, signed in found])
        return
    for _, signed in found:
        click.echo(signed)
