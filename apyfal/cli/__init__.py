"""The command ``apyfal``.

This module knows the commands' names only; each is a module of `apyfal.cli.commands`, imported when it is used.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from apyfal.cli.interruption import ended_by_signals, interruptible
from apyfal.exceptions import did_you_mean
from apyfal.log import redact_text

__all__ = ["COMMANDS", "main"]

#: Name to the module that has it (as ``command``) and what it does, in the order of ``apyfal --help``.
COMMANDS: dict[str, tuple[str, str]] = {
    "process": ("apyfal.cli.commands.process", "Run one job of an accelerator."),
    "copy": ("apyfal.cli.commands.storage.copy", "Copy between any two storage URLs."),
    "sync": ("apyfal.cli.commands.storage.sync", "Make a directory like another, copying what differs."),
    "ls": ("apyfal.cli.commands.storage.ls", "List what is below a storage URL."),
    "cat": ("apyfal.cli.commands.storage.cat", "Write what is in files and objects to standard output."),
    "stat": ("apyfal.cli.commands.storage.stat", "Show what a store says of files and objects."),
    "mkdir": ("apyfal.cli.commands.storage.mkdir", "Make directories and buckets."),
    "mv": ("apyfal.cli.commands.storage.mv", "Move or rename files and objects."),
    "rm": ("apyfal.cli.commands.storage.rm", "Remove files and objects, and what is below directories."),
    "sign": ("apyfal.cli.commands.storage.sign", "Make addresses by which others reach an object."),
    "mounts": ("apyfal.cli.commands.storage.mounts", "List the mounted storage."),
    "config": ("apyfal.cli.commands.config", "Show the configuration files; trust one."),
    "accelerators": ("apyfal.cli.commands.accelerators", "List the accelerators that can be run."),
    "devices": ("apyfal.cli.commands.machine.devices", "List the devices that accelerators run on."),
    "jobs": ("apyfal.cli.commands.jobs", "List your jobs on a host."),
    "cancel": ("apyfal.cli.commands.cancel", "Cancel jobs on a host."),
    "kernels": ("apyfal.cli.commands.machine.kernels", "Show the kernels of a program, and sections to paste."),
    "bench": ("apyfal.cli.commands.machine.bench", "Measure what a device does on this machine."),
    "doctor": ("apyfal.cli.commands.machine.doctor", "Say what this machine lacks, and how to get it."),
    "serve": ("apyfal.cli.commands.serve", "Share this machine's accelerators with remote users."),
    "token": ("apyfal.cli.commands.token", "Create, list and revoke the tokens of remote users."),
    "host": ("apyfal.cli.commands.host", "Check that this machine is fit to be a host."),
}


class _Commands(click.Group):
    """The group of `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with ended_by_signals():
            command = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}{did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from apyfal import __version__  # brings numpy with it

        click.echo(f"apyfal {__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def group() -> None:
    """Data from any storage URL, file or pipe through an accelerator and back.

    A storage URL is scheme://path: file, http, https, s3, swift, oss, gs, az, host, or the name of a mount; without a
    scheme it is a local path. Exit status: 0 done, 1 the job failed, 2 wrong usage, parameter or configuration, 3 not
    found, 4 no permission, 5 timed out, 6 a store, host or driver cannot be reached, 130 interrupted. An interrupted
    command undoes what it was writing; a second signal ends it at once, and so do 30 seconds.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments
        Without the program's name; ``None``: those of the process.
    """
    if "_APYFAL_COMPLETE" in os.environ:  # the shell asks, see `apyfal.cli.shells`
        importlib.import_module("apyfal.cli.shells")
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are bytes, and are printed as they are
    try:
        with interruptible(ends_the_process=arguments is None):
            status = group.main(args=arguments, prog_name="apyfal", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path!r} --help)" if context is not None else ""
        click.echo(f"apyfal: error: {redact_text(error.format_message())}{hint}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("apyfal: interrupted", err=True)
        return 130
    return status if isinstance(status, int) else 0
