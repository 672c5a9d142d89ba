"""``apyfal accelerators``: what can be run."""

from __future__ import annotations

import click

from apyfal.accelerators import available
from apyfal.cli.common import (
    LOCAL,
    Command,
    CommonOptions,
    common_options,
    exit_status,
    host_option,
    print_error,
    print_json,
    print_of_host,
    print_rows,
)
from apyfal.definition.definition import Definition
from apyfal.definition.grammar import REQUIRED
from apyfal.exceptions import ConfigurationError

__all__ = ["command"]


@click.command(cls=Command, name="accelerators")
@host_option
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, host: str | None) -> None:
    """List the accelerators that can be run: the reference ones, plugins, and those of the configuration.

    With --host, those of another machine that the token may use.

    Those that are wrong are named after the others, and the exit status is 2.
    """
    if host not in (None, LOCAL):
        print_of_host(settings, host, "accelerators")
        return
    problems: list[ConfigurationError] = []
    _print(settings, available(settings.config, problems=problems))
    for error in problems:
        print_error(error, as_json=settings.json)
    if problems:
        click.get_current_context().exit(exit_status(problems[0]))


def _print(settings: CommonOptions, found: list[Definition]) -> None:
    if settings.json:
        print_json(
            [
                {
                    "name": one.name,
                    "driver": one.driver,
                    "kernel": one.kernel,
                    "parameters": {
                        name: None if parameter.default is REQUIRED else parameter.default
                        for name, parameter in one.parameters.items()
                    },
                    "summary": one.summary,
                }
                for one in found
            ]
        )
        return
    rows = [
        [one.name, one.driver, ", ".join(str(parameter) for parameter in one.parameters.values()), one.summary]
        for one in found
    ]
    print_rows(rows, header=("name", "driver", "parameters", "what it does"))
