"""``apyfal devices``: what accelerators can run on."""

from __future__ import annotations

from typing import Any

import click

import apyfal
from apyfal.cli.common import (
    LOCAL,
    Command,
    CommonOptions,
    common_options,
    host_option,
    print_json,
    print_of_host,
    print_rows,
)
from apyfal.cli.completion import complete_driver
from apyfal.units import format_size

__all__ = ["command"]


@click.command(cls=Command, name="devices")
@click.option("--driver", metavar="NAME", shell_complete=complete_driver, help="Of this driver only.")
@host_option
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, driver: str | None, host: str | None) -> None:
    """List the devices of all drivers, what each can do, and the drivers that cannot be used here.

    With --host, those of another machine, by their names alone.
    """
    if host not in (None, LOCAL):
        if driver is not None:
            raise click.UsageError("--driver: a host lists all of its devices", click.get_current_context())
        print_of_host(settings, host, "devices")
        return
    found = apyfal.devices(driver)
    if settings.json:
        devices = [{**device, "capabilities": sorted(device["capabilities"])} for device in found]
        print_json({"devices": devices, "unavailable": found.unavailable})
        return
    print_rows([_identity(device) for device in found], header=("device", "name", "vendor", "memory", "version"))
    names = sorted({name for device in found for name in device["capabilities"]})
    if found:
        click.echo()
    print_rows(
        [_abilities(device, names) for device in found],
        header=("device", *names, "address align", "size align", "offset align", "runs at once"),
    )
    for name, reason in found.unavailable.items():
        click.echo(f"\n{name} cannot be used here: {reason}")


def _label(device: dict[str, Any]) -> str:
    return f"{device['driver']}:{device['index']}"


def _identity(device: dict[str, Any]) -> list[str]:
    memory = format_size(device["memory"]) if device["memory"] else "-"
    return [_label(device), device["name"], device["vendor"], memory, device["version"] or "-"]


def _abilities(device: dict[str, Any], names: list[str]) -> list[str]:
    numbers = (device[key] for key in ("import_align", "size_align", "offset_align", "compute_units"))
    marks = ("yes" if name in device["capabilities"] else "-" for name in names)
    return [_label(device), *marks, *(str(number) for number in numbers)]
