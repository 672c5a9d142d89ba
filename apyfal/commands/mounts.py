"""``apyfal mounts``: the storage that URLs can name."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.commands.common import Command, Settings, common_options, print_json, print_rows

__all__ = ["command"]


@click.command(cls=Command, name="mounts")
@common_options
@click.pass_obj
def command(settings: Settings, /) -> None:
    """List the mounted storage: URL scheme, provider, root, and parameters without their secrets."""
    found = storage.mounts()
    if settings.json:
        print_json(
            [
                {"name": one.name, "provider": one.provider, "root": one.root, "parameters": dict(one.parameters)}
                for one in found
            ]
        )
        return
    rows = [
        [
            f"{one.name}://",
            one.provider,
            one.root or "-",
            " ".join(f"{name}={text}" for name, text in one.parameters.items()),
        ]
        for one in found
    ]
    print_rows(rows, header=("url", "provider", "root", "parameters"))
