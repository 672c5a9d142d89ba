"""Listings that come in pages: followed to their end, or an error."""

from __future__ import annotations

from apyfal.exceptions import StorageError

__all__ = ["PageGuard"]


class PageGuard:
    """Notices that a listing does not go on: a store that repeats a token or a page, or leaves the token out.

    Such a store would be asked for ever, or its listing be cut in silence.

    Parameters
    ----------
    name
        What is listed, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tokens: set[str] = set()
        self._firsts: set[str] = set()

    def page(self, first: str | None) -> None:
        """Check the page that has arrived.

        Parameters
        ----------
        first
            Its first name; ``None`` if it is empty.
        """
        if first is not None and first in self._firsts:
            raise self._error(f"the store sent the page that begins with {first!r} again")
        if first is not None:
            self._firsts.add(first)

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

    def foreign(self, name: str, prefix: str) -> None:
        """Check that a name is below the prefix that was asked for."""
        if not name.startswith(prefix):
            raise self._error(f"the store listed {name!r}, which does not begin with {prefix!r}")

    def _error(self, reason: str) -> StorageError:
        return StorageError(f"cannot list all of {self._name!r}: {reason}", path=self._name)
