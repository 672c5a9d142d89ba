"""apyfal's storage as a filesystem of fsspec, so that pandas, pyarrow, zarr, xarray, dask and the like use it.

A path is a storage URL behind ``apyfal://``: ``apyfal://s3://bucket/key``, ``apyfal://my_storage://key``,
``apyfal:///a/file``. As everywhere in fsspec, a ``/`` at the end of a path means nothing, so an object whose name ends
in one is out of reach.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime, timezone
from glob import has_magic
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from fsspec.transaction import Transaction

from apyfal.exceptions import IsADirectory, ParameterError, UnsupportedByStore
from apyfal.storage.api import copying, namespace, opening
from apyfal.storage.api.tree import has_links, names_below, require_removable
from apyfal.storage.endpoints.factory import open_sink, open_source
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting import table
from apyfal.storage.url import StoragePath, parse

__all__ = ["ApyfalFileSystem", "filesystem"]

_PROTOCOL = "apyfal://"


def filesystem() -> ApyfalFileSystem:
    """Return the filesystem of all storage URLs, for libraries that take one of fsspec's."""
    return ApyfalFileSystem()


class _NoTransaction(Transaction):  # type: ignore[misc]  # fsspec has no types
    """Refuses at once, before anything is written."""

    def start(self) -> None:
        raise UnsupportedByStore(
            "no transaction: files cannot be written together; expected writes without one, each whole by itself"
        )


class ApyfalFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Every storage URL as one filesystem. Pickled, it takes the mounts of this process along, secrets included."""

    protocol = "apyfal"
    transaction_type = _NoTransaction

    def start_transaction(self) -> Any:
        """Refuse: a store has no transaction of several objects."""
        return self.transaction_type(self).start()

    # -- paths --------------------------------------------------------------------------------------------------------
    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = path.location.url if isinstance(path, StoragePath) else os.fspath(path)
        text = text.removeprefix(_PROTOCOL)
        scheme, separator, rest = text.partition("://")
        if separator and scheme.lower() == "file":
            # one name for one file: a URL of a local file is its path
            text = parse(text).path
        elif separator and "/" not in scheme:
            return scheme + separator + rest.rstrip("/")
        elif ":" in text:
            parse(text)  # refuses a mount's name whose "//" became "/" when somebody joined paths
        return text.rstrip("/") or ("/" if text else "")

    def unstrip_protocol(self, name: str) -> str:
        """Put ``apyfal://`` before a path."""
        return _PROTOCOL + str(self._strip_protocol(name))

    @classmethod
    def _parent(cls, path: Any) -> Any:
        path = cls._strip_protocol(path)
        scheme, separator, rest = path.partition("://")
        if separator:
            return scheme + separator + rest.rpartition("/")[0]
        return os.path.dirname(path)

    # -- names --------------------------------------------------------------------------------------------------------
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory, or give a file itself; the mounts, for the empty path."""
        path = self._strip_protocol(path)
        if not path:
            found = [{"name": f"{name}://", "size": 0, "type": "directory"} for name in table.mounts()]
        else:
            location = parse(path)
            try:
                listed = namespace.entries(location)
            except NotADirectoryError:
                found = [self.info(path)]
            else:
                found = [_described(namespace.child(location, name).url, info) for name, info in listed]
        return found if detail else sorted(one["name"] for one in found)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Look a path up."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        return _described(path, namespace.stat(path))

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """List all that is below a path, each under its whole name: names with ``//`` in them, too."""
        path = self._strip_protocol(path)
        if maxdepth is not None and maxdepth < 1:
            raise ParameterError(f"maxdepth {maxdepth}: expected 1 or more")
        found: dict[str, dict[str, Any]] = {}
        if withdirs and path and self.isdir(path):
            found[path] = self.info(path)
        waiting = [(path, 1)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                listed = self.ls(folder, detail=True)
            except FileNotFoundError:
                continue
            for one in listed:
                name = str(one["name"])
                if one["type"] != "directory":
                    found.setdefault(name, one)  # an object wins over a directory of its name
                    found[name] = one
                elif withdirs:
                    found.setdefault(name, one)
                if one["type"] == "directory" and (maxdepth is None or depth < maxdepth) and not _is_link(name):
                    waiting.append((name, depth + 1))
        ordered = dict(sorted(found.items()))
        return ordered if detail else list(ordered)

    def size(self, path: str) -> int | None:
        """Return how many bytes a file has."""
        size: int | None = self.info(path)["size"]
        return size

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """Refuse: what signs requests here does not sign addresses."""
        raise UnsupportedByStore(
            f"cannot sign an address of {str(parse(self._strip_protocol(path)))!r}; expected the store's own library"
        )

    def modified(self, path: str) -> datetime:
        """When it was last written."""
        mtime = namespace.stat(self._strip_protocol(path)).mtime
        if mtime is None:
            raise UnsupportedByStore(f"{path!r}: this store does not say when it was written")
        return datetime.fromtimestamp(mtime, timezone.utc)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory or bucket; nothing inside a bucket."""
        location = parse(self._strip_protocol(path))
        if location.is_local and not create_parents:
            with atomic.translating("make the directory", location.path):
                os.mkdir(location.path)
        else:
            namespace.makedirs(location.url, exist_ok=False)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory or bucket with its parents."""
        namespace.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory or bucket; in a store, one that is only names or a mark must be empty, too."""
        namespace.rmdir(self._strip_protocol(path))

    def rm_file(self, path: str) -> None:
        """Remove a file or object."""
        namespace.remove(self._strip_protocol(path))

    _rm = rm_file

    def expand_path(
        self,
        path: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """List what a path or pattern names; a name that exists is no pattern, whatever it holds."""
        if _exists_with_magic(self, path):
            path = self._strip_protocol(path)
            below = self.find(path, maxdepth=maxdepth, withdirs=True) if recursive and self.isdir(path) else []
            return sorted({path, *below})
        if assume_literal:
            kwargs["assume_literal"] = True  # which older releases of fsspec do not know
        expanded: list[str] = super().expand_path(path, recursive=recursive, maxdepth=maxdepth, **kwargs)
        return expanded

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, and with `recursive` what is below directories and these; of a link, the link.

        Never a bucket, the root of a store or disk, a home, or what holds the working directory: `rmdir` is for those.
        """
        tops = self.expand_path(path, maxdepth=None if recursive else maxdepth)
        chosen = set(tops)
        if recursive:
            for one in tops:
                if _is_link(one) or (parse(one).is_local and not self.isdir(one)):
                    continue
                require_removable(parse(one))
                chosen.update(self.find(one, maxdepth=maxdepth, withdirs=True))
        # what is deepest first, and of one name the object before the directory
        for one in sorted(chosen, reverse=True):
            removed = False
            if _is_link(one) or not self.isdir(one):
                with contextlib.suppress(*([FileNotFoundError] if recursive else [])):
                    self.rm_file(one)
                    removed = True
            elif not recursive:
                raise IsADirectory(f"cannot remove {one!r}: it is a directory; expected recursive=True")
            if recursive and not (removed and parse(one).is_local) and maxdepth is None:
                # a directory that was only names went with what was in it
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self.rmdir(one)

    # fsspec reads a source with ``*``, ``?`` or ``[`` in it as a pattern; two lists are taken as they are
    def copy(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        on_error: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copy files, and with `recursive` what is below directories."""
        if _exists_with_magic(self, path1) or (recursive and _has_links(path1)):
            path1, path2 = _pairs(self, path1, path2, recursive, maxdepth)
        super().copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error=on_error, **kwargs)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy files to local paths, and with `recursive` what is below directories."""
        if isinstance(lpath, str) and (_exists_with_magic(self, rpath) or (recursive and _has_links(rpath))):
            rpath, lpath = _pairs(self, rpath, os.path.abspath(lpath), recursive, maxdepth)
        super().get(rpath, lpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **kwargs)

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy local files, and with `recursive` what is below directories."""
        if isinstance(rpath, str) and isinstance(lpath, (str, os.PathLike)):
            literal = has_magic(os.fspath(lpath)) and os.path.exists(lpath)
            if literal or (recursive and _has_links(lpath)):
                slash = "/" if os.fspath(lpath).endswith("/") else ""
                lpath, rpath = _pairs(self, os.path.abspath(lpath) + slash, rpath, recursive, maxdepth)
        super().put(lpath, rpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **kwargs)

    # -- content ------------------------------------------------------------------------------------------------------
    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file as `apyfal.storage.open` does; `block_size` is its buffer, and there is no cache to set up."""
        if compression is not None:
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        if not kwargs.pop("autocommit", True):
            self.start_transaction()  # refuses: nothing commits later
        text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
        path = self._strip_protocol(path)
        return opening.open(path, mode, block_size or -1, **text)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file for fsspec's own layers: one that is read by ranges, which they put their caches before."""
        path = self._strip_protocol(path)
        if mode == "rb" and (size := self.info(path)["size"]) is not None:
            size_of_block: Any = block_size if isinstance(block_size, int) and block_size > 0 else "default"
            return _RangedFile(self, path, mode, size_of_block, cache_options=cache_options, size=size)
        return opening.open(path, mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read a file, or a part of it; negative offsets count from its end."""
        with opening.open(self._strip_protocol(path)) as file:
            if start is None and end is None:
                return bytes(file.read())
            size = file.seek(0, os.SEEK_END)
            first, last, _ = slice(start, end).indices(size)
            file.seek(first)
            return bytes(file.read(max(0, last - first)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file; ``mode="create"`` fails where there is one."""
        path = self._strip_protocol(path)
        self._make_parents(path)
        if mode == "create":
            with opening.open(path, "xb") as file:
                file.write(value)
            return
        with open_sink(path, len(value)) as sink:
            sink.write(memoryview(value).cast("B"))

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file, with its directories; without `truncate`, only where there is none."""
        if truncate or not self.exists(path):
            self._make_parents(path)
            self.pipe_file(path, b"")
            return
        location = parse(self._strip_protocol(path))
        if not location.is_local:
            raise UnsupportedByStore(f"{path!r}: a store cannot change an object's time")
        os.utime(location.path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy one file, or make the directory that `path1` is."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        self._make_parents(path2)
        copying.copy(path1, path2)

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy one file to a local path or open file."""
        target = outfile if outfile is not None else lpath
        rpath = self._strip_protocol(rpath)
        if not hasattr(target, "write"):
            if self.isdir(rpath):
                os.makedirs(target, exist_ok=True)
                return
            os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
            target = os.path.abspath(target)
        copying.copy(rpath, target, progress=_reporting(callback))

    def put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """Copy one local file, or make the directory that `lpath` is."""
        rpath = self._strip_protocol(rpath)
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        self._make_parents(rpath)
        if mode == "create":
            with open_source(os.path.abspath(lpath)) as source, opening.open(rpath, "xb") as file:
                buffer = memoryview(bytearray(1 << 20))
                while count := source.readinto(buffer):
                    file.write(buffer[:count])
            return
        copying.copy(os.path.abspath(lpath), rpath, progress=_reporting(callback))

    def _make_parents(self, path: str) -> None:
        location = parse(self._parent(path) or ".")
        if location.is_local:
            namespace.makedirs(location.url, exist_ok=True)

    def __reduce__(self) -> Any:
        return _restored, (table.snapshot(), super().__reduce__())


class _RangedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file whose ranges are fetched one by one."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


def _restored(snapshot: table.Snapshot, made: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    snapshot.restore()
    function, arguments = made
    return function(*arguments)


def _exists_with_magic(fs: ApyfalFileSystem, path: Any) -> bool:
    return isinstance(path, str) and has_magic(path) and fs.exists(path)


def _pairs(
    fs: ApyfalFileSystem, source: str, target: str, recursive: bool, maxdepth: int | None
) -> tuple[list[str], list[str]]:
    """Give what is to be copied, and to where, of a source that is no pattern."""
    inside = not source.endswith("/") and (target.endswith("/") or fs.isdir(target))
    source, target = fs._strip_protocol(source), fs._strip_protocol(target)
    if inside:
        target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
    if fs.isdir(source) and not recursive:
        return [], []  # as fsspec leaves directories out
    if recursive and _has_links(source):
        sources = [f"{source}/{name}" if name else source for name in names_below(parse(source), maxdepth)]
    else:
        sources = fs.expand_path(source, recursive=recursive, maxdepth=maxdepth)
    return sources, [target + one.removeprefix(source) for one in sources]


def _has_links(path: Any) -> bool:
    """Whether there are links to directories below a local directory, which fsspec leaves out."""
    return isinstance(path, (str, os.PathLike)) and has_links(parse(ApyfalFileSystem._strip_protocol(path) or "."))


def _is_link(path: str) -> bool:
    location = parse(path)
    return location.is_local and os.path.islink(location.path)


def _described(path: str, info: ObjectInfo) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": path,
        "size": 0 if info.is_directory else info.size,
        "type": "directory" if info.is_directory else "file",
    }
    if info.mtime is not None:
        described["mtime"] = info.mtime
    if info.etag is not None:
        described["ETag"] = info.etag
    return described


def _reporting(callback: Any) -> Callable[[int, int | None], None] | None:
    if callback is DEFAULT_CALLBACK:
        return None

    def report(done: int, total: int | None) -> None:
        if total is not None:
            callback.set_size(total)
        callback.absolute_update(done)

    return report
