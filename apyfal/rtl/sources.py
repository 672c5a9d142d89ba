"""The sources that ``program`` of an RTL accelerator names: files, directories, file lists with simulators' options."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from apyfal.exceptions import ConfigurationError, ProgramError

__all__ = ["Sources", "find_sources"]

_VERILOG = (".v", ".sv")
_VHDL = (".vhd", ".vhdl")
_HEADERS = (".vh", ".svh", ".h")
_LISTS = (".f", ".flist")
_MODULE = re.compile(r"^\s*(?:module|entity)\s+(?:automatic\s+|static\s+)?(\w+)", re.MULTILINE | re.IGNORECASE)
#: file lists in file lists
_NESTED_LISTS = 32


@dataclass(frozen=True, slots=True)
class Sources:
    """Files and options of a design.

    Attributes
    ----------
    files
        Verilog and SystemVerilog, in the order in which they are read.
    vhdl
        VHDL files.
    includes, libraries
        Directories of ``+incdir+`` and ``-y``.
    defines
        Of ``+define+``, ``NAME`` or ``NAME=VALUE``.
    metadata
        ``kernel.xml`` files.
    lists
        File lists; each is read once, however often it is named.
    """

    files: list[Path] = field(default_factory=list)
    vhdl: list[Path] = field(default_factory=list)
    includes: list[Path] = field(default_factory=list)
    libraries: list[Path] = field(default_factory=list)
    defines: list[str] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)

    def options(self) -> list[str]:
        """Return these as options of Verilator."""
        return [
            *(f"+incdir+{path}" for path in self.includes),
            *(word for path in self.libraries for word in ("-y", str(path))),
            *(f"+define+{text}" for text in self.defines),
            *map(str, self.files),
        ]

    def modules(self) -> list[str]:
        """Return the names of the modules and entities that the files seem to declare, sorted."""
        found = {
            name
            for path in (*self.files, *self.vhdl)
            for name in _MODULE.findall(path.read_text(encoding="utf-8", errors="replace"))
        }
        return sorted(found)

    def digest(self) -> str:
        """Return a digest of everything that the design can be made of: names, contents, options."""
        content = hashlib.sha256("\0".join(self.defines).encode())
        others = [
            path
            for folder in (*self.includes, *self.libraries)
            for path in sorted(folder.iterdir())
            if path.suffix in (*_VERILOG, *_HEADERS) and path.is_file()
        ]
        for path in (*self.files, *self.vhdl, *self.metadata, *others):
            data = path.read_bytes()
            content.update(f"\0{path}\0{len(data)}\0".encode())
            content.update(data)
        return content.hexdigest()


def find_sources(program: str) -> Sources:
    """Return what a definition's ``program`` names.

    Parameters
    ----------
    program
        Paths, separated by commas or lines. A directory stands for its ``.v``, ``.sv``, ``.vhd`` and ``kernel.xml``
        files. A file list (``.f``) has a path or an option a line.

    Raises
    ------
    ProgramError
        A file is not there, or is not a source of a design.
    ConfigurationError
        An option of a file list is not known.
    """
    sources = Sources()
    for text in re.split(r"[,\n]", program):
        if text.strip():
            _add(sources, Path(text.strip().removeprefix("file://")).expanduser())
    if not sources.files and not sources.vhdl:
        raise ProgramError(
            f"program {program!r} has no Verilog source; expected .v or .sv files, a directory of them, or a .f list"
        )
    folders = dict.fromkeys(path.parent for path in sources.files)
    sources.includes.extend(path for path in folders if path not in sources.includes)
    return sources


def _add(sources: Sources, path: Path, depth: int = 0) -> None:
    if os.path.isdir(path):  # unlike those of Path, these take any text
        found = [
            each for each in sorted(path.iterdir()) if each.suffix in (*_VERILOG, *_VHDL) or each.name == "kernel.xml"
        ]
        if not found:
            raise ProgramError(f"no Verilog source in directory {path}")
        for each in found:
            _add(sources, each)
    elif not os.path.isfile(path):
        raise ProgramError(f"no such file: {str(path)[:500]}")
    elif path.suffix in _LISTS:
        _read_list(sources, path, depth)
    elif path.suffix in _VERILOG:
        sources.files.append(path)
    elif path.suffix in _VHDL:
        sources.vhdl.append(path)
    elif path.suffix == ".xml":
        sources.metadata.append(path)
    elif path.suffix in _HEADERS:
        sources.includes.append(path.parent)
    else:
        raise ProgramError(
            f"{path} is not a source of a design; expected {', '.join((*_VERILOG, *_VHDL, *_LISTS))} or kernel.xml"
        )


def _read_list(sources: Sources, path: Path, depth: int) -> None:
    if path in sources.lists:
        return
    sources.lists.append(path)
    if depth >= _NESTED_LISTS:
        raise ProgramError(f"{path}: more than {_NESTED_LISTS} file lists name each other")
    words = re.sub(r"//.*|#.*", "", path.read_text(errors="surrogateescape")).split()
    folder = path.parent
    for number, word in enumerate(words):
        previous = words[number - 1] if number else ""
        if word.startswith("+incdir+"):
            sources.includes.extend(folder / text for text in word.split("+")[2:] if text)
        elif word.startswith("+define+"):
            sources.defines.extend(text for text in word.split("+")[2:] if text)
        elif word == "-y":
            if number + 1 == len(words):
                raise ConfigurationError(f"{path}: -y names no directory")
        elif previous == "-y":
            sources.libraries.append(folder / word)
        elif word.startswith(("-", "+")):
            raise ConfigurationError(
                f"{path}: option {word!r} is not known; expected +incdir+, +define+, -y, or a file"
            )
        else:
            _add(sources, folder / word, depth + 1)
