"""A client's files in a remote job: each byte is written once, and their errors are not taken for network errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from apyfal.storage.endpoints.factory import open_sink

__all__ = ["LocalFileFailed", "Readable", "ReceivingFile", "local_file_errors"]

_CHUNK = 1 << 20


class Readable(Protocol):
    """A response whose body is a job's output."""

    def readinto(self, out: memoryview) -> None:
        """Fill `out` with the next bytes."""


class LocalFileFailed(Exception):
    """A file of the client raised a `ConnectionError` or a `TimeoutError`: asking the host again would not help.

    Attributes
    ----------
    error
        What it raised.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def local_file_errors() -> Iterator[None]:
    """Raise `LocalFileFailed` for errors of a file that look like those of a connection."""
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise LocalFileFailed(error) from error


class ReceivingFile:
    """A path or open file that receives a job's output, in several attempts if the connection breaks.

    What a failed attempt wrote is removed. If that is not possible (a pipe), the next attempt continues behind it.

    Parameters
    ----------
    dst
        The path, or the open file.
    """

    def __init__(self, dst: object) -> None:
        self._dst = dst
        self._kept = 0  # bytes that cannot be taken back
        self._stored = False

    @property
    def is_touched(self) -> bool:
        """Whether data was written that cannot be removed."""
        return self._stored or self._kept > 0

    def receive(self, response: Readable, nbytes: int) -> None:
        """Write the `nbytes` of a response to the file. If the file already has all of them, only read them."""
        buffer = memoryview(bytearray(min(_CHUNK, max(1, nbytes))))
        sink = None
        if not self._stored:
            with local_file_errors():
                sink = open_sink(self._dst, nbytes)
        try:
            start = 0
            while start < nbytes:
                piece = buffer[: min(len(buffer), nbytes - start)]
                response.readinto(piece)
                new = piece[max(0, self._kept - start) :]
                start += len(piece)
                if sink is None or not len(new):
                    continue
                if not sink.takes_back:
                    self._kept = start
                with local_file_errors():
                    sink.write(new)
        except BaseException:
            if sink is not None:
                sink.abort()
            raise
        if sink is not None:
            with local_file_errors():
                sink.commit()
            self._stored = True
