"""One range of an object over several connections: who receives what, and what is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable

from apyfal.storage.checksums import combine
from apyfal.storage.flow.concurrency import SLOW, AdaptiveConcurrency
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.handler import RangeReader
from apyfal.storage.transfer.ranges import CHUNK, RangeFetcher

__all__ = ["FIRST_PART", "MIB", "Parallel", "adapted_part_size"]

MIB = 1 << 20
FIRST_PART = 8 * MIB
_MAX_PART = 64 * MIB


def adapted_part_size(rate: float) -> int:
    """Return the bytes that a connection of `rate` bytes a second moves in about a second, in whole MiB, 8 to 64."""
    return max(FIRST_PART, min(_MAX_PART, int(rate) // MIB * MIB))


class Parallel:
    """Receives one range of one version, in parts that are claimed front to back.

    Parameters
    ----------
    source
        The version, and how a part is received.
    out
        Where the range goes; it has the range's length.
    start
        Where the range begins in the object.
    algorithm
        Of `source.crc`, to combine the parts; ``None`` without.
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
        self._source = source
        self._out = out
        self._start = start
        self._algorithm = algorithm
        self._part_size = options.part_size
        self._progress = progress
        self._on_ready = on_ready
        # where the last transfer had slow connections, this one begins with a few
        slow = 0.0 < source.mount_limits.connection_rate < SLOW
        self._pace = AdaptiveConcurrency(options, source.handler, step=CHUNK, first=4 if slow else 1)
        self._lock = threading.Lock()
        self._claimed = 0
        self._moved = 0
        self._ready = 0
        self._flying: dict[int, int] = {}  # begin of each part in flight, in order: bytes of it in place
        self._crcs: list[tuple[int, int, int]] = []  # begin, length, CRC
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._running = 0

    def run(self, reader: RangeReader | None) -> int:
        """Receive everything; returns the CRC of the range, 0 without an algorithm.

        Parameters
        ----------
        reader
            An answer that begins at the range's first byte, for the first part.
        """
        self._running = 1
        part = self._claim(reader is not None)
        if part is not None:
            with self._lock:
                self._spawn()
            self._work(part, reader)
        elif reader is not None:
            reader.close()
        for thread in self._threads:  # grows while threads run, and each is in it before its starter ends
            thread.join()
        if self._failure is not None:
            raise self._failure
        if self._algorithm is None:
            return 0
        whole = 0
        for _, length, crc in sorted(self._crcs):
            whole = combine(self._algorithm, whole, crc, length)
        return whole

    # -- who receives what --------------------------------------------------------------------------------------------
    def _spawn(self) -> None:
        """Start the threads that are wanted and have something to do; the lock is held."""
        while self._running < self._pace.wanted and self._claimed < len(self._out) and self._failure is None:
            self._running += 1
            thread = threading.Thread(target=self._work, name="apyfal-download", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _claim(self, opened: bool = False) -> tuple[int, int] | None:
        """Take the next part; ``None`` when there is none, or this thread is one too many: it has left then."""
        with self._lock:
            left = len(self._out) - self._claimed
            if not left or self._failure is not None or self._running > self._pace.wanted:
                self._running -= 1
                return None
            size = self._part_size
            if size is None:
                size = FIRST_PART if opened else adapted_part_size(self._source.mount_limits.connection_rate)
                # The last parts are smaller, so that all connections end at about the same time.
                size = min(size, max(4 * MIB, left // (2 * max(1, self._running)) // MIB * MIB))
            # What would be left behind is not worth a request of its own.
            size = left if left < size + size // 4 else size
            begin = self._claimed
            self._claimed += size
            self._flying[begin] = 0
            return begin, size

    def _work(self, part: tuple[int, int] | None = None, reader: RangeReader | None = None) -> None:
        try:
            with self._source.cancel.scope():
                while (part := part or self._claim()) is not None:
                    begin, size = part
                    crc = self._source.receive(
                        self._out[begin : begin + size],
                        self._start + begin,
                        lambda count, begin=begin: self._note(begin, count),  # type: ignore[misc]  # the default binds
                        reader,
                    )
                    self._finish(begin, size, crc)
                    part = reader = None
        except BaseException as error:
            with self._lock:
                self._running -= 1
                if self._failure is None:
                    self._failure = error
            self._source.cancel.set()

    # -- what is ready ------------------------------------------------------------------------------------------------
    def _note(self, begin: int, count: int) -> None:
        with self._lock:
            self._moved += count
            self._flying[begin] += count
            if self._on_ready is not None:
                self._announce()
            if self._progress is not None:
                self._progress(self._moved, len(self._out))
            self._pace.moved(count)
            self._spawn()

    def _finish(self, begin: int, size: int, crc: int) -> None:
        with self._lock:
            del self._flying[begin]
            self._crcs.append((begin, size, crc))
            if self._on_ready is not None:
                self._announce()

    def _announce(self) -> None:
        front = next(iter(self._flying), None)
        ready = self._claimed if front is None else front + self._flying[front]
        if ready > self._ready and self._on_ready is not None:
            self._ready = ready
            self._on_ready(ready)
