"""Listings that come in pages: followed to their end, each name once, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from apyfal.exceptions import StorageError

__all__ = ["PageGuard"]

#: Pages without a name in a row after which a store is taken to send them for ever. Stores may send some, where they
#: looked through many removed objects.
_EMPTY_PAGES = 1000


class PageGuard:
    """Notices that a listing is not what was asked for: cut, going round in circles, or of other names.

    Such a store would be asked for ever, or its listing be cut in silence.

    Parameters
    ----------
    name
        What is listed, for messages.
    prefix
        With which every name begins.
    recursive
        Whether all names below were asked for, and not directories instead of what is below them.
    """

    def __init__(self, name: str, prefix: str = "", *, recursive: bool = True) -> None:
        self._name = name
        self._prefix = prefix
        self._recursive = recursive
        self._tokens: set[str] = set()
        self._seen: set[str] = set()
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
            Names as the store has them.

        Raises
        ------
        StorageError
            One is empty or does not begin with the prefix, or there are directories where none were asked for.
        """
        self._fresh = self._named = 0
        for name in objects:
            self._check(name)
        for name in directories:
            self._check(name)
            if self._recursive:
                raise self._error(f"the store sent the directory {name!r} for what is in it")

    def directory_of(self, name: str) -> str | None:
        """Return the directory to list instead of an object that is deeper, as a store does that knows no delimiter."""
        cut = -1 if self._recursive else name.find("/", len(self._prefix))
        return None if cut < 0 else name[: cut + 1]

    def is_new(self, name: str) -> bool:
        """Whether a name of this page comes for the first time; the others are to be left out.

        Parameters
        ----------
        name
            With a ``/`` at the end for a directory.
        """
        self._named += 1
        self._page_last = name
        if name in self._seen:
            return False
        self._seen.add(name)
        self._fresh += 1
        return True

    def in_order(self, *groups: Sequence[str]) -> None:
        """Check that names are in order, those of earlier pages included, where pages are asked for by a name.

        Parameters
        ----------
        groups
            Names of this page, of each kind.

        Raises
        ------
        StorageError
            They are not, so that what is behind a name may not be all that is left.
        """
        behind = self._behind
        for names in groups:
            for before, name in pairwise((behind, *names)):
                if name < before:
                    raise self._error(f"the store goes on behind a name, and sent {name!r} after {before!r}")
        self._behind = max((behind, *(names[-1] for names in groups if names)))

    def end_of_page(self, *, more: bool) -> None:
        """Check what has come of this page, of which `is_new` was asked for each name.

        Parameters
        ----------
        more
            Whether the store says that this is not the last one.

        Raises
        ------
        StorageError
            It was sent before, or one more page without names has come than anybody sends.
        """
        # one that goes on with the last name, and not behind it, may find no more than that
        may_repeat = not more and self._named == 1 and self._page_last == self._last
        if self._named and not self._fresh and not may_repeat:
            raise self._error("the store sent a page again")
        self._empty = 0 if self._named else self._empty + 1
        if self._empty > _EMPTY_PAGES:
            raise self._error(f"the store sent {self._empty} pages without a name, and says that there is more")
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
