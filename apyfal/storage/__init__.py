"""Data wherever it is, named by one string: ``scheme://path``.

Everything here takes a storage URL as a plain `str`, a `Path`, an `os.PathLike`, and (where it makes
sense) an open file.

=====================================  =================================================================================
`open`                                 a file object, as the builtin's
`load`, `save`                         a whole file or object as an array in pinned memory, and back
`copy`, `move`                         from anywhere to anywhere, whole or not at all
`sync`                                 a directory made like another, copying what differs
`exists`, `stat`, `listdir`,           as in `os`, `os.path` and `glob`
`glob`, `walk`, `remove`, `makedirs`,
`rmdir`
`isfile`, `isdir`, `getsize`,          as in `os.path`
`getmtime`
`read_bytes`, `read_text`,             a whole file or object as bytes or text, as by `pathlib.Path`
`write_bytes`, `write_text`
`sign`                                 an address by which others read or write an object for some time
`Path`                                 a URL as an object, with the methods of `pathlib.Path`
`rename`, `scandir`, `touch`,          as in `os`, `pathlib` and `shutil`
`rmtree`
`filesystem`                           all of it as a filesystem of fsspec
`load_many`, `save_many`,              the same on many objects at once: results and errors by item, in order
`stat_many`, `remove_many`
`aload`, `asave`, `aload_many`,        `load` and the like to await; cancelling the task cancels the transfer
`asave_many`
`zarr_store`                           a directory as a store of zarr 3
`mount`, `unmount`, `mounts`           stores and their names
`snapshot`                             the mounts of this process, to be restored in another
=====================================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apyfal.storage.aio.transfers import aload, aload_many, asave, asave_many
    from apyfal.storage.aio.zarr_store import zarr_store
    from apyfal.storage.api.arrays import load, save
    from apyfal.storage.api.contents import read_bytes, read_text, touch, write_bytes, write_text
    from apyfal.storage.api.copying import copy
    from apyfal.storage.api.globbing import glob
    from apyfal.storage.api.moving import move, rename
    from apyfal.storage.api.namespace import exists, listdir, makedirs, remove, rmdir, stat, walk
    from apyfal.storage.api.opening import open
    from apyfal.storage.api.queries import Entry, getmtime, getsize, isdir, isfile, scandir, sign
    from apyfal.storage.batch.many import load_many, remove_many, save_many, stat_many
    from apyfal.storage.fs.filesystem import filesystem
    from apyfal.storage.mounting.table import mount, mounts, snapshot, unmount
    from apyfal.storage.paths.path import Path
    from apyfal.storage.trees.removing import rmtree
    from apyfal.storage.trees.sync import SyncReport, sync

__all__ = [
    "Entry",
    "Path",
    "SyncReport",
    "aload",
    "aload_many",
    "asave",
    "asave_many",
    "copy",
    "exists",
    "filesystem",
    "getmtime",
    "getsize",
    "glob",
    "isdir",
    "isfile",
    "listdir",
    "load",
    "load_many",
    "makedirs",
    "mount",
    "mounts",
    "move",
    "open",
    "read_bytes",
    "read_text",
    "remove",
    "remove_many",
    "rename",
    "rmdir",
    "rmtree",
    "save",
    "save_many",
    "scandir",
    "sign",
    "snapshot",
    "stat",
    "stat_many",
    "sync",
    "touch",
    "unmount",
    "walk",
    "write_bytes",
    "write_text",
    "zarr_store",
]

# Where each is; none of these modules has the name of a function, which importing it would replace.
_LAZY = {
    "Entry": "api.queries",
    "Path": "paths.path",
    "SyncReport": "trees.sync",
    "aload": "aio.transfers",
    "aload_many": "aio.transfers",
    "asave": "aio.transfers",
    "asave_many": "aio.transfers",
    "copy": "api.copying",
    "exists": "api.namespace",
    "filesystem": "fs.filesystem",
    "getmtime": "api.queries",
    "getsize": "api.queries",
    "glob": "api.globbing",
    "isdir": "api.queries",
    "isfile": "api.queries",
    "listdir": "api.namespace",
    "load": "api.arrays",
    "load_many": "batch.many",
    "makedirs": "api.namespace",
    "mount": "mounting.table",
    "mounts": "mounting.table",
    "move": "api.moving",
    "open": "api.opening",
    "read_bytes": "api.contents",
    "read_text": "api.contents",
    "remove": "api.namespace",
    "remove_many": "batch.many",
    "rename": "api.moving",
    "rmdir": "api.namespace",
    "rmtree": "trees.removing",
    "save": "api.arrays",
    "save_many": "batch.many",
    "scandir": "api.queries",
    "sign": "api.queries",
    "snapshot": "mounting.table",
    "stat": "api.namespace",
    "stat_many": "batch.many",
    "sync": "trees.sync",
    "touch": "api.contents",
    "unmount": "mounting.table",
    "walk": "api.namespace",
    "write_bytes": "api.contents",
    "write_text": "api.contents",
    "zarr_store": "aio.zarr_store",
}


#: Functions for users of other libraries: the library of each, and what to install. Without it they can be named (by
#: ``from apyfal.storage import *``, by help systems), and say so when they are called.
_NEEDS = {"filesystem": ("fsspec", "apyfal[fsspec]"), "zarr_store": ("zarr", "zarr>=3")}


def _refused(name: str, library: str, requirement: str) -> Callable[..., Any]:
    def refuse(*arguments: object, **keywords: object) -> Any:
        """Raise `ImportError`."""
        raise ImportError(f"apyfal.storage.{name} needs {library}: pip install '{requirement}'", name=library)

    return refuse


if not TYPE_CHECKING:  # a checker would take every misspelt name for Any

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = import_module(f"{__name__}.{_LAZY[name]}")
        except ModuleNotFoundError as error:
            library, requirement = _NEEDS.get(name, ("", ""))
            if (error.name or "").partition(".")[0] != library:
                raise
            return _refused(name, library, requirement)  # not kept: it may be installed meanwhile
        value = getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
