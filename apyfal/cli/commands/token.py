"""``apyfal token``: who may use this host."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import click

from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows
from apyfal.cli.completion import complete_accelerator, complete_mount
from apyfal.host.server.policy.tokens import SCOPES, Token, TokenStore
from apyfal.units import parse_duration

__all__ = ["command"]


@click.group(name="token")
@common_options
def command() -> None:
    """Create, list and revoke the tokens of this host."""


@command.command(cls=Command, name="create")
@click.argument("user")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help=f"What it is good for: {', '.join(SCOPES)}, or storage for both of its kinds; may be repeated. "
    "Default: process and storage.",
)
@click.option(
    "--accelerator",
    "accelerators",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_accelerator,
    help="The only accelerator that it may run; may be repeated.",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_mount,
    help="The only mount of this host that it may use; may be repeated.",
)
@click.option(
    "--directory",
    "directories",
    multiple=True,
    metavar="DIR",
    help="What host:// means for it: a directory inside a shared one; may be repeated.",
)
@click.option("--expires", metavar="DURATION", help="When it ends, such as 12h or 30d. Default: never.")
@common_options
@click.pass_obj
def _create(
    options: CommonOptions,
    user: str,
    scopes: tuple[str, ...],
    accelerators: tuple[str, ...],
    mounts: tuple[str, ...],
    directories: tuple[str, ...],
    expires: str | None,
) -> None:
    """Create a token for USER and print it. It cannot be shown again."""
    lifetime = None if expires is None else parse_duration(expires)
    token = _store(options).create(
        user,
        scopes or ("process", "storage"),
        lifetime,
        accelerators=accelerators or None,
        mounts=mounts or None,
        directories=directories or None,
    )
    if options.json:
        print_json({"token": token, "user": user})
    else:
        click.echo(token)


@command.command(cls=Command, name="list")
@common_options
@click.pass_obj
def _list(options: CommonOptions) -> None:
    """List the tokens, without their secrets."""
    now = time.time()
    tokens = _store(options).list()
    if options.json:
        print_json([_document(token, now) for token in tokens])
        return
    rows = [
        [
            token.id,
            token.user,
            ",".join(token.scopes),
            _limits(token),
            token.state(now),
            _date(token.created),
            _date(token.expires),
        ]
        for token in tokens
    ]
    print_rows(rows, header=["id", "user", "scopes", "only", "state", "created", "expires"])


@command.command(cls=Command, name="revoke")
@click.argument("token_id", metavar="ID")
@common_options
@click.pass_obj
def _revoke(options: CommonOptions, token_id: str) -> None:
    """Revoke the token with this ID; running daemons refuse it at once."""
    token = _store(options).revoke(token_id)
    if options.json:
        print_json(_document(token, time.time()))


def _store(options: CommonOptions) -> TokenStore:
    from apyfal.host.settings import HostSettings

    return TokenStore(HostSettings.load(options.config).state_directory / "tokens.json")


def _document(token: Token, now: float) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "scopes": list(token.scopes),
        "accelerators": token.accelerators,
        "mounts": token.mounts,
        "directories": token.directories,
        "state": token.state(now),
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
    }


def _limits(token: Token) -> str:
    """Return what a token is limited to, ``-`` if it is not."""
    names = [*(token.accelerators or ()), *(f"{name}://" for name in token.mounts or ()), *(token.directories or ())]
    return ",".join(names) or "-"


def _date(moment: float | None) -> str:
    return "never" if moment is None else datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%MZ")
