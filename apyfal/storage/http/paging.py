"""Listings in pages: read to their end with each name once, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from apyfal.exceptions import StorageError
from apyfal.storage.packed import Packed

__all__ = ["PageGuard"]

#: Number of consecutive pages without a name after which the listing is an error. Stores can send some, when they have
#: searched through many removed objects.
_EMPTY_PAGES = 1000


class _Names:
    """Tells whether a name is a new one. As long as names come in order, it holds them packed."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._in_order: Packed[tuple[str, ...]] = Packed(tuple)
        self._seen: set[str] | None = None

    def add(self, name: str) -> bool:
        if self._seen is None:
            if self._last is None or name > self._last:
                self._last = name
                self._in_order.append((name,))
                return True
            if name == self._last:
                return False
            self._seen = {one for (one,) in self._in_order.drain()}
        if name in self._seen:
            return False
        self._seen.add(name)
        return True


class PageGuard:
    """Detects a listing that is wrong: cut off, endless, or with names that were not requested.

    Without it, such a listing would be requested for ever, or be cut off silently.

    Parameters
    ----------
    name
        What is listed, for messages.
    prefix
        The prefix of every name.
    recursive
        Whether all names below the prefix were requested; otherwise directories stand for the names below them.
    """

    def __init__(self, name: str, prefix: str = "", *, recursive: bool = True) -> None:
        self._name = name
        self._prefix = prefix
        self._recursive = recursive
        self._tokens: set[str] = set()
        self._objects, self._directories = _Names(), _Names()  # a page has each kind in order
        self._fresh = 0
        self._named = 0
        self._empty = 0
        self._last: str | None = None
        self._page_last: str | None = None
        self._behind = ""

    def page(self, objects: Iterable[str], directories: Iterable[str] = ()) -> None:
        """Check the names of the page that has arrived.

        Parameters
        ----------
        objects, directories
            Names as the store sent them.

        Raises
        ------
        StorageError
            A name is empty or does not begin with the prefix, or there are directories that were not requested.
        """
        self._fresh = self._named = 0
        for name in objects:
            self._check(name)
        for name in directories:
            self._check(name)
            if self._recursive:
                raise self._error(f"the store sent the directory {name!r} for what is in it")

    def directory_of(self, name: str) -> str | None:
        """Return the directory to list instead of a deeper object; stores without delimiters list these."""
        cut = -1 if self._recursive else name.find("/", len(self._prefix))
        return None if cut < 0 else name[: cut + 1]

    def is_new(self, name: str) -> bool:
        """Return whether a name of this page comes for the first time; the caller leaves out the others.

        Parameters
        ----------
        name
            The name, with a ``/`` at the end for a directory.
        """
        self._named += 1
        self._page_last = name
        is_new = (self._directories if name.endswith("/") else self._objects).add(name)
        self._fresh += is_new
        return is_new

    def in_order(self, *groups: Sequence[str]) -> None:
        """Check that names are in order, also after those of earlier pages. For stores that continue after a name.

        Parameters
        ----------
        groups
            The names of this page, one sequence for each kind.

        Raises
        ------
        StorageError
            They are not in order, so continuing after a name could leave out others.
        """
        behind = self._behind
        for names in groups:
            for before, name in pairwise((behind, *names)):
                if name < before:
                    raise self._error(f"the store continues after a name, but sent {name!r} after {before!r}")
        self._behind = max((behind, *(names[-1] for names in groups if names)))

    def end_of_page(self, *, more: bool) -> None:
        """Check this page as a whole, after `is_new` was called for each of its names.

        Parameters
        ----------
        more
            Whether the store states that this is not the last page.

        Raises
        ------
        StorageError
            The page was sent before, or too many pages without a name have come.
        """
        # a store that continues with the last name, not after it, may have nothing else to send
        may_repeat = not more and self._named == 1 and self._page_last == self._last
        if self._named and not self._fresh and not may_repeat:
            raise self._error("the store sent the same page again")
        self._empty = 0 if self._named else self._empty + 1
        if self._empty > _EMPTY_PAGES:
            raise self._error(f"the store sent {self._empty} pages without a name, and says that there are more")
        self._last = self._page_last

    def next_page(self, token: str | None) -> str:
        """Check what the next page will be asked by, and return it; ``None``: the store did not say.

        Raises
        ------
        StorageError
            There is no token, or it was used before.
        """
        if not token:
            raise self._error("the store says that there is more, but not how to get it")
        if token in self._tokens:
            raise self._error("the store repeats where the next page begins")
        self._tokens.add(token)
        return token

    def _check(self, name: str) -> None:
        if not name:
            raise self._error("the store sent an entry without a name")
        if not name.startswith(self._prefix):
            raise self._error(f"the store listed {name!r}, which does not begin with {self._prefix!r}")

    def _error(self, reason: str) -> StorageError:
        return StorageError(f"cannot list all of {self._name!r}: {reason}", path=self._name)
