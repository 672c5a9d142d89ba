"""Whole files and objects as `bytes` and `str`, and empty ones, as by the methods of `pathlib.Path`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from apyfal.exceptions import ObjectExists, ParameterError, UnsupportedByStore
from apyfal.storage.api.opening import open as open_file
from apyfal.storage.local import atomic
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.url import parse

__all__ = ["read_bytes", "read_text", "touch", "write_bytes", "write_text"]


def read_bytes(url: object, *, version: str | None = None) -> bytes:
    """Read a whole file or object; `load` does it without a copy. Errors are those of `open`."""
    with open_file(url, "rb", version=version) as file:
        return bytes(file.read())


def read_text(
    url: object,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    version: str | None = None,
) -> str:
    """Read a whole file or object as text; arguments and errors are those of `open`."""
    with open_file(url, "r", encoding=encoding, errors=errors, newline=newline, version=version) as file:
        return str(file.read())


def touch(url: object, exist_ok: bool = True) -> None:
    """Make an empty file or object, or give a local file that exists the time of now.

    Raises
    ------
    ObjectExists
        It exists, without `exist_ok`.
    UnsupportedByStore
        It exists in a store: no store sets the time of an object without writing it again.
    AccessDenied, IsADirectory, StorageError
        As by `open`.
    """
    location = parse(url)
    try:
        open_file(url, "xb").close()
    except ObjectExists:
        if not exist_ok:
            raise
        if not location.is_local:
            raise UnsupportedByStore(
                f"cannot set the time of {str(location)!r}: a store has only that of writing, and it exists already"
            ) from None
        with atomic.translating("set the time of", location.path):
            os.utime(location.path)


def write_bytes(
    url: object,
    data: bytes | bytearray | memoryview,
    *,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
) -> int:
    """Write a whole file or object, or leave it as it was, and return how many bytes that is.

    Raises
    ------
    ParameterError
        For data that is not contiguous bytes; nothing is opened then.
    AccessDenied, IsADirectory, StorageError
        As by `open`.
    """
    try:
        view = memoryview(data)
        # a view with a zero among several dimensions cannot be cast
        view = view.cast("B") if view.nbytes else memoryview(b"")
    except (TypeError, ValueError, BufferError):
        raise ParameterError(
            f"cannot write a {type(data).__name__} as bytes; expected contiguous bytes, or write_text for a str"
        ) from None
    with open_file(url, "wb", metadata=metadata) as file:
        file.write(view)
    return len(view)


def write_text(
    url: object,
    data: str,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
) -> int:
    """Write text as a whole file or object, or leave it as it was, and return how many characters that is.

    Raises
    ------
    ParameterError
        For data that is not a str; nothing is opened then.
    UnicodeEncodeError
        For text that `encoding` does not have; the destination is as it was.
    AccessDenied, IsADirectory, StorageError
        As by `open`.
    """
    if not isinstance(data, str):
        raise ParameterError(f"cannot write a {type(data).__name__} as text; expected a str, or write_bytes for bytes")
    with open_file(url, "w", encoding=encoding, errors=errors, newline=newline, metadata=metadata) as file:
        file.write(data)
    return len(data)
