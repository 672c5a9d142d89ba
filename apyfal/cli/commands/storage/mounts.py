"""``apyfal mounts``: the storage that URLs can name."""

from __future__ import annotations

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows
from apyfal.storage.mounting.table import MountInfo

__all__ = ["command"]


@click.command(cls=Command, name="mounts")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /) -> None:
    """List the mounted storage: URL scheme, provider, root, and each parameter, without secrets, and who said it."""
    found = storage.mounts().values()
    if settings.json:
        print_json([_document(one) for one in found])
    else:
        rows = [row for one in found for row in _rows(one)]
        print_rows(rows, header=("url", "provider", "root", "parameter", "from"))


def _document(mount: MountInfo) -> dict[str, object]:
    return {
        "name": mount.name,
        "provider": mount.provider,
        "root": mount.root,
        "parameters": dict(mount.parameters),
        "origins": dict(mount.origins),
    }


def _rows(mount: MountInfo) -> list[list[str]]:
    """Give a line a parameter; only the first says whose."""
    said = [[f"{name}={text}", mount.origins[name]] for name, text in mount.parameters.items()] or [["-", "-"]]
    heads = [[f"{mount.name}://", mount.provider, mount.root or "-"], *[["", "", ""]] * (len(said) - 1)]
    return [head + parameter for head, parameter in zip(heads, said, strict=True)]
