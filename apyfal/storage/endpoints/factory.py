"""Where data comes from and goes to: anything with a URL, a path, or that is an open file.

A `Source` fills memory that the caller owns; a `Sink` takes it. Neither keeps a reference to that memory once a call
has returned.
"""

from __future__ import annotations

from collections.abc import Callable

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.endpoints.sinks import AppendingSink, FileObjectSink, LocalSink, ObjectSink, Sink
from apyfal.storage.endpoints.sources import FileObjectSource, LocalSource, ObjectSource, Source
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting import table
from apyfal.storage.mounting.table import MountedPath
from apyfal.storage.url import Location, is_file_object, parse

__all__ = ["Sink", "Source", "appending_sink_at", "object_source", "open_sink", "open_source", "sink_at", "source_at"]


def open_source(source: object) -> Source:
    """Open anything that can be read.

    Parameters
    ----------
    source
        A storage URL, a path, or an open binary file, which is read from its current position and stays the caller's.

    Raises
    ------
    InvalidURL, ObjectNotFound, AccessDenied, IsADirectory, StorageError
        When it cannot be read.
    ParameterError
        When it is nothing that can be read.
    """
    if is_file_object(source):
        return FileObjectSource(source)
    return source_at(parse(source))


def source_at(location: Location) -> Source:
    """Open a parsed location for reading; see `open_source`."""
    if location.is_local:
        return LocalSource(location.path)
    return object_source(location)


def object_source(location: Location, version: str | None = None) -> ObjectSource:
    """Open an object of a store for reading; with `version` that one, else the current one."""
    target = table.resolve(location)
    try:
        target.require_object("read")
        return ObjectSource(target, version)
    except BaseException:
        target.release()
        raise


def open_sink(destination: object, size: int | None = None, *, metadata: ObjectMetadata | None = None) -> Sink:
    """Open anything that can be written, to be replaced as a whole.

    Parameters
    ----------
    destination
        A storage URL, a path, or an open binary file, which is written from its current position and stays the
        caller's.
    size
        How many bytes will come, if known.
    metadata
        Content type and the like of an object in a store.

    Raises
    ------
    InvalidURL, ObjectNotFound, AccessDenied, IsADirectory, StorageError
        When it cannot be written.
    ParameterError
        When it is nothing that can be written.
    """
    if is_file_object(destination):
        return FileObjectSink(destination)
    return sink_at(parse(destination), size, metadata=metadata)


def sink_at(
    location: Location,
    size: int | None = None,
    *,
    exclusive: bool = False,
    old: ObjectInfo | None = None,
    metadata: ObjectMetadata | None = None,
) -> Sink:
    """Open a parsed location for writing; see `open_sink`.

    With `exclusive` it must not exist yet, with `old` (in a store) it must still be that version, whose metadata it
    keeps but for what `metadata` states.

    Raises
    ------
    UnsupportedByStore
        `metadata` states what is not kept there; a local file keeps none of it.
    """
    if location.is_local:
        if metadata is not None and metadata.stated:
            raise UnsupportedByStore(f"cannot write {str(location)!r}: a local file keeps no metadata")
        return LocalSink(location.path, size, exclusive)
    return _object_sink(location, lambda target: ObjectSink(target, size, exclusive, old, metadata))


def appending_sink_at(location: Location, old: ObjectInfo, metadata: ObjectMetadata | None = None) -> Sink:
    """Open a parsed location in a store to write behind the end of this version of an object."""
    return _object_sink(location, lambda target: AppendingSink(target, old, metadata))


def _object_sink(location: Location, make: Callable[[MountedPath], Sink]) -> Sink:
    target = table.resolve(location)
    try:
        target.handler.require_writable(target.path)
        target.require_object("write")
        return make(target)
    except BaseException:
        target.release()
        raise
