"""What can be said of a storage path without asking its store: its parts, its name, its parent."""

from __future__ import annotations

import posixpath
import re
from typing import TypeVar

from apyfal.exceptions import ParameterError
from apyfal.storage.api.namespace import child
from apyfal.storage.url import Location, StoragePath, parse

__all__ = ["PurePath"]

Self = TypeVar("Self", bound="PurePath")

#: Where a path is cut into names: at a slash behind another character (see `apyfal.storage.api.namespace`).
_CUT = re.compile(r"(?<=[^/])/")
_WEB = ("http", "https")


class PurePath(StoragePath):
    """A storage URL or local path, cut into names by the rules of `apyfal.storage.api.namespace`.

    In a store the text is taken as it is: ``..`` is a name as any other, ``//`` and a ``/`` at the end count, so that
    every key has a path. A local path follows the system's rules, and ``..`` leads up.
    """

    __slots__ = ()

    def __init__(self, url: object, *names: object) -> None:
        super().__init__(parse(url))
        for name in names:
            self._location = _joined(self._location, name)

    @classmethod
    def _at(cls: type[Self], location: Location) -> Self:
        made = cls.__new__(cls)
        StoragePath.__init__(made, location)
        return made

    # -- as text ------------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        """Return the URL or path, as every function of `apyfal.storage` takes it; may hold a signature."""
        return self._location.url

    def __repr__(self) -> str:
        """Show it, but no password and no signature."""
        return f"Path({str(self._location)!r})"

    def __reduce__(self: Self) -> tuple[object, tuple[type[Self], str, str]]:
        return _restored, (type(self), self._location.scheme, self._location.path)

    @property
    def url(self) -> str:
        """The same as ``str()``."""
        return self._location.url

    @property
    def scheme(self) -> str:
        """``file``, a provider's or a mount's name."""
        return self._location.scheme

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return self._location.is_local

    def is_absolute(self) -> bool:
        """Whether it is not below the working directory of whoever uses it."""
        return not self.is_local or posixpath.isabs(self._location.path)

    # -- compared -----------------------------------------------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        return self._location == other._location if isinstance(other, PurePath) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._location)

    def __lt__(self, other: PurePath) -> bool:
        return self.parts < other.parts if isinstance(other, PurePath) else NotImplemented

    def __le__(self, other: PurePath) -> bool:
        return self.parts <= other.parts if isinstance(other, PurePath) else NotImplemented

    def __gt__(self, other: PurePath) -> bool:
        return self.parts > other.parts if isinstance(other, PurePath) else NotImplemented

    def __ge__(self, other: PurePath) -> bool:
        return self.parts >= other.parts if isinstance(other, PurePath) else NotImplemented

    # -- cut and joined -----------------------------------------------------------------------------------------------
    @property
    def anchor(self) -> str:
        """``s3://`` of a store, ``/`` of an absolute local path, else nothing."""
        if not self.is_local:
            return f"{self.scheme}://"
        return "/" if self.is_absolute() else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The anchor, if there is one, and the names; of a web address, without its query."""
        text = self._location.path
        if self.is_local:
            text = text.lstrip("/") if self.is_absolute() else text
            names = [name for name in text.split("/") if name not in ("", ".")]
        else:
            text = text.partition("?")[0] if self.scheme in _WEB else text
            names = [name for name in _CUT.split(text) if name]
        return (self.anchor, *names) if self.anchor else tuple(names)

    @property
    def name(self) -> str:
        """The last name; empty at the top."""
        parts = self.parts
        return parts[-1] if len(parts) > bool(self.anchor) else ""

    @property
    def suffix(self) -> str:
        """``.bin`` of ``reads.bin``, ``.gz`` of ``a.tar.gz``; empty of ``.hidden``."""
        return posixpath.splitext(self.name)[1] if not self.name.endswith(".") else ""

    @property
    def suffixes(self) -> list[str]:
        """``.tar`` and ``.gz`` of ``a.tar.gz``."""
        name = self.name.lstrip("/").lstrip(".")
        return [] if name.endswith(".") else [f".{one}" for one in name.split(".")[1:]]

    @property
    def stem(self) -> str:
        """The name without `suffix`."""
        return self.name.removesuffix(self.suffix)

    @property
    def parent(self: Self) -> Self:
        """The directory that it is in; itself at the top."""
        parts = self.parts
        if len(parts) <= bool(self.anchor):
            return self
        return self._of(parts[:-1])

    @property
    def parents(self: Self) -> tuple[Self, ...]:
        """The directories that it is in, the nearest first."""
        found: list[Self] = []
        one = self
        while (above := one.parent) != one:
            found.append(above)
            one = above
        return tuple(found)

    def __truediv__(self: Self, name: object) -> Self:
        return self._at(_joined(self._location, name))

    def joinpath(self: Self, *names: object) -> Self:
        """Return the path of a name below this one; the same as ``/``.

        Raises
        ------
        ParameterError
            A name is a URL, or no text.
        """
        location = self._location
        for name in names:
            location = _joined(location, name)
        return self._at(location)

    def with_name(self: Self, name: str) -> Self:
        """Return the path with another last name.

        Raises
        ------
        ParameterError
            There is no name at the top, or `name` is empty or has a ``/`` behind another character.
        """
        if not self.name:
            raise ParameterError(f"{str(self._location)!r} has no name")
        if not isinstance(name, str) or not name.strip("/") or _CUT.search(name) or (self.is_local and "/" in name):
            raise ParameterError(f"{name!r} is not a name")
        return self._of((*self.parts[:-1], name))

    def with_stem(self: Self, stem: str) -> Self:
        """Return the path with another name before its suffix."""
        return self.with_name(stem + self.suffix)

    def with_suffix(self: Self, suffix: str) -> Self:
        """Return the path with another suffix; an empty one takes it away."""
        if suffix and (not suffix.startswith(".") or suffix == "." or "/" in suffix):
            raise ParameterError(f"{suffix!r} is not a suffix; expected '.' and a text")
        return self.with_name(self.stem + suffix)

    def is_relative_to(self, other: object) -> bool:
        """Whether it is, or is below, `other`."""
        parts = _pure(other).parts
        return self.parts[: len(parts)] == parts and self.scheme == _pure(other).scheme

    def relative_to(self, other: object) -> str:
        """Return the names below `other`, as a text that ``other / text`` takes.

        It is not a path: a key's names may begin with ``/``, which a relative path cannot.

        Raises
        ------
        ParameterError
            It is not below `other`.
        """
        if not self.is_relative_to(other):
            raise ParameterError(f"{str(self._location)!r} is not below {str(_pure(other)._location)!r}")
        return "/".join(self.parts[len(_pure(other).parts) :])

    def _of(self: Self, parts: tuple[str, ...]) -> Self:
        if not self.is_local:
            return self._at(Location(self.scheme, "/".join(parts[1:])))
        text = "/" + "/".join(parts[1:]) if self.anchor else "/".join(parts)
        return self._at(Location("file", text or "."))


def _joined(location: Location, name: object) -> Location:
    text = name._location.path if isinstance(name, PurePath) and name.is_local else name
    if not isinstance(text, str):
        raise ParameterError(f"{name!r} is not a name below {str(location)!r}; expected a text")
    if re.match(r"[A-Za-z][A-Za-z0-9+._-]*://", text):
        raise ParameterError(f"a URL is not a name below {str(location)!r}; expected a text without a scheme")
    if location.scheme in _WEB and "?" in location.path:
        raise ParameterError(f"nothing is below {str(location)!r}, which has a query")
    if not text:
        return location
    if not location.is_local and location.path:
        return parse(child(location, text).url)
    # below the top of a store, a first slash would be lost
    return child(location, text) if location.is_local else parse(f"{location.scheme}://{text}")


def _pure(value: object) -> PurePath:
    return value if isinstance(value, PurePath) else PurePath(value)


def _restored(kind: type[Self], scheme: str, path: str) -> Self:
    return kind._at(Location(scheme, path))
