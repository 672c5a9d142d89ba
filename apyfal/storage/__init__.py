"""Data wherever it is, named by one string: ``scheme://path``.

Everything here takes a storage URL as a plain `str`, an `os.PathLike`, and (where it makes sense) an open file.

=====================================  =================================================================================
`open`                                 a file object, as the builtin's
`load`, `save`                         a whole file or object as an array in pinned memory, and back
`copy`                                 from anywhere to anywhere, whole or not at all
`exists`, `stat`, `listdir`,           as in `os`, `os.path` and `glob`
`glob`, `walk`, `remove`, `makedirs`,
`rmdir`
`filesystem`                           all of it as a filesystem of fsspec
`load_many`, `save_many`,              the same on many objects at once: results and errors by item, in order
`stat_many`, `remove_many`
`mount`, `unmount`, `mounts`           stores and their names
`snapshot`                             the mounts of this process, to be restored in another
=====================================  =================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apyfal.storage.api.arrays import load, save
    from apyfal.storage.api.copying import copy
    from apyfal.storage.api.fsspec_adapter import filesystem
    from apyfal.storage.api.globbing import glob
    from apyfal.storage.api.namespace import exists, listdir, makedirs, remove, rmdir, stat, walk
    from apyfal.storage.api.opening import open
    from apyfal.storage.batch.many import load_many, remove_many, save_many, stat_many
    from apyfal.storage.mounting.table import mount, mounts, snapshot, unmount

__all__ = [
    "copy",
    "exists",
    "filesystem",
    "glob",
    "listdir",
    "load",
    "load_many",
    "makedirs",
    "mount",
    "mounts",
    "open",
    "remove",
    "remove_many",
    "rmdir",
    "save",
    "save_many",
    "snapshot",
    "stat",
    "stat_many",
    "unmount",
    "walk",
]

# Where each is; none of these modules has the name of a function, which importing it would replace.
_LAZY = {
    "copy": "api.copying",
    "exists": "api.namespace",
    "filesystem": "api.fsspec_adapter",
    "glob": "api.globbing",
    "listdir": "api.namespace",
    "load": "api.arrays",
    "load_many": "batch.many",
    "makedirs": "api.namespace",
    "mount": "mounting.table",
    "mounts": "mounting.table",
    "open": "api.opening",
    "remove": "api.namespace",
    "remove_many": "batch.many",
    "rmdir": "api.namespace",
    "save": "api.arrays",
    "save_many": "batch.many",
    "snapshot": "mounting.table",
    "stat": "api.namespace",
    "stat_many": "batch.many",
    "unmount": "mounting.table",
    "walk": "api.namespace",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
