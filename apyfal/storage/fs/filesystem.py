"""apyfal's storage as a filesystem of fsspec, so that pandas, pyarrow, zarr, xarray, dask and the like use it.

A path is a storage URL behind ``apyfal://``: ``apyfal://s3://bucket/key``, ``apyfal://my_storage://key``,
``apyfal:///a/file``. As everywhere in fsspec, paths are named without a ``/`` at the end, so an object whose name ends
in one is out of reach. What is read or listed may have one; what is written, moved or removed is then a directory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from fsspec.asyn import get_loop
from fsspec.spec import AbstractFileSystem
from fsspec.transaction import Transaction

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.aio.awaiting import awaited
from apyfal.storage.aio.gathering import Gathered, OnResults
from apyfal.storage.batch.many import load_each, save_each, stat_each
from apyfal.storage.fs.contents import as_array
from apyfal.storage.fs.moving import Moves
from apyfal.storage.fs.names import described
from apyfal.storage.mounting import table
from apyfal.storage.url import Location, parse

__all__ = ["ApyfalFileSystem", "filesystem"]


def filesystem(*, asynchronous: bool = False) -> ApyfalFileSystem:
    """Return the fsspec filesystem of all storage URLs, for libraries that take such a filesystem.

    Parameters
    ----------
    asynchronous
        Whether the caller awaits its coroutines (``_cat_file`` and the like), as zarr does. The functions without a
        leading ``_`` work in both cases, and block.

    Returns
    -------
    ApyfalFileSystem
        A subclass of ``fsspec.asyn.AsyncFileSystem``. Its paths are storage URLs, with or without ``apyfal://``.
    """
    return ApyfalFileSystem(asynchronous=asynchronous)


class _NoTransaction(Transaction):  # type: ignore[misc]  # fsspec has no types
    """Refuses at once, before anything is written."""

    def start(self) -> None:
        raise UnsupportedByStore(
            "no transaction: files cannot be written together; expected writes without one, each whole by itself"
        )


def _load(locations: Sequence[Location], on_results: OnResults) -> list[bytes | Exception]:
    def tell_bytes(found: Sequence[tuple[int, Any]]) -> None:
        on_results([(number, one if isinstance(one, Exception) else one.tobytes()) for number, one in found])

    return [one if isinstance(one, Exception) else one.tobytes() for one in load_each(locations, tell_bytes)]


_loads: Gathered[Location, bytes] = Gathered(_load, lends=False)
_saves: Gathered[tuple[Location, np.ndarray[Any, Any]], None] = Gathered(save_each, lends=True)
_stats: Gathered[Location, Any] = Gathered(stat_each, lends=False)


def _in_thread(name: str) -> Any:
    """Return a coroutine function that calls the function of this name in a thread."""

    async def method(self: Any, *args: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        return await awaited(partial(getattr(self, name), *args, **kwargs))

    method.__name__ = method.__qualname__ = f"_{name}"
    method.__doc__ = f"Do what `{name}` does, while the event loop goes on."
    return method


class ApyfalFileSystem(Moves):
    """All storage URLs as one filesystem. A pickle of it contains the mounts of this process, including their secrets.

    The functions without a leading ``_`` work in the calling thread. The coroutines, which have one, do not block the
    event loop. Small files that many tasks request at the same time are moved by one call.

    Parameters
    ----------
    asynchronous
        Whether the caller awaits the coroutines; fsspec and zarr read it.
    loop
        Unused; for fsspec.
    batch_size
        Unused; for fsspec. The limits of the stores apply.
    """

    transaction_type = _NoTransaction
    async_impl = True

    def __init__(
        self, *args: Any, asynchronous: bool = False, loop: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> None:
        AbstractFileSystem.__init__(self, *args, asynchronous=asynchronous, **kwargs)
        self.asynchronous = asynchronous
        self.batch_size = batch_size

    @property
    def loop(self) -> Any:
        """The event loop of fsspec, started on first use; ``None`` if the filesystem is asynchronous."""
        return None if self.asynchronous else get_loop()

    def start_transaction(self) -> Any:
        """Raise `UnsupportedByStore`: stores have no transactions of several objects."""
        return self.transaction_type(self).start()

    # -- coroutines ---------------------------------------------------------------------------------------------------
    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return the description of a path."""
        path = self._strip_protocol(path)
        if not path:
            return self.info(path)
        return described(path, await _stats(parse(path)))

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read a file, or a part of it."""
        if start is None and end is None:
            return await _loads(parse(self._strip_protocol(path)))
        return await awaited(partial(self.cat_file, path, start, end))

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file."""
        location = parse(self._of_file(path, "write"))
        if mode == "create" or location.is_local:  # the directory may have to be made
            await awaited(partial(self.pipe_file, path, value, mode=mode))
        else:
            await _saves((location, as_array(value)))

    async def _walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """Walk a tree from the top; see fsspec."""
        walk = self.walk(path, maxdepth=maxdepth, topdown=topdown, on_error=on_error, **kwargs)
        while (found := await awaited(partial(next, walk, None))) is not None:
            yield found

    _cat = _in_thread("cat")
    _cat_ranges = _in_thread("cat_ranges")
    _copy = _in_thread("copy")
    _cp_file = _in_thread("cp_file")
    _du = _in_thread("du")
    _exists = _in_thread("exists")
    _expand_path = _in_thread("expand_path")
    _find = _in_thread("find")
    _get = _in_thread("get")
    _get_file = _in_thread("get_file")
    _glob = _in_thread("glob")
    _isdir = _in_thread("isdir")
    _isfile = _in_thread("isfile")
    _ls = _in_thread("ls")
    _makedirs = _in_thread("makedirs")
    _mkdir = _in_thread("mkdir")
    _modified = _in_thread("modified")
    _mv = _in_thread("mv")
    _mv_file = _in_thread("mv")
    _pipe = _in_thread("pipe")
    _put = _in_thread("put")
    _put_file = _in_thread("put_file")
    _rm = _in_thread("rm")
    _rm_file = _in_thread("rm_file")
    _rmdir = _in_thread("rmdir")
    _size = _in_thread("size")
    _sizes = _in_thread("sizes")
    _touch = _in_thread("touch")

    def __reduce__(self) -> Any:
        return _restored, (table.snapshot(), super().__reduce__())


def _restored(snapshot: table.Snapshot, made: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    snapshot.restore()
    function, arguments = made
    return function(*arguments)
