"""The table of what does each function of other libraries here is whole, and names what is there."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import fsspec
import pytest

import apyfal.exceptions
import apyfal.storage

PAGE = (Path(__file__).parents[2] / "docs/reference/storage-functions.md").read_text()
#: What takes a path or a name; of os those of files, since most of it is about processes.
OS = (
    *("access", "chmod", "chown", "link", "listdir", "lstat", "makedirs", "mkdir", "readlink", "remove", "removedirs"),
    *("rename", "renames", "replace", "rmdir", "scandir", "stat", "symlink", "truncate", "unlink", "utime", "walk"),
)
#: Of os.path and shutil: what is not a function of files.
NO_FILES = {
    *("altsep", "curdir", "defpath", "devnull", "extsep", "pardir", "pathsep", "sep", "supports_unicode_filenames"),
    *("commonpath", "commonprefix", "expandvars", "normcase", "normpath", "sameopenfile", "samestat"),
    *("isdevdrive", "isjunction", "isreserved", "splitroot", "ALLOW_MISSING"),
    *("Error", "ExecError", "ReadError", "RegistryError", "SameFileError", "SpecialFileError", "get_terminal_size"),
    *("get_archive_formats", "get_unpack_formats", "ignore_patterns", "register_archive_format"),
    *("register_unpack_format", "unregister_archive_format", "unregister_unpack_format"),
}
#: airfs 1.5: its ``__all__``.
AIRFS = (
    *("open", "listdir", "lstat", "makedirs", "mkdir", "readlink", "remove", "rmdir", "scandir", "stat", "symlink"),
    *("unlink", "exists", "getctime", "getmtime", "getsize", "isabs", "isdir", "isfile", "islink", "ismount"),
    *("lexists", "realpath", "relpath", "samefile", "splitdrive", "copy", "copyfile", "shareable_url", "mount"),
    *("AirfsException", "AirfsWarning", "MountException"),
)
FSSPEC = [
    name
    for name in dir(fsspec.AbstractFileSystem)
    if not name.startswith("_") and callable(getattr(fsspec.AbstractFileSystem, name))
]
EXPECTED = {
    "`os` and `os.path`": [
        *(f"os.{name}" for name in OS),
        *(f"os.path.{name}" for name in os.path.__all__ if name not in NO_FILES),
    ],
    "`shutil`": [f"shutil.{name}" for name in shutil.__all__ if name not in NO_FILES],
    "fsspec": FSSPEC,
    "airfs": list(AIRFS),
}


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]


@pytest.mark.parametrize("section", EXPECTED)
def test_every_function_has_a_row(section: str) -> None:
    named = [name for row in rows(section) for name in re.findall(r"`([\w.]+)`", row[0])]
    assert len(named) == len(set(named))
    assert set(EXPECTED[section]) - set(named) == set()
    extra = {"glob.glob", "glob.iglob", "open"} if section.startswith("`os`") else set()
    # another version of fsspec may have fewer
    assert section == "fsspec" or set(named) - set(EXPECTED[section]) - extra == set()


@pytest.mark.parametrize("section", EXPECTED)
def test_what_does_it_here_is_there(section: str) -> None:
    for row in rows(section):
        for name in re.findall(r"`(\w+)`", row[1]):
            assert name in apyfal.storage.__all__ or name in apyfal.exceptions.__all__, row
        assert row[1] or row[2], f"{row[0]}: neither what does it nor why nothing does"
