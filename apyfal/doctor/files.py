"""Configuration files, and the directories that apyfal writes to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apyfal.config import report
from apyfal.config.ini import shown_path
from apyfal.doctor.finding import Finding

__all__ = ["check_configuration", "check_directories"]

#: Environment variable of the XDG base directories, its default below the home directory, what apyfal keeps there.
_DIRECTORIES = (
    ("XDG_CACHE_HOME", ".cache", "built programs and simulators are made anew in every process"),
    ("XDG_STATE_HOME", ".local/state", "trusted configuration files and a host's tokens cannot be kept"),
)
_STATES = {
    "wrong": ("problem", "correct the line that is named"),
    "unreadable": ("problem", "chmod u+r {file}, or name another one by --config"),
    "not trusted": ("problem", "read it, then: apyfal config trust {file}"),
    "not used": ("note", "apyfal ... --config {file} uses it"),
    "trusted": ("ok", ""),
}


def check_configuration() -> Iterator[Finding]:
    """Say which configuration files there are, and which of them count."""
    files = report.files()
    if not files:
        yield Finding("files", "ok", "no accelerator.conf: the defaults, and the software card")
    for one in files:
        state, remedy = _STATES[one.state]
        if one.state == "trusted" and one.reason:
            state, remedy = "problem", f"chmod go-w {one.file}"
        reason = f": {one.reason}" if one.reason else ""
        yield Finding(
            "files",
            state,
            f"{shown_path(one.file)} ({one.place}, owner {one.owner}, mode {one.mode}) is {one.state}{reason}",
            remedy.format(file=one.file),
        )


def check_directories() -> Iterator[Finding]:
    """Look whether the directories that apyfal writes to can be written."""
    for variable, usual, loss in _DIRECTORIES:
        root = Path(os.environ.get(variable) or Path.home() / usual)
        existing = next(path for path in (root, *root.parents) if path.is_dir())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            yield Finding(
                "files",
                "problem",
                f"{existing} cannot be written ({error.strerror}): {loss}",
                f"{variable}=/a/directory/of/yours",
            )
        else:
            yield Finding("files", "ok", f"{root} can be written")
