"""`open`: file objects of the standard library's kinds over any storage URL."""

from __future__ import annotations

import codecs
import io
import os
import warnings
from collections.abc import Mapping
from typing import IO, Any

from apyfal.exceptions import ObjectExists, ObjectNotFound, ParameterError, UnsupportedByStore
from apyfal.storage.api.namespace import exists_at
from apyfal.storage.endpoints.factory import appending_sink_at, object_source, sink_at
from apyfal.storage.fileobj.atomic_files import AtomicRandom, AtomicTextWriter, AtomicWriter
from apyfal.storage.fileobj.raw_files import AtomicFile, ObjectReader, ObjectWriter
from apyfal.storage.fileobj.sized import SizedReader
from apyfal.storage.fileobj.spooled import SpooledFile
from apyfal.storage.local import atomic
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.url import Location, parse

__all__ = ["open"]

#: Bytes that a buffered file reads from a store, or collects for it, at once; the transfer has its own read-ahead.
_STORE_BUFFER = 256 << 10
#: The same for a local file written anew, where every flush is a Python call.
_LOCAL_BUFFER = 128 << 10


def open(  # the builtin's name is the contract
    url: object,
    mode: str = "rb",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    version: str | None = None,
) -> IO[Any]:
    """Open a file, wherever it is, as the builtin ``open`` does.

    Parameters
    ----------
    url
        A storage URL or path.
    mode
        ``r``, ``w``, ``x`` or ``a``, with ``b`` or ``t`` (text, the default where neither is given) and ``+``. In a
        store every mode with ``+`` keeps the object in a temporary local file until it is closed. So does ``a`` where
        the store cannot itself copy the old object into the new one (S3 can), and where text begins with a mark.
    buffering
        0: none (binary mode only); 1: by line (text mode only); more: bytes of the buffer.
    encoding, errors, newline
        As for the builtin, in text mode.
    metadata
        Content type and the like of an object that is written: an `apyfal.storage.metadata.ObjectMetadata`, or a
        mapping of its fields. With ``a`` and ``r+`` the object keeps what is not stated.
    version
        Of an object that is read: the store's own id of it, as `stat` tells it; by default the current one.

    Returns
    -------
    file object
        `io.TextIOWrapper`, `io.BufferedReader`, `io.BufferedWriter`, `io.BufferedRandom` or a raw file, or a subclass.
        It cannot be pickled.

    Raises
    ------
    InvalidURL, ObjectNotFound, ObjectExists, AccessDenied, IsADirectory, StorageError
        When it cannot be opened.
    ParameterError
        For a wrong mode, or arguments that do not go together.
    UnsupportedByStore
        For a mode that the store cannot do.

    Notes
    -----
    With ``w`` and ``x``, nothing is visible before ``close`` returns, and then everything. When the ``with`` block
    raises, a write has failed, or the file object is dropped without being closed (a `ResourceWarning`), the
    destination stays as it was. In a store this is so with ``a`` and ``r+`` as well, and closing such a file is an
    `ObjectChanged` error where somebody else has written the object since it was opened (looked at just before the end,
    so that two that close in the same moment may both succeed). A local file is then changed itself, as by the builtin.
    """
    wanted = _Mode(mode)
    if wanted.binary:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ParameterError(f"binary mode takes no {name} argument")
        if buffering == 1:
            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
                RuntimeWarning,
                stacklevel=2,
            )
            buffering = -1
    elif buffering == 0:
        raise ParameterError("can't have unbuffered text I/O")
    if buffering < -1:
        raise ParameterError(f"invalid buffering size {buffering}")
    location = parse(url)
    stated = ObjectMetadata.of(metadata)
    if stated is not None and not wanted.writing:
        raise ParameterError(f"mode {mode!r} only reads, and takes no metadata")
    if version is not None and wanted.writing:
        raise ParameterError(f"mode {mode!r} writes, and takes no version")
    if location.is_local and (stated is not None or version is not None):
        what = "metadata" if stated is not None else "versions"
        raise UnsupportedByStore(f"cannot open {str(location)!r}: a local file keeps no {what}")
    raw = _raw(location, wanted, encoding, stated, version)
    try:
        return _wrapped(raw, wanted, buffering, encoding, errors, newline)
    except BaseException:
        if isinstance(raw, AtomicFile | ObjectWriter | SpooledFile):
            raw.abort()
        raw.close()
        raise


