"""What a storage URL means, as text: which scheme, and which path in its store.

Rules
-----
- A text without ``scheme://`` is a local path, taken as it is; so is every `os.PathLike`.
- Schemes are case-insensitive. ``file://`` takes an absolute path, with an empty or ``localhost`` authority.
- Everything after ``scheme://`` is the path, verbatim: ``%``, ``?``, ``#``, ``//``, blanks and a trailing ``/`` are
  part of an object's name. Only ``http`` and ``https`` URLs are read as the web reads them (percent-encoding, query).
- Spellings that look like a URL but are not one (``host:/x``, ``mount:/x``, ``" s3://b/k"``, ``Path("s3://b/k")``, NUL)
  are refused rather than taken for a local file with a strange name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from apyfal.exceptions import InvalidURL, ParameterError
from apyfal.log import redact, redact_text
from apyfal.storage.providers import BUILT_IN, HOST_SCHEME, canonical

__all__ = ["Location", "StoragePath", "ask_mounts", "is_file_object", "is_mounted", "parse", "redact"]

# RFC 3986 section 3.1, and "_", which mount names may hold
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://", re.ASCII)
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(?!//)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WEB = ("http", "https")


def is_mounted(name: str) -> bool:
    """Whether `name` is that of a mount; `apyfal.storage.mounting.table` says so once it is loaded."""
    return _is_mounted is not None and _is_mounted(name)


def ask_mounts(function: Callable[[str], bool]) -> None:
    """Let `function` answer `is_mounted`."""
    global _is_mounted
    _is_mounted = function


_is_mounted: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """A parsed URL.

    Attributes
    ----------
    scheme
        ``file``, ``http``, a provider's own name or a mount's name, in lower case; a provider's alias is replaced.
    path
        The path inside the store (``bucket/key``), or a local path for ``file``.
    """

    scheme: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether this is a file of this machine."""
        return self.scheme == "file"

    def __str__(self) -> str:
        return self.path if self.is_local else redact(f"{self.scheme}://{self.path}")

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    @property
    def shown_path(self) -> str:
        """The path without what may be secret in it, for the attributes of errors."""
        return str(self).removeprefix(f"{self.scheme}://")

    @property
    def url(self) -> str:
        """The URL as it can be parsed again; may hold a signature or password, unlike ``str()``."""
        return self.path if self.is_local else f"{self.scheme}://{self.path}"


class StoragePath:
    """A location as an object: what `parse` takes as it is. `apyfal.storage.Path` has the methods.

    It counts as an `os.PathLike`, so that it is accepted where a path is.
    """

    __slots__ = ("_location",)

    def __init__(self, location: Location) -> None:
        self._location = location

    @property
    def location(self) -> Location:
        """Where it is."""
        return self._location

    def __fspath__(self) -> str:
        """Return the path of a local file.

        Raises
        ------
        ParameterError
            It is in a store: whoever asks would take its URL for the name of a local file.
        """
        if not self._location.is_local:
            raise ParameterError(
                f"{str(self._location)!r} is not a local file; expected .open() or apyfal.storage.open, not open()"
            )
        return self._location.path


def parse(url: object) -> Location:
    """Read a storage URL or a path.

    Parameters
    ----------
    url
        A `str`, an `apyfal.storage.Path`, or another `os.PathLike` (always a local path).

    Returns
    -------
    Location
        Nothing has been looked up: the scheme need not be mounted.

    Raises
    ------
    InvalidURL
        For a text that is neither a path nor a URL.
    ParameterError
        For a value of another type.
    """
    if isinstance(url, str):
        return _parse_text(url)
    if isinstance(url, StoragePath):
        return url.location
    if isinstance(url, os.PathLike):
        path: str | bytes = os.fspath(url)
        return _local(os.fsdecode(path))
    raise ParameterError(
        f"{_shown(url)} is not a storage location; expected a URL or path as str, an os.PathLike or an open binary file"
    )


def is_file_object(value: object) -> bool:
    """Whether `value` is an open file (anything with ``read`` or ``write``) rather than the name of one."""
    return not isinstance(value, str | os.PathLike) and (
        callable(getattr(value, "read", None)) or callable(getattr(value, "write", None))
    )


def _parse_text(text: str) -> Location:
    match = _SCHEME.match(text)
    if match is None:
        return _local(text)
    scheme = canonical(match[1].lower())
    path = text[match.end() :]
    if "\0" in path:
        raise InvalidURL(f"{redact(text)!r} holds a NUL character")
    if scheme != "file" and _SURROGATE.search(path):
        raise InvalidURL(
            f"{redact(text)!r} holds a lone surrogate, which stands for a byte of a file name that is not UTF-8; "
            "expected UTF-8, as all names of stores are"
        )
    if scheme == "file":
        path = _absolute(path, text)
    elif scheme in _WEB and _CONTROL.search(path):
        raise InvalidURL(f"{redact(text)!r} holds a control character, which no web address may")
    elif not path.strip("/"):
        return Location(scheme, "")
    return Location(scheme, path)


def _absolute(path: str, text: str) -> str:
    authority, slash, rest = path.partition("/")
    if not slash or authority.lower() not in ("", "localhost"):
        shown = redact(text)
        rest = shown[len("file://") :].lstrip("/")
        raise InvalidURL(f"{shown!r} names no absolute path of this machine; expected three slashes, file:///{rest}")
    return slash + rest


def _local(text: str) -> Location:
    if not text:
        raise InvalidURL("an empty text is not a storage URL or path")
    if "\0" in text:
        raise InvalidURL(f"{redact(text)!r} holds a NUL character")
    before, separator, rest = text.partition("://")
    if separator and "/" not in before:
        shown = before + redact(f"http{separator}{rest}").removeprefix("http")
        raise InvalidURL(
            f"{shown!r} is not a URL: {before!r} is not a scheme (a letter, then letters, digits and '+._-'); "
            f"for a local file of this name write {'./' + shown!r}"
        )
    collapsed = _COLLAPSED.match(text)
    if collapsed and _names_a_store(collapsed[1].lower(), text[collapsed.end() : collapsed.end() + 1] == "/"):
        shown = redact(text)
        rest = shown[collapsed.end() :].lstrip("/")
        slashes = ":///" if collapsed[1].lower() == "file" else "://"
        raise InvalidURL(
            f"{shown!r} is not a URL: did you mean {collapsed[1].lower() + slashes + rest!r}? "
            "(URLs are given as str: a pathlib.Path folds their slashes; "
            f"a local file of this name is {'./' + shown!r})"
        )
    return Location("file", text)


def _names_a_store(scheme: str, slash: bool) -> bool:
    """Whether ``scheme:`` means a store: a provider's name does, and the name of a mount with a ``/`` behind it."""
    return canonical(scheme) in BUILT_IN or scheme == HOST_SCHEME or (slash and is_mounted(scheme))


def _shown(value: object) -> str:
    text = redact_text(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
