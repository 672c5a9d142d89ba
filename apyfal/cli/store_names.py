"""Names in stores for completion: those that begin with ``s3://bucket/pre``, listed by a process with a time limit."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from apyfal.exceptions import AcceleratorException
from apyfal.units import parse_boolean, parse_duration

__all__ = ["SETTING", "names_in_store", "print_names"]

#: ``no``: never list a store; a duration (``5s``): wait that long for it.
SETTING = "APYFAL_COMPLETE_STORES"
_SECONDS = 2.0
#: Most names that are offered. Some of a larger number would be completed to a prefix that the others do not have.
_MOST = 1000
#: Names without special characters of any shell. The names in a store are chosen by everybody who can write to it.
_PLAIN = re.compile(r"[A-Za-z0-9_.+@%/:-]+", re.ASCII)
#: The first statement sets the module path of this process, which need not contain the working directory.
_CODE = """\
import sys
sys.path[:] = sys.argv[2:]
from apyfal.cli.store_names import print_names
print_names(sys.argv[1])
"""


def names_in_store(text: str) -> list[str] | None:
    """Return the URLs below a store that begin with a text; directories end in ``/``.

    ``None``: the store is not listed, because the user turned that off, or because the configuration is not trusted.
    The list is empty if listing takes too long or fails, or if there are more than 1000 names. The process that lists
    has no terminal, so nothing can ask for a password there.
    """
    seconds = _limit()
    scheme = text.partition("://")[0].lower()
    if seconds is None or scheme in ("file", "http", "https", "host") or not _PLAIN.fullmatch(text) or not _trusted():
        return None
    command = [sys.executable, "-c", _CODE, text, *(place for place in sys.path if place)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("_APYFAL", "COMP_"))}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []


def _limit() -> float | None:
    """Return the seconds to wait for a store; ``None``: do not list it."""
    said = os.environ.get(SETTING, "yes")
    try:
        return _SECONDS if parse_boolean(said) else None
    except AcceleratorException:
        pass
    try:
        return parse_duration(said)
    except AcceleratorException:
        return None  # the value is malformed; a prompt shows no error


def _trusted() -> bool:
    """Return whether the user trusts the configuration: nobody else may choose which host Tab connects to."""
    from apyfal.config.configuration import Configuration

    try:
        return Configuration.load().distrust is None
    except (AcceleratorException, OSError):
        return False


def print_names(text: str) -> None:
    """Print the URLs that begin with a text, one a line; exit with 1 if there are too many."""
    from apyfal.storage.mounting.table import resolve
    from apyfal.storage.url import parse

    scheme, _, path = text.partition("://")
    folder, slash, begin = path.rpartition("/")
    top = f"{scheme}://{folder}{slash}"
    found = set()
    with resolve(parse(top)) as target:
        for info in target.handler.list(target.path):
            name = info.path.rstrip("/").rpartition("/")[2]
            if name.startswith(begin) and _PLAIN.fullmatch(name):
                found.add(f"{top}{name}{'/' if info.is_directory else ''}")
            if len(found) > _MOST:
                sys.exit(1)
    for url in sorted(found):
        print(url)
