"""How a transfer is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.handler import Handler

__all__ = ["Progress", "TransferOptions"]

#: Called with the bytes moved so far and the total (``None`` while unknown), never from two threads at once.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a transfer is to be done; the defaults adapt to the store.

    Attributes
    ----------
    part_size
        Bytes of one request; ``None``: as many as a connection moves in about a second, 8 to 64 MiB.
    concurrency
        Connections; ``None``: as many as raise the rate (`apyfal.storage.flow.concurrency`).
    max_concurrency
        Connections at most, if the number adapts (the mount's own limit counts too).
    verify
        Whether to compare with the checksums that the store states, and to send some if the store takes them.
    attempts
        Attempts in a row without any progress before an operation fails.
    memory
        Bytes of buffers that one stream may hold for reading ahead or for parts being written.
    cancel
        Ends the transfer when set.
    """

    part_size: int | None = None
    concurrency: int | None = None
    max_concurrency: int = 16
    verify: bool = True
    attempts: int = 8
    memory: int = 64 << 20
    cancel: CancelToken | None = None

    def connections(self, handler: Handler) -> tuple[int, int]:
        """Return how many connections to begin with, and how many there may be."""
        most = self.max_concurrency
        if self.concurrency is not None:
            most = self.concurrency
        if handler.max_concurrency is not None:
            most = min(most, handler.max_concurrency)
        most = max(1, most)
        return (most if self.concurrency is not None else min(4, most)), most

    def own_cancel(self) -> CancelToken:
        """Return a `CancelToken` for one transfer, under the caller's; `CancelToken.detach` it in the end."""
        return CancelToken(self.cancel or current_cancel())
