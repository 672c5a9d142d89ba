"""A parser for INI text whose values record their position in the file.

The meaning of sections and keys is defined in `apyfal.config.configuration`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from apyfal.exceptions import ConfigurationError, did_you_mean
from apyfal.log import redact_text

__all__ = ["Value", "is_secret", "parse", "shown_path", "without_user_info"]

_SECTION = re.compile(r"\[\s*([^\[\]]*?)\s*\]")
_SECTION_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
_KEY = re.compile(r"[^\W\d][\w.-]*")
_SHOWABLE = re.compile(r"[A-Za-z_.:-]{1,20}")
_COMMENT = re.compile(r"(^|\s);.*$")
_SECRET = re.compile(
    r"(^|[._-])(secret|tokens?|password|passwd|passphrase|credentials?|sas|key|apikey|connection_string)($|[._-])"
    r"|^(auth|acct|headers|cookies|pwd)$",  # the names of whole parameters that hold one
    re.I,
)
_USER_INFO = re.compile(r"(://)[^/@\s]+@")


def is_secret(key: str) -> bool:
    """Return whether values of `key` must never be displayed."""
    return _SECRET.search(key) is not None


def without_user_info(text: str) -> str:
    """Return `text` with users, passwords and other secrets in web addresses replaced."""
    plain = _USER_INFO.sub(r"\1", text)
    shown = redact_text(plain)
    return _USER_INFO.sub(r"\1***@", text) if shown == plain else shown


class Value(str):
    """The text of one key, with its position in the file.

    A `str`, so that it can be used as one. Its `repr` hides secrets; its text does not.

    Attributes
    ----------
    file
        Path of the configuration file; ``None`` for a value that was passed as an argument.
    line
        Line in `file`, from 1; 0 for an argument.
    section, key
        The key, and the section in which it was found, which can be a fallback of the requested one.
    trusted
        Whether the user has vouched for the value: it is an argument, or from a file that the user named or trusts.
    """

    __slots__ = ("_lines", "file", "key", "section", "trusted")

    file: Path | None
    section: str
    key: str
    trusted: bool
    _lines: tuple[int, ...]

    def __new__(
        cls,
        text: str,
        *,
        file: Path | None = None,
        lines: tuple[int, ...] = (0,),
        section: str = "",
        key: str = "",
        trusted: bool = True,
    ) -> Value:
        """Make the text `text`; `lines` are the line numbers of its lines."""
        self = super().__new__(cls, text)
        self.file, self.section, self.key, self._lines, self.trusted = file, section, key, lines, trusted
        return self

    @property
    def line(self) -> int:
        """Number of the line where the value begins."""
        return self._lines[0]

    @property
    def text(self) -> str:
        """The value as a plain `str`."""
        return str.__str__(self)

    @property
    def where(self) -> str:
        """The position of the value, as shown in errors."""
        if self.file is None:
            return f"argument {self.key!r}" if not self.section else f"[{self.section}] {self.key}"
        return f"{shown_path(self.file)}, line {self.line}, [{self.section}] {self.key}"

    def __repr__(self) -> str:
        return repr(self.shown)

    def __reduce__(self) -> tuple[Callable[..., Value], tuple[object, ...]]:
        return _restore, (self.text, self.file, self._lines, self.section, self.key, self.trusted)

    @property
    def shown(self) -> str:
        """The text for display: ``***`` for a secret."""
        return "***" if is_secret(self.key) else without_user_info(self.text)

    def error(self, message: str) -> ConfigurationError:
        """Return an error with `message` and the value's position; the caller raises it."""
        return ConfigurationError(f"{self.where}: {message}")

    def parts(self, separator: str | None = ",") -> list[Value]:
        """Return the non-empty parts of a list: one per line, and separated by `separator` if it is not ``None``."""
        return [
            Value(
                part.strip(),
                file=self.file,
                lines=(line,),
                section=self.section,
                key=self.key,
                trusted=self.trusted,
            )
            for text, line in zip(str.split(self, "\n"), self._lines, strict=True)
            for part in (_split(text, separator) if separator else [text])
            if part.strip()
        ]


