"""One range of an object over several connections: who receives which part, and when another thread is worth it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from apyfal.storage.checksums import combine
from apyfal.storage.flow.concurrency import SLOW, AdaptiveConcurrency
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.handler import RangeReader
from apyfal.storage.transfer.ranges import CHUNK, RangeFetcher
from apyfal.threads import start_threads

__all__ = ["FIRST_PART", "MIB", "ParallelDownload", "ParallelTransfer", "PartReceiver", "adapted_part_size"]

MIB = 1 << 20
FIRST_PART = 8 * MIB
_MAX_PART = 64 * MIB

#: Receives one part: called with its first byte (counted in the range), its length, and perhaps a response that begins
#: there; returns its CRC.
PartReceiver = Callable[[int, int, RangeReader | None], int]


def adapted_part_size(rate: float) -> int:
    """Return the bytes that a connection of `rate` bytes a second moves in about a second, in whole MiB, 8 to 64."""
    return max(FIRST_PART, min(_MAX_PART, int(rate) // MIB * MIB))


class ParallelTransfer(ABC):
    """Threads that claim the parts of one range front to back, as many at once as raise the rate.

    Parameters
    ----------
    source
        The version, and how a range of it is received.
    size
        Bytes of the range.
    algorithm
        Of ``source.crc``, to combine the parts; ``None`` without.
    concurrency
        How many threads there should be.
    name
        Of the threads.
    """

    def __init__(
        self, source: RangeFetcher, size: int, algorithm: str | None, concurrency: AdaptiveConcurrency, name: str
    ) -> None:
        self._source = source
        self._size = size
        self._algorithm = algorithm
        self._concurrency = concurrency
        self._name = name
        self._lock = threading.Lock()
        self._claimed = 0
        self._crcs: list[tuple[int, int, int]] = []  # begin, length, CRC
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._running = 0

    def run(self, reader: RangeReader | None = None) -> int:
        """Transfer everything; return the CRC of the range, 0 without an algorithm.

        All threads have ended when this returns or raises.

        Parameters
        ----------
        reader
            A response that begins at the range's first byte, for the first part; closed here.
        """
        self._running = 1
        part = self._claim(reader is not None)
        if part is not None:
            with self._lock:
                self._spawn()
            self._work(part, reader)
        elif reader is not None:
            reader.close()
        try:
            self._join()
        except BaseException:  # a signal: nothing may be written to the caller's memory after this
            self._source.cancel.set()
            self._join()
            raise
        if self._failure is not None:
            raise self._failure
        if self._algorithm is None:
            return 0
        combined = 0
        for _, length, crc in sorted(self._crcs):
            combined = combine(self._algorithm, combined, crc, length)
        return combined

    def _join(self) -> None:
        for thread in self._threads:  # grows while threads run, and each is in it before its starter ends
            thread.join()

    # -- for subclasses -----------------------------------------------------------------------------------------------
    @abstractmethod
    def _next_size(self, left: int, opened: bool) -> int:
        """Return the bytes of the next part, of the `left` bytes that nobody has claimed; the lock is held."""

    @abstractmethod
    def _receiver(self) -> PartReceiver:
        """Return what one thread receives its parts with; called once a thread."""

    def _admit(self) -> bool:
        """Take what another thread needs, if it can be had; the lock is held."""
        return True

    def _leave(self) -> None:
        """Give back what a thread has needed, the calling one included."""

    def _received(self, begin: int, count: int) -> None:
        """Note that bytes of the part at `begin` have come; the lock is held."""

    def _finished(self, begin: int) -> None:
        """Note that the part at `begin` is complete; the lock is held."""

    def _moved(self, begin: int, count: int) -> None:
        """Count bytes of the part at `begin` that have come, and start a thread if that is worth it now."""
        with self._lock:
            self._received(begin, count)
            self._concurrency.moved(count)
            self._spawn()

    # -- who receives what --------------------------------------------------------------------------------------------
    def _spawn(self) -> None:
        """Start the threads that there should be and that have something to do; the lock is held."""
        while (
            self._running < self._concurrency.target
            and self._claimed < self._size
            and self._failure is None
            and self._admit()
        ):
            self._running += 1
            self._threads += start_threads(self._name, 1, self._work)

    def _claim(self, opened: bool = False) -> tuple[int, int] | None:
        """Take the next part; ``None`` if there is none, or this thread is one too many: it has left then."""
        with self._lock:
            left = self._size - self._claimed
            if not left or self._failure is not None or self._running > self._concurrency.target:
                self._running -= 1
                return None
            begin, size = self._claimed, self._next_size(left, opened)
            self._claimed += size
            return begin, size

    def _work(self, part: tuple[int, int] | None = None, reader: RangeReader | None = None) -> None:
        try:
            with self._source.cancel.scope():
                receive = self._receiver()
                while (part := part or self._claim()) is not None:
                    begin, size = part
                    crc = receive(begin, size, reader)
                    with self._lock:
                        self._crcs.append((begin, size, crc))
                        self._finished(begin)
                    part = reader = None
        except BaseException as error:
            with self._lock:
                self._running -= 1
                if self._failure is None:
                    self._failure = error
            self._source.cancel.set()
        finally:
            self._leave()


class ParallelDownload(ParallelTransfer):
    """Receives one range of one version at its final address.

    Parameters
    ----------
    source
        The version, and how a range of it is received.
    out
        Where the range goes; it has the range's length.
    start
        Where the range begins in the object.
    algorithm
        Of ``source.crc``, to combine the parts; ``None`` without.
    options
        Part size and concurrency.
    progress, on_ready
        See `apyfal.storage.transfer.download.download`.
    """

    def __init__(
        self,
        source: RangeFetcher,
        out: memoryview,
        start: int,
        algorithm: str | None,
        options: TransferOptions,
        progress: Progress | None,
        on_ready: Callable[[int], None] | None,
    ) -> None:
        # if the last transfer had slow connections, this one begins with a few
        slow = 0.0 < source.mount_limits.connection_rate < SLOW
        concurrency = AdaptiveConcurrency(options, source.handler, step=CHUNK, first=4 if slow else 1)
        super().__init__(source, len(out), algorithm, concurrency, "download")
        self._out = out
        self._start = start
        self._part_size = options.part_size
        self._progress = progress
        self._on_ready = on_ready
        self._done = 0
        self._ready = 0
        self._in_flight: dict[int, int] = {}  # begin of each part in flight, in order: bytes of it in place

    def _next_size(self, left: int, opened: bool) -> int:
        size = self._part_size
        if size is None:
            size = FIRST_PART if opened else adapted_part_size(self._source.mount_limits.connection_rate)
            # The last parts are smaller, so that all connections end at about the same time.
            size = min(size, max(4 * MIB, left // (2 * max(1, self._running)) // MIB * MIB))
        self._in_flight[self._claimed] = 0
        # What would be left behind is not worth a request.
        return left if left < size + size // 4 else size

    def _receiver(self) -> PartReceiver:
        def receive(begin: int, size: int, reader: RangeReader | None) -> int:
            out = self._out[begin : begin + size]
            return self._source.receive(out, self._start + begin, lambda count: self._moved(begin, count), reader)

        return receive

    def _received(self, begin: int, count: int) -> None:
        self._done += count
        self._in_flight[begin] += count
        self._announce()
        if self._progress is not None:
            self._progress(self._done, self._size)

    def _finished(self, begin: int) -> None:
        del self._in_flight[begin]
        self._announce()

    def _announce(self) -> None:
        """Report how many bytes at the front are in place, if there are more than before."""
        if self._on_ready is None:
            return
        front = next(iter(self._in_flight), None)
        ready = self._claimed if front is None else front + self._in_flight[front]
        if ready > self._ready:
            self._ready = ready
            self._on_ready(ready)
