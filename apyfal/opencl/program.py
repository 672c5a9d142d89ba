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
from apyfal.log import redact, redact_text
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
#: Characters to be escaped in the file name of a `#line`: quotes, backslashes, the `?` of trigraphs, control
#: characters, and bytes of an unknown encoding.
_UNQUOTED = re.compile(r'["\\?]|[^ -~]')
#: Separates the compiler's options. `str.split` would also split a directory's name at blanks that are not ASCII.
_BLANKS = re.compile(r"[ \t\n\v\f\r]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: A comment with this states how the kernel is started.
_LAUNCH = "apyfal: --"


def parts_of(program: str) -> list[str]:
    """Return the URLs of a program: one, or several sources with commas between them.

    Raises
    ------
    ConfigurationError
        One of them is empty.
    """
    parts = [part.strip(" \t\n\v\f\r") for part in program.split(",")]
    if not all(parts):
        raise ConfigurationError(
            f"program = {_shown(redact_text(program))}: an empty name; expected <source>, <source>"
        )
    return parts


def include_directories(build: str) -> list[str]:
    """Return the directories of ``-I`` in the compiler's options, in their order."""
    words = iter(filter(None, _BLANKS.split(build)))
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
                raise ProgramError(
                    f"program = {_shown(redact_text(program))}: {redact(name)!r} is a binary; "
                    "expected sources, or one binary alone"
                )
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
        self._keys: dict[str, str] = {}
        # by `_key`: a file's content does not depend on the name that led to it
        self._texts: dict[str, str] = {}
        self._split: dict[str, list[Line]] = {}
        self._guarded: dict[str, bool] = {}
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
        shown = _UNQUOTED.sub(_escaped, _bytes_of(redact(name)).decode("latin-1"))
        self._put(f'#line {line} "{shown}"\n')

    def add(self, name: str, text: str, within: tuple[str, ...] = ()) -> None:
        """Add a file, which the files `within` include."""
        within = (*within, name)
        if len(within) > _DEEPEST:
            raise ProgramError(f"{redact(name)!r} is included by {_DEEPEST} files in files; expected fewer")
        key = self._key(name)
        if key not in self._split:
            self._split[key] = list(without_comments(text))
            _check_ends(_shown(redact(name)), self._split[key])
        lines = self._split[key]
        once = any(line.begins and _ONCE.fullmatch(line.code) for line in lines)
        # in all lines or in none: a comment can have several
        bare = any(_UNCACHED.search(line.text) and not _UNCACHED.search(line.code) for line in lines)
        if once:
            macro = self._once.setdefault(key, f"APYFAL_ONCE_{len(self._once)}")
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
            self._included += 1
            if self._included > _MOST:
                raise ProgramError(f"{redact(within[0])!r} includes more than {_MOST} files, with those in them")
            key = self._key(place)
            if any(key == self._key(one) for one in within):
                if key not in self._once and not self._has_guard(key):
                    chain = " -> ".join(_shown(redact(one)) for one in [*within, place])
                    raise ProgramError(f"{redact(place)!r} includes itself: {chain}")
                return True  # its include guard is defined by now
            self.begin(1, place)
            self.add(place, text, within)
            return True
        return False

    def _has_guard(self, key: str) -> bool:
        if key not in self._guarded:
            self._guarded[key] = _GUARD.match("".join(f"{line.code}\n" for line in self._split[key])) is not None
        return self._guarded[key]

    def _places(self, wanted: str, beside: str | None) -> Iterator[str]:
        if beside is not None:
            yield _beside(beside, wanted)
        for directory in self._directories:
            yield _beside(posixpath.join(directory, "-"), wanted)

    def _key(self, name: str) -> str:
        """Return a key that all names of a file share, also those through symbolic links."""
        if name not in self._keys:
            path = _local_path(name)
            self._keys[name] = name if path is None else os.path.realpath(path)
        return self._keys[name]

    def _content_of(self, place: str) -> str | None:
        # by the name itself: "missing/../b.h" is not there, and "b.h" is
        if place not in self._found:
            if _local_path(place) is None and _SURROGATE.search(place):
                return None  # names in stores are UTF-8
            try:
                text = self._read(place).decode("latin-1")
                self._found[place] = self._texts.setdefault(self._key(place), text)
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


def _bytes_of(name: str) -> bytes:
    """Return the bytes of a name: for a local file those of the file system, for an object UTF-8."""
    return os.fsencode(name) if _local_path(name) else name.encode("utf-8", "surrogateescape")


def _escaped(character: re.Match[str]) -> str:
    return f"\\{character[0]}" if character[0] in '"\\?' else f"\\{ord(character[0]):03o}"


def _shown(text: str) -> str:
    """Return a text with escapes for line breaks and other characters that cannot be printed."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _local_path(name: str) -> str | None:
    """Return the path of a local file; ``None`` for a file in a store."""
    scheme, colon, rest = name.partition("://")
    if not colon or "/" in scheme:
        return name
    return f"/{rest.partition('/')[2]}" if scheme.lower() == "file" else None


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
    """Return the path or URL of a file that is named relative to the file or URL `name`.

    Each character of `wanted` is one byte. A local path keeps its ``..``: the system resolves it, after symbolic links.
    """
    local = _local_path(name)
    raw = wanted.encode("latin-1")
    wanted = raw.decode("utf-8", "surrogateescape") if local is None else os.fsdecode(raw)
    if local == name:
        folder = os.path.dirname(name)
        if not folder and ":" in wanted.partition("/")[0]:
            folder = os.curdir  # "s3://x" in a source is the name of a file, no URL
        return os.path.join(folder, wanted)
    scheme, _, path = name.partition("://")
    host, slash, path = path.partition("/")
    if not slash and scheme.lower() not in ("http", "https"):
        host = ""  # a file in the root of a mount
    target = posixpath.join("/", posixpath.dirname(path), wanted)
    if local is None:
        target = posixpath.normpath(target)  # never above the root
    return f"{scheme}://{host}{slash}{target.lstrip('/')}"