def _split(text: str, separator: str) -> list[str]:
    """Split `text` at the separators that are not in parentheses."""
    parts = [""]
    depth = 0
    for character in str(text):
        depth += (character == "(") - (character == ")" and depth > 0)
        if character == separator and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def shown_path(path: Path) -> str:
    """Return a path for messages, with control characters escaped: names of directories could otherwise affect a
    terminal.
    """
    text = str(path)
    return text if text.isprintable() else repr(text)


def _restore(text: str, file: Path | None, lines: tuple[int, ...], section: str, key: str, trusted: bool) -> Value:
    return Value(text, file=file, lines=lines, section=section, key=key, trusted=trusted)


def parse(text: str, file: Path, kinds: Collection[str], *, trusted: bool = True) -> dict[str, dict[str, Value]]:
    """Parse INI text.

    Parameters
    ----------
    text
        Content of the file.
    file
        Path of the file, for messages.
    kinds
        Permitted section names, or first parts of names before the first dot.
    trusted
        Stored as `Value.trusted` of all values.

    Returns
    -------
    dict
        Section names to keys to values, in the order of the file.

    Raises
    ------
    ConfigurationError
        A line is neither section, key nor comment, or a section or key is repeated. The message names file, line,
        section and, if known, key. It contains no part of the line that could be a secret.
    """
    shown = shown_path(file)
    sections: dict[str, dict[str, Value]] = {}
    first_line: dict[str, int] = {}
    section = key = ""
    indent = 0
    lines: list[tuple[int, str]] = []

    def finish() -> None:
        if key:
            numbers, texts = zip(*lines, strict=True)
            sections[section][key] = Value(
                "\n".join(texts), file=file, lines=numbers, section=section, key=key, trusted=trusted
            )

    for number, raw in enumerate(text.split("\n"), start=1):
        line = _COMMENT.sub("", raw).rstrip()
        content = line.lstrip()
        if not content or content.startswith("#"):
            continue
        depth = len(line) - len(content)
        place = f"{shown}, line {number}" + (f", [{section}]" if section else "")
        if key and depth > indent:
            lines.append((number, content))
            continue
        finish()
        key = ""
        if content.startswith("["):
            section = _section_name(content, f"{shown}, line {number}", kinds)
            if section in sections:
                raise ConfigurationError(
                    f"{shown}, line {number}, [{section}]: the section is already there, at line {first_line[section]}"
                )
            sections[section] = {}
            first_line[section] = number
            continue
        name, equals, value = content.partition("=")
        name = name.rstrip()
        if not equals:
            raise ConfigurationError(f"{place}: expected '[section]' or 'key = value', not {_shown_line(content)!r}")
        if not section:
            raise ConfigurationError(f"{place}: key {name!r} is before the first '[section]'")
        if not _KEY.fullmatch(name):
            raise ConfigurationError(f"{place}: {name!r} is not a key: expected letters, digits, '_', '-' and '.'")
        if name in sections[section]:
            earlier = sections[section][name].line
            raise ConfigurationError(f"{place} {name}: the key is already there, at line {earlier}")
        key, indent, lines = name, depth, [(number, value.strip())]
    finish()
    return sections


def _section_name(content: str, place: str, kinds: Collection[str]) -> str:
    match = _SECTION.fullmatch(content)
    if match is None or not _SECTION_NAME.fullmatch(match[1]):
        raise ConfigurationError(f"{place}: {content!r} is not a section: expected '[name]' or '[name.subname]'")
    name = match[1]
    kind = name.partition(".")[0]
    if kind not in kinds:
        raise ConfigurationError(f"{place}, [{name}]: unknown section{did_you_mean(kind, kinds)}")
    return name


def _shown_line(content: str) -> str:
    """Return the part of an invalid line that cannot be a secret: its first word, if that is a name."""
    word = content.split()[0]
    rest = " ..." if word != content else ""
    return (word if _SHOWABLE.fullmatch(word) else "...") + rest
