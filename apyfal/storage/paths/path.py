"""`Path`: a file, object or directory of any store, with the methods of `pathlib.Path`."""

from __future__ import annotations

import glob as local_glob
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, TypeVar

from apyfal.exceptions import ObjectExists, ObjectNotFound, ParameterError
from apyfal.storage.api import contents, globbing, moving, namespace, opening, queries
from apyfal.storage.api.namespace import entries, exists_at, stat_at
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.paths.pure import PurePath
from apyfal.storage.url import Location

__all__ = ["Path"]

Self = TypeVar("Self", bound="Path")


class Path(PurePath):
    """A storage URL or local path as an object: ``Path("s3://lab") / "reads.bin"``.

    Every function of `apyfal.storage` and `apyfal.Accelerator.process` takes one. It can be hashed, compared, sorted
    and pickled, and asks its store for nothing until a method does. ``os.fspath`` gives the path of a local one; of
    another it raises, rather than letting `open` of Python make a local file of a strange name.

    Parameters
    ----------
    url
        A storage URL or path, as text, `os.PathLike` or another `Path`.
    names
        Names below it.

    Raises
    ------
    InvalidURL, ParameterError
        It is none.

    Notes
    -----
    Errors of the methods are those of the function of `apyfal.storage` that does the same. Unlike `pathlib`, `exists`,
    `is_file` and `is_dir` raise if that cannot be told, and `relative_to` returns a text. In a store, ``..`` is a name.
    """

    __slots__ = ()

    # -- what is there ------------------------------------------------------------------------------------------------
    def stat(self) -> ObjectInfo:
        """Look it up; see `apyfal.storage.stat`."""
        return stat_at(self._location)

    def exists(self) -> bool:
        """Whether there is such a file, object, bucket or directory."""
        return exists_at(self._location)

    def is_file(self) -> bool:
        """Whether it is a file or object; see `apyfal.storage.isfile`."""
        return queries.isfile(self)

    def is_dir(self) -> bool:
        """Whether it is a directory or bucket; see `apyfal.storage.isdir`."""
        return queries.isdir(self)

    def iterdir(self: Self) -> Iterator[Self]:
        """Yield what is directly below, sorted by name."""
        for name, _ in entries(self._location):
            yield self._at(namespace.child(self._location, name))

    def walk(self: Self) -> Iterator[tuple[Self, list[str], list[str]]]:
        """Walk what is below from the top, as `apyfal.storage.walk`."""
        for folder, directories, files in namespace.walk(self):
            yield type(self)(folder), directories, files

    def glob(self: Self, pattern: str) -> Iterator[Self]:
        """Yield what matches a pattern below, sorted; hidden names match a part that begins with a dot.

        Raises
        ------
        ParameterError
            The pattern is empty, a URL or begins with ``/``.
        """
        if not isinstance(pattern, str) or not pattern or pattern.startswith("/") or "://" in pattern:
            raise ParameterError(
                f"{pattern!r} is not a pattern below {str(self._location)!r}; expected text like '*.bin'"
            )
        location = namespace.child(self._location, "x")
        if self.is_local:
            for found in sorted(local_glob.glob(local_glob.escape(location.path[:-1]) + pattern, recursive=True)):
                yield self._at(Location("file", found))
            return
        top = re.sub(r"([*?[])", r"[\1]", location.path[:-1])
        for found in globbing.glob(f"{location.scheme}://{top}{pattern}"):
            yield type(self)(found)

    def rglob(self: Self, pattern: str) -> Iterator[Self]:
        """Yield what matches a pattern anywhere below."""
        return self.glob(f"**/{pattern}")

    # -- contents -----------------------------------------------------------------------------------------------------
    def open(self, mode: str = "r", **how: Any) -> IO[Any]:
        """Open it; arguments are those of `apyfal.storage.open`."""
        file: IO[Any] = opening.open(self, mode, **how)
        return file

    def read_bytes(self) -> bytes:
        """Read it whole."""
        return contents.read_bytes(self)

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Read it whole, as text."""
        return contents.read_text(self, encoding, errors, newline)

    def write_bytes(
        self, data: bytes | bytearray | memoryview, *, metadata: ObjectMetadata | Mapping[str, Any] | None = None
    ) -> int:
        """Write it whole, or leave it as it was."""
        return contents.write_bytes(self, data, metadata=metadata)

    def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    ) -> int:
        """Write it whole, as text, or leave it as it was."""
        return contents.write_text(self, data, encoding, errors, newline, metadata=metadata)

    # -- changes ------------------------------------------------------------------------------------------------------
    def touch(self, exist_ok: bool = True) -> None:
        """Make an empty file or object, or give a local file the time of now; see `apyfal.storage.touch`."""
        contents.touch(self, exist_ok)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file or object."""
        try:
            namespace.remove(self)
        except ObjectNotFound:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory or bucket; where directories are only names, nothing.

        Raises
        ------
        ObjectNotFound
            Without `parents`: there is no directory to make it in.
        ObjectExists
            It exists; with `exist_ok`, it is not a directory.
        """
        above = self.parent
        if not parents and above.parent != above and not above.exists():
            raise ObjectNotFound(f"cannot make {str(self._location)!r}: there is no {str(above._location)!r}")
        if exist_ok and self.exists() and not self.is_dir():
            raise ObjectExists(f"cannot make {str(self._location)!r}: it is not a directory")
        namespace.makedirs(self, exist_ok)

    def rmdir(self) -> None:
        """Remove the empty directory or bucket."""
        namespace.rmdir(self)

    def rename(self: Self, target: object) -> Self:
        """Move it to another name, replacing what is there; returns the new path. See `apyfal.storage.rename`."""
        return type(self)(moving.rename(self, target))

    def replace(self: Self, target: object) -> Self:
        """Do the same as `rename`."""
        return self.rename(target)
