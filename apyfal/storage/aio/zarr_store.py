"""A store of zarr 3 over any storage URL: chunks are received at their final address, in pinned memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import numpy as np
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype

from apyfal.exceptions import ParameterError
from apyfal.memory import empty
from apyfal.storage.aio.awaiting import awaited
from apyfal.storage.aio.gathering import Gathered
from apyfal.storage.api import namespace, opening
from apyfal.storage.api.arrays import load, save
from apyfal.storage.api.queries import isfile
from apyfal.storage.batch.many import load_each, save_each
from apyfal.storage.endpoints.factory import open_source
from apyfal.storage.mounting import table
from apyfal.storage.url import Location, parse

__all__ = ["ZarrStore", "zarr_store"]

#: Errors that reading a key without a value raises.
_NO_VALUE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

# one call moves the chunks that zarr reads or writes at the same time
_loads: Gathered[Location, np.ndarray[Any, Any]] = Gathered(load_each, lends=False)
_saves: Gathered[tuple[Location, np.ndarray[Any, Any]], None] = Gathered(save_each, lends=True)


def zarr_store(url: object, *, read_only: bool = False) -> ZarrStore:
    """Return a store of zarr 3: ``zarr.open_array(zarr_store("s3://bucket/array.zarr"))``.

    Parameters
    ----------
    url
        A directory: storage URL or path. Its chunks and metadata are below it.
    read_only
        Refuse writes.

    Raises
    ------
    ImportError
        zarr 3 is not installed.
    InvalidURL, ParameterError
        `url` is none.
    """
    return ZarrStore(url, read_only=read_only)


class ZarrStore(Store):
    """Every key is one file or object below a URL, read and written as by `apyfal.storage.load` and `save`.

    Pickled, it takes the mounts of this process along, secrets included, as ``apyfal.storage.filesystem()`` does.

    Parameters
    ----------
    url, read_only
        As for `zarr_store`.

    Attributes
    ----------
    url
        The directory, without a ``/`` at its end.
    """

    def __init__(self, url: object, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        text = parse(url).url
        self.url = text if text.endswith("://") else text.rstrip("/") or "/"
        below = parse(self._at("x"))
        self._scheme, self._prefix = below.scheme, below.path[:-1]

    @property
    def supports_writes(self) -> bool:
        """Return that it can be written, unless it is opened otherwise."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """Return that keys can be removed."""
        return True

    @property
    def supports_listing(self) -> bool:
        """Return that keys can be listed."""
        return True

    def with_read_only(self, read_only: bool = False) -> ZarrStore:
        """Return a store of the same directory."""
        return ZarrStore(self.url, read_only=read_only)

    def __eq__(self, value: object) -> bool:
        return isinstance(value, ZarrStore) and (value.url, value.read_only) == (self.url, self.read_only)

    __hash__ = None  # type: ignore[assignment]  # as zarr's own stores: it can be changed from open to closed

    def __str__(self) -> str:
        return str(parse(self.url))

    def __repr__(self) -> str:
        return f"ZarrStore({str(self)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mounts": table.snapshot()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state.pop("mounts").restore()
        vars(self).update(state)

    def _at(self, key: str) -> str:
        if not key:
            return self.url
        if ".." in key.split("/"):
            raise ParameterError(f"key {key!r} leads out of the store; expected one without '..'")
        return self.url + key if self.url.endswith("/") else f"{self.url}/{key}"

    def _location(self, key: str) -> Location:
        """Return where a value is, as `parse` reads it; chunks have plain keys, which need no look at each part."""
        if key and key.isascii() and key.isprintable() and ".." not in key and self._scheme not in ("http", "https"):
            return Location(self._scheme, self._prefix + key)
        return parse(self._at(key))

    # -- values -------------------------------------------------------------------------------------------------------
    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the value of a key, or a part of it; ``None`` if there is none."""
        if not self._is_open:
            await self._ensure_open()
        if byte_range is not None:
            return await awaited(partial(self.get_sync, key, prototype=prototype, byte_range=byte_range))
        try:
            data = await _loads(self._location(key))
        except _NO_VALUE:
            return None
        return _buffer(data, prototype)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """Do what `get` does, in the calling thread."""
        if not isinstance(byte_range, RangeByteRequest | OffsetByteRequest | SuffixByteRequest | None):
            raise TypeError(f"Unexpected byte_range, got {byte_range}.")
        self._is_open = True
        try:
            data = _read(self._at(key), byte_range)
        except _NO_VALUE:
            return None
        return _buffer(data, prototype)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return parts of values, all at once."""
        return await asyncio.gather(*[self.get(key, prototype, byte_range) for key, byte_range in key_ranges])

    async def exists(self, key: str) -> bool:
        """Return whether a key has a value."""
        await self._ensure_open()
        return await awaited(partial(isfile, self._at(key)))

    async def getsize(self, key: str) -> int:
        """Return how many bytes the value of a key has."""
        size = (await awaited(partial(namespace.stat, self._at(key)))).size
        return 0 if size is None else size

    async def set(self, key: str, value: Any) -> None:
        """Store a value: whole, or not at all."""
        await self._ensure_open()
        url, data = self._written(key, value)
        location = parse(url)
        if location.is_local:  # the directory may have to be made
            await awaited(partial(self.set_sync, key, value))
        else:
            await _saves((location, data))

    def set_sync(self, key: str, value: Any) -> None:
        """Do what `set` does, in the calling thread."""
        url, data = self._written(key, value)
        _make_folder(url)
        save(url, data)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Store a value unless the key has one."""
        await self._ensure_open()
        await awaited(partial(_save_new, *self._written(key, value)))

    def _written(self, key: str, value: Any) -> tuple[str, np.ndarray[Any, Any]]:
        """Return where a value goes, and its bytes, checked."""
        self._check_writable()
        self._is_open = True
        if not hasattr(value, "as_numpy_array"):
            raise TypeError(
                f"ZarrStore.set(): `value` must be a Buffer instance. Got an instance of {type(value)} instead."
            )
        if not key:
            raise ParameterError("a value needs a key; expected one that is not empty")
        return self._at(key), np.ascontiguousarray(value.as_numpy_array())

    async def delete(self, key: str) -> None:
        """Remove a key; one that has no value is left as it is."""
        await self._ensure_open()
        await awaited(partial(self.delete_sync, key))

    def delete_sync(self, key: str) -> None:
        """Do what `delete` does, in the calling thread."""
        self._check_writable()
        self._is_open = True
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            namespace.remove(self._at(key))

    # -- keys ---------------------------------------------------------------------------------------------------------
    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        for key in await awaited(partial(_keys, self.url)):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield all keys that begin with a prefix."""
        folder = prefix.rpartition("/")[0]
        for key in await awaited(partial(_keys, self._at(folder))):
            whole = f"{folder}/{key}" if folder else key
            if whole.startswith(prefix):
                yield whole

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        for name in await awaited(partial(_names, self._at(prefix.rstrip("/")))):
            yield name


def _buffer(data: np.ndarray[Any, Any], prototype: Any) -> Any:
    kind = (prototype or default_buffer_prototype()).buffer
    array: Any = data  # zarr's array protocol has members that numpy's types do not declare
    found = cpu.Buffer.from_array_like(array)
    return found if kind is cpu.Buffer else kind.from_buffer(found)


def _read(url: str, part: Any) -> np.ndarray[Any, Any]:
    if part is None:
        return load(url)
    with open_source(url) as source:
        size = source.size
        if size is None or not source.seekable:
            return _part(np.frombuffer(opening.open(url).read(), np.uint8), part)
        first, last = _bounds(part, size)
        out = empty(last - first, np.uint8)
        done = 0
        while done < len(out):
            done += source.pread(out.data[done:], first + done)
        return out


def _part(whole: np.ndarray[Any, Any], part: Any) -> np.ndarray[Any, Any]:
    first, last = _bounds(part, len(whole))
    return whole[first:last]


def _bounds(part: Any, size: int) -> tuple[int, int]:
    if isinstance(part, RangeByteRequest):
        first, last = part.start, part.end
    elif isinstance(part, OffsetByteRequest):
        first, last = part.offset, size
    else:
        first, last = max(size - part.suffix, 0), size
    first = min(max(first, 0), size)
    return first, min(max(last, first), size)


def _make_folder(url: str) -> None:
    location = parse(url)
    if location.is_local:
        namespace.makedirs(location.path.rpartition("/")[0] or "/", exist_ok=True)


def _save_new(url: str, data: np.ndarray[Any, Any]) -> None:
    _make_folder(url)
    with contextlib.suppress(FileExistsError), opening.open(url, "xb") as file:
        file.write(data.data)


def _keys(url: str) -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        start = len(url) if url.endswith("/") else len(url) + 1
        for folder, _, names in namespace.walk(url):
            inside = str(folder)[start:]
            found += [f"{inside}/{name}" if inside else name for name in names]
    return found


def _names(url: str) -> list[str]:
    try:
        return namespace.listdir(url)
    except (FileNotFoundError, NotADirectoryError):
        return []