class _Mode:
    """A mode string, taken apart."""

    def __init__(self, mode: str) -> None:
        if not isinstance(mode, str):
            raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
        letters = set(mode)
        action = letters & set("rwxa")
        if len(letters) != len(mode) or letters - set("rwxabt+") or len(action) != 1 or {"b", "t"} <= letters:
            raise ParameterError(
                f"invalid mode: {mode!r}; expected one of 'r', 'w', 'x', 'a', perhaps with '+', and with 'b' or 't'"
            )
        self.text = mode
        self.action = action.pop()
        self.updating = "+" in letters
        self.binary = "b" in letters
        self.raw = self.action + "b" + ("+" if self.updating else "")
        self.reading = self.action == "r" or self.updating
        self.writing = self.action != "r" or self.updating


def _raw(
    location: Location, mode: _Mode, encoding: str | None, metadata: ObjectMetadata | None, version: str | None
) -> io.RawIOBase:
    if location.is_local:
        if mode.action in "wx":
            return AtomicFile(location.path, mode.raw)
        opener = _open_to_update if mode.writing else _open_to_read
        with atomic.translating("open", location.path):
            return io.FileIO(location.path, mode.raw, opener=opener)
    if mode.action == "a" or (mode.action == "r" and mode.updating):
        return _raw_to_change(location, mode, mode.binary or not _begins_with_mark(encoding), metadata)
    if mode.action == "r":
        return ObjectReader(object_source(location, version), str(location))
    if mode.action == "x" and exists_at(location):
        raise ObjectExists(f"{location} exists already", path=location.shown_path)
    sink = sink_at(location, exclusive=mode.action == "x", metadata=metadata)
    return (SpooledFile if mode.updating else ObjectWriter)(sink, str(location), mode.raw)


def _raw_to_change(location: Location, mode: _Mode, plain: bool, metadata: ObjectMetadata | None) -> io.RawIOBase:
    name = str(location)
    try:
        source = object_source(location)
    except ObjectNotFound:
        if mode.action == "r":
            raise
        return (SpooledFile if mode.updating else ObjectWriter)(sink_at(location, metadata=metadata), name, mode.raw)
    with source:
        if mode.action == "a" and not mode.updating and plain and source.appendable:
            return ObjectWriter(appending_sink_at(location, source.info, metadata), name, mode.raw, source.size or 0)
        return SpooledFile(sink_at(location, old=source.info, metadata=metadata), name, mode.raw, source)


def _begins_with_mark(encoding: str | None) -> bool:
    """Whether text begins with a byte order mark, which must not be written in the middle of a file again."""
    return encoding is not None and codecs.lookup(encoding).name in ("utf-16", "utf-32", "utf-8-sig")


def _open_to_read(path: str, flags: int) -> int:
    return atomic.open_to_read(path)


def _open_to_update(path: str, flags: int) -> int:
    # a pipe that nobody reads is an error instead of a wait
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


def _wrapped(
    raw: io.RawIOBase, mode: _Mode, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    by_line = buffering == 1 or (buffering < 0 and not mode.binary and raw.isatty())
    if buffering == 0:
        return raw  # type: ignore[return-value]  # IO is what typeshed calls it
    whole = isinstance(raw, AtomicFile | ObjectWriter | SpooledFile)
    size = buffering if buffering > 1 else _buffer_size(raw)
    buffered: io.BufferedReader | io.BufferedWriter | io.BufferedRandom
    if mode.updating:
        buffered = (AtomicRandom if whole else io.BufferedRandom)(raw, size)
    elif mode.writing:
        buffered = (AtomicWriter if whole else io.BufferedWriter)(raw, size)
    else:
        buffered = SizedReader(raw, size)
    if mode.binary:
        return buffered
    text = (AtomicTextWriter if whole else io.TextIOWrapper)(buffered, encoding, errors, newline, by_line)
    if whole and not raw.seekable() and codecs.lookup(text.encoding).name in ("utf-16", "utf-32"):
        text.write("\N{BYTE ORDER MARK}")  # TextIOWrapper leaves it out where it cannot tell that this is the beginning
    text.mode = mode.text  # type: ignore[misc]  # typeshed has it read-only; the builtin sets it in the same way
    return text


def _buffer_size(raw: io.RawIOBase) -> int:
    if isinstance(raw, AtomicFile):
        return _LOCAL_BUFFER
    return io.DEFAULT_BUFFER_SIZE if isinstance(raw, io.FileIO) else _STORE_BUFFER
