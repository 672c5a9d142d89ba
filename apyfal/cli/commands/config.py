"""``apyfal config``: which configuration files are in force, and which of them the user trusts."""

from __future__ import annotations

from dataclasses import asdict

import click

from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows
from apyfal.cli.completion import complete_path
from apyfal.config import report
from apyfal.config.configuration import FILE_NAME, Configuration
from apyfal.config.ini import shown_path
from apyfal.config.trust import TrustStore, place_of

__all__ = ["command"]

_FILE = click.argument("file", required=False, default=FILE_NAME, metavar="[FILE]", shell_complete=complete_path)


@click.group(name="config")
@common_options
def command() -> None:
    """Look after the configuration files."""


@command.command(cls=Command, name="show")
@common_options
@click.pass_obj
def _show(settings: CommonOptions, /) -> None:
    """Say which files are in force, whose they are, and what of them does not count and why.

    Exit status 2 if the file in force cannot be read.
    """
    files = report.files()
    wrong = next((one for one in files if one.state in ("wrong", "unreadable")), None)
    keys = [] if wrong else report.limited_keys(Configuration.load())
    if settings.json:
        print_json({"files": [asdict(one) for one in files], "keys": [asdict(one) for one in keys]})
    elif not files:
        click.echo("no configuration file")
    else:
        print_rows(
            [[shown_path(one.file), one.place, one.owner, one.mode, one.state, one.reason] for one in files],
            header=("file", "from", "owner", "mode", "state", "reason"),
        )
        if keys:
            click.echo("")
            print_rows([[one.where, one.state, one.reason] for one in keys], header=("key", "state", "reason"))
    if wrong is not None:
        click.get_current_context().exit(2)


@command.command(cls=Command, name="trust")
@_FILE
@common_options
@click.pass_obj
def _trust(settings: CommonOptions, /, *, file: str) -> None:
    """Trust FILE, by default the working directory's, with its present content.

    A trusted file may name programs and libraries, files outside of its directory, and addresses that get your
    credentials: read it before. After any change it has to be trusted again.
    """
    digest = TrustStore().trust(file)
    if settings.json:
        print_json({"file": str(place_of(file)), "sha256": digest})
    else:
        click.echo(f"trusted: {shown_path(place_of(file))} (sha256 {digest})")


@command.command(cls=Command, name="untrust")
@_FILE
@common_options
@click.pass_obj
def _untrust(settings: CommonOptions, /, *, file: str) -> None:
    """Trust FILE, by default the working directory's, no longer."""
    known = TrustStore().untrust(file)
    if settings.json:
        print_json({"file": str(place_of(file)), "was_trusted": known})
    else:
        click.echo(f"{'no longer trusted' if known else 'was not trusted'}: {shown_path(place_of(file))}")
