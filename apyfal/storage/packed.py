"""Long lists in little memory: rows of a few values, compressed in blocks of some hundreds; and such rows sorted.

A listing of a million objects takes a gigabyte as Python objects. Its names are similar, so that it takes some
megabytes here: 2 to 25 bytes for each name, depending on how much of it is random, and 17 for an ETag.
"""

from __future__ import annotations

import heapq
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["Packed", "Sorter", "repeated"]

Row = TypeVar("Row", bound="tuple[Any, ...]")

#: Rows that are compressed together.
_BLOCK = 1024
#: Rows of a sorted run, and rows of each run that are decompressed at a time while the runs are merged.
_RUN = 8 << 10
_RUN_BLOCK = 256


class Packed(Generic[Row]):
    """A list that is appended to and read from its beginning, any number of times.

    Parameters
    ----------
    make
        Makes a row from its values: the ``_make`` of a named tuple. `pickle` must be able to store the values.
    block
        Number of rows that are compressed together; as many are in memory as Python objects.
    """

    def __init__(self, make: Callable[[Iterable[Any]], Row], *, block: int = _BLOCK) -> None:
        self._make = make
        self._block = block
        self._packed: list[bytes] = []
        self._last: list[Row] = []
        self._count = 0

    def append(self, row: Row) -> None:
        """Add a row."""
        self._last.append(row)
        self._count += 1
        if len(self._last) == self._block:
            # by columns, whose values are similar
            self._packed.append(zlib.compress(pickle.dumps(list(zip(*self._last, strict=True)), 5), 1))
            self._last = []

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[Row]]:
        """Yield the rows, some at a time."""
        for packed in self._packed:
            yield self._unpacked(packed)
        if self._last:
            yield list(self._last)

    def drain(self) -> Iterator[Row]:
        """Yield the rows and forget them, some at a time; the list is empty afterwards."""
        packed, last = self._packed[::-1], self._last
        self._packed, self._last, self._count = [], [], 0
        while packed:
            yield from self._unpacked(packed.pop())
        yield from last

    def _unpacked(self, packed: bytes) -> list[Row]:
        return [self._make(row) for row in zip(*pickle.loads(zlib.decompress(packed)), strict=True)]


class Sorter(Generic[Row]):
    """Rows that are added in any order and read sorted. Equal ones stay in the order in which they were added.

    Parameters
    ----------
    make
        As for `Packed`.
    key
        Returns the sort key of a row.
    """

    def __init__(self, make: Callable[[Iterable[Any]], Row], key: Callable[[Row], Any]) -> None:
        self._make = make
        self._key = key
        self._runs: list[Packed[Row]] = []
        self._end: Any = None  # key of the last row of the last run
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) == _RUN:
            self._close()

    def _close(self) -> None:
        rows = sorted(self._rows, key=self._key)
        self._rows = []
        # what comes in order, as most listings do, is one run whatever its length
        if not self._runs or self._key(rows[0]) < self._end:
            self._runs.append(Packed(self._make, block=_RUN_BLOCK))
        self._runs[-1].extend(rows)
        self._end = self._key(rows[-1])

    def __iter__(self) -> Iterator[Row]:
        if not self._runs:
            return iter(sorted(self._rows, key=self._key))
        if self._rows:
            self._close()
        return heapq.merge(*self._runs, key=self._key)


def repeated(texts: Iterable[str]) -> bytearray:
    """Return for each text 1 if it occurred before, otherwise 0."""
    count = 0
    sorter: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row[0])
    for text in texts:
        sorter.add((text, count))
        count += 1
    flags = bytearray(count)
    last = None
    for text, number in sorter:
        flags[number] = text == last
        last = text
    return flags
