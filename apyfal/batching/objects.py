"""Receive and store the objects of a batch with one call for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.batching.packing import SMALL_NBYTES
from apyfal.exceptions import AcceleratorException, TransferCancelled
from apyfal.storage.api.arrays import save_with
from apyfal.storage.batch.lanes import run_each
from apyfal.storage.batch.native import NativeReads, NativeWrites, is_moved_natively
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import Location, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.batching.fan_out import StorageFanOut
    from apyfal.batching.item import BatchItem
    from apyfal.batching.packing import BatchSlot, Packer
    from apyfal.device.regions import BufferRegion
    from apyfal.storage.flow.options import TransferOptions
    from apyfal.storage.http.exchanges import Exchanges

__all__ = ["receive_together", "split", "store_together"]

_BYTES: np.dtype[Any] = np.dtype(np.uint8)


def split(
    items: Sequence[BatchItem], name_of: Callable[[BatchItem], object]
) -> tuple[list[tuple[BatchItem, Location]], list[BatchItem]]:
    """Return the jobs whose objects one call moves together, with their locations, and the other jobs.

    Parameters
    ----------
    items
        The jobs of one batch.
    name_of
        Returns the URL or path of a job's source, or destination.
    """
    together: list[tuple[BatchItem, Location]] = []
    alone: list[BatchItem] = []
    known: dict[str, bool] = {"file": False, "http": False, "https": False}  # web addresses can belong to many mounts
    for item in items:
        try:
            location = parse(name_of(item))
            native = known.get(location.scheme)
            if native is None:
                with resolve(location) as target:
                    native = known[location.scheme] = is_moved_natively(target)
        except AcceleratorException:
            native, location = False, Location("file", "")  # this job alone reports the error
        if native:
            together.append((item, location))
        else:
            alone.append(item)
    # for a single object, the general path is as fast, and receives it directly at its place
    return (together, alone) if len(together) > 1 else ([], list(items))


class _Reads(NativeReads):
    """Reads objects to their places. Those that were received before a cancellation stay there.

    An object of `likely` bytes is received at its place; others are received elsewhere and copied there.
    """

    _guesses = True

    def __init__(
        self,
        locations: Sequence[Location],
        items: Sequence[BatchItem],
        packer: Packer,
        inputs: BufferRegion,
        likely: int,
    ) -> None:
        super().__init__(locations, None, _BYTES, SMALL_NBYTES)
        self._items = items
        self._packer = packer
        self._inputs = inputs
        self._likely = likely
        self.guessed: dict[int, BatchSlot] = {}  #: places of the likely size, by index of the job

    def _destinations(self, indexes: list[int]) -> list[NDArray[np.uint8] | None] | None:
        return [self._place(index) for index in indexes] if self._likely else super()._destinations(indexes)

    def _place(self, index: int) -> NDArray[np.uint8] | None:
        place = self._packer.place(self._likely)
        if place is None:
            return None
        self.guessed[index] = place
        return self._inputs.bytes[place.start : place.start + place.nbytes]

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        place = self.guessed.get(index)
        if place is not None and done.is_in_place(number):
            self._items[index].take_placed(place)
        else:
            self._items[index].take(done.take(number), self._packer, self._inputs, place)
        return True


class _Writes(NativeWrites):
    """Writes outputs to a store. When an output is stored, its job has ended, even if the batch is cancelled later."""

    def __init__(self, locations: Sequence[Location], data: Sequence[object], items: Sequence[BatchItem]) -> None:
        super().__init__(locations, data, None)
        self._items = items

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        self._items[index].ended = True
        return True


def receive_together(
    together: Sequence[tuple[BatchItem, Location]], packer: Packer, inputs: BufferRegion, fan_out: StorageFanOut
) -> None:
    """Receive the objects of several jobs at their places. An error ends only the job that it belongs to."""
    items = [item for item, _ in together]
    locations = [location for _, location in together]
    reads = _Reads(locations, items, packer, inputs, fan_out.object_nbytes)

    def work(index: int, options: TransferOptions) -> None:
        items[index].receive(packer, inputs, reads.first.pop(index, None), options, reads.guessed.get(index))

    _each(items, locations, work, reads)
    sizes = {0 if item.place is None else item.place.nbytes for item in items}
    fan_out.object_nbytes = sizes.pop() if len(sizes) == 1 else 0


def store_together(together: Sequence[tuple[BatchItem, Location]], output: BufferRegion) -> None:
    """Store the outputs of several jobs as whole objects. An error ends only the job that it belongs to."""
    items = [item for item, _ in together]
    locations = [location for _, location in together]
    data = [item.output(output) for item in items]
    writes = _Writes(locations, data, items)

    def work(index: int, options: TransferOptions) -> None:
        save_with(options, locations[index].url, data[index], None, writes.first.pop(index, None))
        items[index].ended = True

    _each(items, locations, work, writes)


def _each(
    items: Sequence[BatchItem],
    locations: Sequence[Location],
    work: Callable[[int, TransferOptions], None],
    native: NativeReads | NativeWrites,
) -> None:
    """Do the work for each job, and set its error on it."""
    try:
        found: list[Exception | None] = run_each(locations, work, return_exceptions=True, bulk=native)
    except TransferCancelled:
        return  # the batch ends; the error is set elsewhere
    except Exception as error:
        found = [error] * len(items)  # for all jobs that have not ended
    for item, one in zip(items, found, strict=True):
        if isinstance(one, Exception) and not item.ended:
            item.fail(one)
