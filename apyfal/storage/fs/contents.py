"""Open, read, write and copy the files of the filesystem."""

from __future__ import annotations

import os
from collections.abc import Callable
from glob import has_magic
from typing import Any

import numpy as np
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile

from apyfal.exceptions import InvalidURL, UnsupportedByStore
from apyfal.storage.api import copying, namespace, opening
from apyfal.storage.api.tree import has_links, names_below
from apyfal.storage.batch.many import load_each, save_each
from apyfal.storage.batch.ranges import ByteRange, read_parts
from apyfal.storage.endpoints.factory import open_sink, open_source
from apyfal.storage.fs.names import Names, exists_with_magic
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import parse

__all__ = ["Contents", "as_array", "first_error"]

#: Most bytes of files that are in memory as arrays before they become `bytes`, one group of files at a time.
_GROUP = 512


class Contents(Names):
    """The functions that read, write and copy; they run in the calling thread."""

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
        _refuse_empty(self._strip_protocol(path2))
        if exists_with_magic(self, path1) or (recursive and _has_links(path1)):
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
        _refuse_empty(lpath)
        if isinstance(lpath, str) and (exists_with_magic(self, rpath) or (recursive and _has_links(rpath))):
            rpath, lpath = _pairs(self, rpath, _absolute(lpath), recursive, maxdepth)
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
        _refuse_empty(lpath)
        _refuse_empty(self._strip_protocol(rpath))
        if isinstance(rpath, str) and isinstance(lpath, (str, os.PathLike)):
            literal = has_magic(os.fspath(lpath)) and os.path.exists(lpath)
            if literal or (recursive and _has_links(lpath)):
                slash = "/" if os.fspath(lpath).endswith("/") else ""
                lpath, rpath = _pairs(self, _absolute(lpath).rstrip("/") + slash, rpath, recursive, maxdepth)
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
            self.start_transaction()  # raises: there are no transactions
        text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
        path = self._strip_protocol(path) if "r" in mode and "+" not in mode else self._of_file(path, "write")
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
        """Open a file for fsspec's own layers: it is read by ranges, and they add their caches."""
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

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """Read a file, or several at once as a mapping of their paths; see fsspec."""
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        if kwargs.keys() & {"start", "end"}:
            contents = self.cat_ranges(paths, kwargs.get("start"), kwargs.get("end"))
        else:
            contents = []
            for begin in range(0, len(paths), _GROUP):
                found = load_each([parse(one) for one in paths[begin : begin + _GROUP]])
                contents += [one if isinstance(one, Exception) else one.tobytes() for one in found]
                if on_error == "raise":
                    first_error(contents[begin:])
        if on_error == "raise":
            first_error(contents)
        return {
            one: content
            for one, content in zip(paths, contents, strict=True)
            if on_error == "return" or not isinstance(content, Exception)
        }

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[bytes | Exception]:
        """Read parts of files, several at once; see fsspec. Parts of one object are of one version."""
        if max_gap is not None:
            raise NotImplementedError("cat_ranges: max_gap is not supported; expected None")
        if not isinstance(paths, list):
            raise TypeError(f"cat_ranges: paths is a {type(paths).__name__}; expected a list")
        begins = list(starts) if isinstance(starts, (list, tuple, np.ndarray)) else [starts] * len(paths)
        stops = list(ends) if isinstance(ends, (list, tuple, np.ndarray)) else [ends] * len(paths)
        if not len(begins) == len(stops) == len(paths):
            raise ValueError(f"cat_ranges: {len(paths)} paths, {len(begins)} starts and {len(stops)} ends")
        locations = [parse(self._strip_protocol(one)) for one in paths]
        found = read_parts([ByteRange(*one) for one in zip(locations, begins, stops, strict=True)])
        if on_error != "return":
            first_error(found)
        return found

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file; ``mode="create"`` fails if it exists."""
        path = self._of_file(path, "write")
        self._make_parents(path)
        if mode == "create":
            with opening.open(path, "xb") as file:
                file.write(value)
            return
        with open_sink(path, len(value)) as sink:
            sink.write(memoryview(value).cast("B"))

    def pipe(self, path: Any, value: Any = None, **kwargs: Any) -> None:
        """Write a file, or several at once from a mapping of their paths; see fsspec."""
        for one in path if isinstance(path, dict) else [path]:
            self._of_file(one, "write")  # fsspec takes the '/' away
        if not isinstance(path, dict) or len(path) == 1 or kwargs.get("mode", "overwrite") != "overwrite":
            super().pipe(path, value, **kwargs)
            return
        names = [self._of_file(one, "write") for one in path]
        for name in names:
            self._make_parents(name)
        first_error(save_each([(parse(name), as_array(data)) for name, data in zip(names, path.values(), strict=True)]))

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file, with its directories; without `truncate`, only if it does not exist."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")
            return
        location = parse(self._strip_protocol(path))
        if not location.is_local:
            raise UnsupportedByStore(f"{path!r}: a store cannot change an object's time")
        os.utime(location.path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy one file, or make the directory that `path1` is."""
        path1 = self._strip_protocol(path1)
        if self.isdir(path1):
            self._make_directory(self._strip_protocol(path2))
            return
        path2 = self._of_file(path2, "write")
        self._make_parents(path2)
        copying.copy(path1, path2)

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy one file to a local path or open file."""
        target = outfile if outfile is not None else lpath
        rpath = self._strip_protocol(rpath)
        if not hasattr(target, "write"):
            target = _absolute(target)
            if self.isdir(rpath):
                os.makedirs(target, exist_ok=True)
                return
            os.makedirs(os.path.dirname(target), exist_ok=True)
        copying.copy(rpath, target, progress=_reporting(callback))

    def put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """Copy one local file, or make the directory that `lpath` is."""
        lpath = _absolute(lpath)
        if os.path.isdir(lpath):
            self._make_directory(self._strip_protocol(rpath))
            return
        rpath = self._of_file(rpath, "write")
        self._make_parents(rpath)
        if mode == "create":
            with open_source(lpath) as source, opening.open(rpath, "xb") as file:
                buffer = memoryview(bytearray(1 << 20))
                while count := source.readinto(buffer):
                    file.write(buffer[:count])
            return
        copying.copy(lpath, rpath, progress=_reporting(callback))

    def _make_directory(self, path: str) -> None:
        """Make a directory if there are such at its place; a copy never makes a bucket."""
        location = parse(path)
        if not location.is_local:
            with resolve(location) as target:
                if not target.is_hierarchical:
                    return
        namespace.makedirs(location.url, exist_ok=True)

    def _make_parents(self, path: str) -> None:
        location = parse(self._parent(path) or ".")
        if location.is_local:
            namespace.makedirs(location.url, exist_ok=True)


class _RangedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file whose ranges are fetched one by one."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


def first_error(found: Any) -> None:
    """Raise the first error among results."""
    for one in found:
        if isinstance(one, Exception):
            raise one


def as_array(data: Any) -> np.ndarray[Any, Any]:
    """Return the bytes of a buffer as an array, without a copy."""
    view = memoryview(data)
    return np.frombuffer(view.cast("B"), np.uint8) if view.nbytes else np.empty(0, np.uint8)


def _pairs(
    fs: Contents, source: str, target: str, recursive: bool, maxdepth: int | None
) -> tuple[list[str], list[str]]:
    """Return the paths to copy and their destinations, for a source that is not a pattern."""
    inside = not source.endswith("/") and (target.endswith("/") or fs.isdir(target))
    source, target = fs._strip_protocol(source), fs._strip_protocol(target)
    if inside:
        target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
    if fs.isdir(source) and not recursive:
        return [], []  # fsspec leaves directories out, too
    if recursive and _has_links(source):
        sources = [f"{source}/{name}" if name else source for name in names_below(parse(source), maxdepth)]
    else:
        sources = fs.expand_path(source, recursive=recursive, maxdepth=maxdepth)
    return sources, [target + one.removeprefix(source) for one in sources]


def _has_links(path: Any) -> bool:
    """Return whether there are links to directories below a local directory; fsspec does not follow them."""
    return isinstance(path, (str, os.PathLike)) and has_links(parse(Contents._strip_protocol(path) or "."))


def _absolute(path: Any) -> str:
    """Return the absolute path of a local file, which is not a URL; ``..`` stays, since a link may be before it."""
    return os.path.join(os.getcwd(), os.fspath(path))


def _refuse_empty(paths: Any) -> None:
    """Refuse an empty path, which fsspec takes for the working directory or the root."""
    if "" in (paths if isinstance(paths, list) else [paths]):
        raise InvalidURL("an empty text is not a storage URL or path; expected '.' for the working directory")


def _reporting(callback: Any) -> Callable[[int, int | None], None] | None:
    if callback is DEFAULT_CALLBACK:
        return None

    def report(done: int, total: int | None) -> None:
        if total is not None:
            callback.set_size(total)
        callback.absolute_update(done)

    return report
