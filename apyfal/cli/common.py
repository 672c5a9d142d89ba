"""What all commands share: their common options, how errors end them, and how they print."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import click

from apyfal.cli.completion import complete_path
from apyfal.exceptions import (
    AcceleratorException,
    ConfigurationError,
    DeviceNotFound,
    DriverUnavailable,
    InvalidURL,
    MountError,
    ParameterError,
)
from apyfal.log import redact_text

__all__ = [
    "LOCAL",
    "Command",
    "CommonOptions",
    "common_options",
    "exit_status",
    "host_option",
    "key_values",
    "named_host",
    "print_error",
    "print_json",
    "print_json_list",
    "print_of_host",
    "print_rows",
    "use_host",
]

if TYPE_CHECKING:
    from apyfal.host.client.http import Host

#: The host that is not a host: this machine, also if the configuration names one.
LOCAL = "local"

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Exit status by exception, the first that fits. 1 is everything else.
_STATUS: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((ParameterError, ConfigurationError, InvalidURL, MountError), 2),
    ((FileNotFoundError, DeviceNotFound), 3),
    ((PermissionError,), 4),
    ((TimeoutError,), 5),
    ((ConnectionError, DriverUnavailable), 6),
)


@dataclass
class CommonOptions:
    """The options that every command has.

    Attributes
    ----------
    json
        Print one JSON document instead of text.
    quiet
        No progress bar.
    debug
        Show the traceback of an error.
    config
        The configuration file, or ``None`` for the usual ones.
    """

    json: bool = False
    quiet: bool = False
    debug: bool = False
    config: str | None = None

    @property
    def progress(self) -> bool:
        """Whether to show a progress bar: where a person is looking, at a terminal that can move its cursor."""
        is_dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
        return not self.quiet and not self.json and sys.stderr.isatty() and not is_dumb


class Command(click.Command):
    """A command whose errors are one line and an exit status."""

    def get_short_help_str(self, limit: int = 100) -> str:
        """Return the first line of the help."""
        return super().get_short_help_str(limit)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        settings = ctx.ensure_object(CommonOptions)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            # Whoever read our output left. What is still buffered would fail again at exit: let it go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(128 + signal.SIGPIPE)
        except Exception as error:
            if settings.debug:
                traceback.print_exc()
            print_error(error, as_json=settings.json)
            ctx.exit(exit_status(error))


def exit_status(error: BaseException) -> int:
    """Return the exit status that tells the kind of `error`."""
    return next((status for kinds, status in _STATUS if isinstance(error, kinds)), 1)


def print_error(error: Exception, *, as_json: bool) -> None:
    """Print one line for an error on standard error; a JSON document with `as_json`."""
    message = redact_text(" ".join(str(error).split()))
    if not isinstance(error, (AcceleratorException, OSError)):
        message = f"{type(error).__name__}: {message} (this is a defect of apyfal; --debug shows where)"
    if as_json:
        document = {"error": {"type": type(error).__name__, "message": message, "status": exit_status(error)}}
        click.echo(json.dumps(document), err=True)
    else:
        click.echo(f"apyfal: error: {message}", err=True)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(CommonOptions), name, value)

    return callback


def _set_config(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(CommonOptions).config = value
        os.environ["APYFAL_CONFIG_FILE"] = value  # for what reads the configuration by itself, such as mounts


def common_options(function: _Function) -> _Function:
    """Add the options of `CommonOptions` to a command; they come as the context's object."""
    flag: dict[str, Any] = {"is_flag": True, "expose_value": False}
    for option in (
        click.option("--debug", **flag, callback=_set("debug"), help="Show the traceback of an error."),
        click.option("-q", "--quiet", **flag, callback=_set("quiet"), help="No progress bar."),
        click.option("--json", **flag, callback=_set("json"), help="Print JSON."),
        click.option(
            "--config",
            metavar="FILE",
            expose_value=False,
            callback=_set_config,
            shell_complete=complete_path,
            help="Configuration file to use.",
        ),
    ):
        function = option(function)
    return function


def key_values(texts: Iterable[str], option: str) -> dict[str, str]:
    """Read ``KEY=VALUE`` texts; the last one of a key counts.

    Raises
    ------
    click.UsageError
        One has no ``=`` or no key.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(f"{option} {text!r}: expected KEY=VALUE", click.get_current_context())
        found[key.strip()] = value
    return found


def use_host(settings: CommonOptions, *urls: str) -> None:
    """Let ``host://`` in `urls` mean the files of the host that the configuration's ``[host]`` section names."""
    if not any(url.startswith("host://") for url in urls):
        return
    from apyfal.host.client.accelerator import open_host
    from apyfal.host.client.store import attach_host

    attach_host(open_host(settings.config))


def host_option(function: _Function) -> _Function:
    """Add ``--host`` to a command that is about a host."""
    return click.option("--host", metavar="URL", help="Of this host: address or https://host:port; 'local': here.")(
        function
    )


@contextlib.contextmanager
def named_host(settings: CommonOptions, host: str | None) -> Iterator[Host]:
    """Open the host of ``--host``, or that of the configuration.

    Raises
    ------
    ConfigurationError, ParameterError
        No host is named, or the text is not an address of one.
    """
    from apyfal.host.client.accelerator import open_host

    if host == LOCAL:
        raise ParameterError("--host local: this machine's own jobs have no list; expected the address of a host")
    there = open_host(settings.config, host_ip=host)
    try:
        yield there
    finally:
        there.close()


def print_json(document: object) -> None:
    """Print one JSON document; see `apyfal.host.protocol.values.plain` for what JSON does not have."""
    click.echo(_json_text(document))


def print_json_list(documents: Iterable[object]) -> None:
    """Print a list as `print_json` does, without holding all of it."""
    separator = "[\n"
    for document in documents:
        click.echo(separator + indent(_json_text(document), "  "), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _json_text(document: object) -> str:
    from apyfal.host.protocol.values import plain

    return json.dumps(plain(document), indent=2, allow_nan=False)


def print_of_host(settings: CommonOptions, host: str | None, what: str) -> None:
    """Print the ``devices`` or ``accelerators`` of a host, as it describes them."""
    with named_host(settings, host) as there:
        found = there.json("GET", f"/v1/{what}")[what]
    if settings.json:
        print_json({what: found})
        return
    for line in found:
        click.echo(line)


def print_rows(rows: Collection[Sequence[str]], *, header: Sequence[str] = ()) -> None:
    """Print columns as wide as they need to be, in upper case the `header`. The rows are read twice."""
    titles = [[name.upper() for name in header]] if header and rows else []
    widths: list[int] = []
    for line in chain(titles, rows):
        widths = [max(len(cell), width) for cell, width in zip(line, widths or [0] * len(line), strict=True)]
    for line in chain(titles, rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
