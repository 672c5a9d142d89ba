"""``apyfal stat``: what a store says of files, objects and directories."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click

from apyfal import storage
from apyfal.cli.common import Command, CommonOptions, common_options, print_json, use_host
from apyfal.cli.completion import complete_path
from apyfal.cli.selection import matches
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import redact

__all__ = ["command"]


@click.command(cls=Command, name="stat")
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_path)
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, urls: tuple[str, ...]) -> None:
    """Show size, time, ETag, version, checksums and metadata of each URL: a storage URL, path or pattern."""
    use_host(settings, *urls)
    found = [(one, storage.stat(one)) for url in urls for one in (matches(url) or [url])]
    if settings.json:
        print_json([{"url": redact(url), **_fields(info)} for url, info in found])
        return
    for url, info in found:
        click.echo(redact(url))
        for name, value in _fields(info).items():
            click.echo(f"  {name:12} {value}")


def _fields(info: ObjectInfo) -> dict[str, Any]:
    """Return what is known, under the names of `ObjectInfo`, times and checksums as texts."""
    fields: dict[str, Any] = {"type": "directory" if info.is_directory else "file"}
    if info.size is not None and not info.is_directory:
        fields["size"] = info.size
    if info.mtime is not None:
        fields["modified"] = datetime.fromtimestamp(info.mtime, timezone.utc).isoformat(timespec="seconds")
    fields |= {name: value for name in ("etag", "version", "encoding") if (value := getattr(info, name)) is not None}
    fields |= {name: value.hex() for name, value in info.checksums.items()}
    if info.metadata is not None:
        for name, value in asdict(info.metadata).items():
            if isinstance(value, dict):
                fields |= {f"{name}.{key}": text for key, text in value.items()}
            elif value is not None:
                fields[name] = value
    return fields
