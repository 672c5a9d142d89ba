"""``apyfal host``: questions about a host."""

from __future__ import annotations

import click

from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows

__all__ = ["command"]


@click.group(name="host")
@common_options
def command() -> None:
    """Look after this machine as a host."""


@command.command(cls=Command, name="check")
@common_options
@click.pass_context
def _check(ctx: click.Context) -> None:
    """Check that this machine is fit to be a host, and that its daemon answers.

    Exit status 1 if something is wrong; warnings do not count.
    """
    from apyfal.host.server.check import check

    options = ctx.ensure_object(CommonOptions)
    findings = check(options.config)
    if options.json:
        print_json([{"what": found.what, "state": found.state, "text": found.text} for found in findings])
    else:
        print_rows([[found.state, found.what, found.text] for found in findings])
    if any(found.state == "wrong" for found in findings):
        ctx.exit(1)
