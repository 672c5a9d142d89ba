"""``apyfal mounts``: the storage that URLs can name."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.commands.common import Command, Settings, common_options, print_json, print_rows
from apyfal.storage.registry import MountInfo

__all__ = ["command"]


@click.command(cls=Command, name="mounts")
@common_options
@click.pass_obj
def command(settings: Settings, /) -> None:
    """List the mounted storage: URL scheme, provider, root, and parameters without their secrets."""
    found = storage.mounts().values()
    if settings.json:
        print_json([_document(one) for one in found])
    else:
        print_rows([_row(one) for one in found], header=("url", "provider", "root", "parameters"))


def _document(mount: MountInfo) -> dict[str, object]:
    return {"name": mount.name, "provider": mount.provider, "root": mount.root, "parameters": dict(mount.parameters)}


def _row(mount: MountInfo) -> list[str]:
    parameters = " ".join(f"{name}={text}" for name, text in mount.parameters.items())
    return [f"{mount.name}://", mount.provider, mount.root or "-", parameters]
