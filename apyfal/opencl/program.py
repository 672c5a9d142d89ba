"""Make the one text, or the binary, that the driver loads, from ``program`` and the directories of ``-I``.

Files that a source includes become part of the text. The driver keeps built programs by their text, so a change in an
included file changes the program. ``#line`` tells the compiler which file each part is from, for its messages.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

from apyfal.exceptions import ConfigurationError, ProgramError
from apyfal.opencl.comments import Line, without_comments
from apyfal.units import format_size

__all__ = ["include_directories", "make_program", "parts_of"]

_INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)\s*')
_ONCE = re.compile(r"\s*#\s*pragma\s+once\s*")
_CONDITIONAL = re.compile(r"\s*#\s*(if|ifdef|ifndef|endif)\b")
_GUARD = re.compile(r"\s*#\s*ifndef\s+(\w+)\s*#\s*define\s+\1\b")
#: Largest depth of nested includes, number of included files, and bytes of the whole text.
_DEEPEST = 64
_MOST = 10_000
_LARGEST = 16 << 20
#: The driver does not keep a built program with one of these words. In a comment they mean nothing (a licence that
#: "shall be included"), so such comments are left out.
_UNCACHED = re.compile(r"include|import|embed|incbin|asm|__(?:DATE|TIME|TIMESTAMP)__")
#: A comment with this states how the kernel is started.
_LAUNCH = "apyfal: --"


def parts_of(program: str) -> list[str]:
    """Return the URLs of a program: one, or several sources with commas between them.

    Raises
    ------
    ConfigurationError
        One of them is empty.
    """
    parts = [part.strip() for part in program.split(",")]
    if not all(parts):
        raise ConfigurationError(f"program = {program}: an empty name; expected <source>, <source>")
    return parts


def include_directories(build: str) -> list[str]:
    """Return the directories of ``-I`` in the compiler's options, in their order."""
    words = iter(build.split())
    found = [word[2:] or next(words, "") for word in words if word.startswith("-I")]
    return [directory for directory in found if directory]


def make_program(program: str, build: str, read: Callable[[str], bytes]) -> bytes:
    """Return the text or binary that the driver loads.

    Parameters
    ----------
    program
        See `parts_of`. A binary must be the only part.
    build
        The compiler's options.
    read
        Returns the bytes at a storage URL or path; raises `FileNotFoundError` if there is nothing.

    Raises
    ------
    ProgramError
        There is a binary among several sources, a file includes itself without end, or the text is too large.
    StorageError
        A source cannot be read.
    """
    names = parts_of(program)
    contents = [read(name) for name in names]
    for name, content in zip(names, contents, strict=True):
        if _is_binary(content):
            if len(names) > 1:
                raise ProgramError(f"program = {program}: {name!r} is a binary; expected sources, or one binary alone")
            return content
    text = _Text(include_directories(build), read)
    for name, content in zip(names, contents, strict=True):
        if len(names) > 1 or b"include" in content:
            text.begin(1, name)
        text.add(name, content.decode("latin-1"))
    return text.content()


def _is_binary(content: bytes) -> bool:
    return content.startswith(b"xclbin") or b"\0" in content[:4096]


