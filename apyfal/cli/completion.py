"""What a shell offers after Tab: paths, and the names of mounts, accelerators and drivers.

Names come from the text of the configuration and from installed packages. If the text begins like the URL of a store,
that store is listed, see `apyfal.cli.store_names`. Nothing else opens a connection, or a file that a configuration
names. A name with characters that are special in a shell is not offered: somebody else may have written the
configuration in the working directory.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from apyfal.cli.store_names import names_in_store
from apyfal.exceptions import AcceleratorException

__all__ = ["complete_accelerator", "complete_driver", "complete_mount", "complete_path"]

#: Names that mean themselves in every shell.
_PLAIN = re.compile(r"[A-Za-z0-9_.+@%][A-Za-z0-9_.+@%-]*", re.ASCII)


def complete_path(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer paths, which the shell lists itself, names of mounts, and names in a store."""
    by_shell = [CompletionItem(incomplete, type="file")]
    if "://" in incomplete:
        found = names_in_store(incomplete)
        return by_shell if found is None else [CompletionItem(name) for name in found]
    if not incomplete or not _PLAIN.fullmatch(incomplete):
        return by_shell
    mounts = _beginning(incomplete, _mounts)
    files = [name for name in os.listdir() if name.startswith(incomplete)] if mounts else []
    if not mounts or not all(_PLAIN.fullmatch(name) for name in files):
        return by_shell
    # Bash offers either what the shell knows or what it is told: told both, here.
    return [CompletionItem(f"{name}://") for name in mounts] + [CompletionItem(name) for name in sorted(files)]


def complete_mount(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of mounts."""
    return _beginning(incomplete, _mounts)


def complete_accelerator(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer the accelerators that are installed, and those that the configuration names."""
    return _beginning(incomplete, _accelerators)


def complete_driver(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer the drivers that are installed."""
    return _beginning(incomplete, _drivers)


def _beginning(text: str, names: Callable[[], Iterable[str]]) -> list[str]:
    """Return the names that begin with a text; without those of a broken configuration: a prompt shows no error."""
    found = set()
    with contextlib.suppress(AcceleratorException, OSError, ValueError):
        for name in names():
            if name.startswith(text) and _PLAIN.fullmatch(name):
                found.add(name)
    return sorted(found)


def _mounts() -> Iterable[str]:
    from apyfal.config.configuration import Configuration
    from apyfal.storage import providers
    from apyfal.storage.mounting.from_config import configured

    yield from (name for name in providers.BUILT_IN if name != "file")
    yield from configured(Configuration.load())


def _accelerators() -> Iterable[str]:
    from apyfal.config.configuration import Configuration
    from apyfal.definition import registry

    yield from registry.names()
    yield from (name.partition(".")[2] for name in Configuration.load().sections("accelerator"))


def _drivers() -> Iterable[str]:
    from apyfal.device.drivers import driver_names

    return driver_names()