class _Text:
    """The text of a program, which grows file by file. Each character is one byte, since the encoding is not known."""

    def __init__(self, directories: Sequence[str], read: Callable[[str], bytes]) -> None:
        self._directories = directories
        self._read = read
        self._lines: list[str] = []
        self._size = 0
        self._found: dict[str, str | None] = {}
        self._split: dict[str, list[Line]] = {}
        self._included = 0
        self._once: dict[str, str] = {}  # macros for files with `#pragma once`

    def content(self) -> bytes:
        return "".join(self._lines).encode("latin-1")

    def _put(self, line: str) -> None:
        self._size += len(line)
        if self._size > _LARGEST:
            raise ProgramError(f"the program and what it includes have more than {format_size(_LARGEST)}")
        self._lines.append(line)

    def begin(self, line: int, name: str) -> None:
        """Tell the compiler the file and number of the next line."""
        shown = name.replace("\\", "\\\\").replace('"', '\\"')
        self._put(f'#line {line} "{shown}"\n')

    def add(self, name: str, text: str, within: tuple[str, ...] = ()) -> None:
        """Add a file, which the files `within` include."""
        within = (*within, name)
        if len(within) > _DEEPEST:
            raise ProgramError(f"{name!r} is included by {_DEEPEST} files in files; expected fewer")
        if name not in self._split:
            self._split[name] = list(without_comments(text))
            _check_ends(name, self._split[name])
        lines = self._split[name]
        once = any(line.begins and _ONCE.fullmatch(line.code) for line in lines)
        # in all lines or in none: a comment can have several
        bare = any(_UNCACHED.search(line.text) and not _UNCACHED.search(line.code) for line in lines)
        if once:
            macro = self._once.setdefault(name, f"APYFAL_ONCE_{len(self._once)}")
            self._put(f"#ifndef {macro}\n#define {macro}\n")
            self.begin(1, name)
        for number, line in enumerate(lines, start=1):
            match = _INCLUDE.fullmatch(line.code) if line.begins and line.ends else None
            if match is not None and self._include(match[1] or match[2], match[1] is not None, within):
                self.begin(number + 1, name)
            elif once and line.begins and _ONCE.fullmatch(line.code):
                self._put("\n")
            else:
                self._put(f"{_without_remarks(line) if bare else line.text}\n")
        if lines and not lines[-1].ends:
            self._put("\n")  # its backslash joins nothing of another file
        if once:
            self._put("#endif\n")

    def _include(self, wanted: str, quoted: bool, within: tuple[str, ...]) -> bool:
        """Add an included file; false: it was not found, and is left to the compiler."""
        for place in self._places(wanted, within[-1] if quoted else None):
            text = self._content_of(place)
            if text is None:
                continue
            if place in within:
                code = "".join(f"{line.code}\n" for line in without_comments(text))
                if place not in self._once and not _GUARD.match(code):
                    raise ProgramError(f"{place!r} includes itself: {' -> '.join([*within, place])}")
                return True  # its include guard is defined by now
            self._included += 1
            if self._included > _MOST:
                raise ProgramError(f"{within[0]!r} includes more than {_MOST} files, with those in them")
            self.begin(1, place)
            self.add(place, text, within)
            return True
        return False

    def _places(self, wanted: str, beside: str | None) -> Iterator[str]:
        if beside is not None:
            yield _beside(beside, wanted)
        for directory in self._directories:
            yield _beside(posixpath.join(directory, "-"), wanted)

    def _content_of(self, place: str) -> str | None:
        if place not in self._found:
            try:
                self._found[place] = self._read(place).decode("latin-1")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                self._found[place] = None
        return self._found[place]


def _without_remarks(line: Line) -> str:
    """Return a line without comments, except what says how the kernel is started."""
    code, at = line.code, line.text.find(_LAUNCH)
    if at >= 0 and _LAUNCH not in code:
        launch = line.text[at:].partition("*/")[0].rstrip(" \\")
        code += f" /* {launch} */"
    return f"{code} \\" if line.commented else code  # a directive goes on behind a comment of several lines


def _check_ends(name: str, lines: Sequence[Line]) -> None:
    """Raise `ProgramError` if a comment or a conditional does not end in its file: a compiler requires that."""
    if lines and lines[-1].commented:
        raise ProgramError(f"{name}:{len(lines)}: a comment without an end")
    opened: list[int] = []
    for number, line in enumerate(lines, start=1):
        match = _CONDITIONAL.match(line.code)
        if match is None:
            continue
        if not line.begins:
            return  # a comment in front of it, or no directive: the compiler knows
        if match[1] != "endif":
            opened.append(number)
        elif opened:
            opened.pop()
        else:
            raise ProgramError(f"{name}:{number}: #endif without #if")
    if opened:
        raise ProgramError(f"{name}:{opened[-1]}: #if without #endif")


def _beside(name: str, wanted: str) -> str:
    """Return the path or URL of a file that is named relative to the file or URL `name`."""
    scheme, colon, path = name.partition("://")
    if not colon:
        return os.path.normpath(os.path.join(os.path.dirname(name), wanted))
    host, slash, path = path.partition("/")
    target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), wanted))  # never above the root
    return f"{scheme}://{host}{slash}{target.lstrip('/')}"
