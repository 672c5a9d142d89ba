"""Many requests at once with the native transport (csrc/transport), in one thread and without the interpreter lock.

The pool that serves single requests resolves names, checks addresses, connects sockets and begins TLS. The transport
handles ordinary responses. Every other response is kept as it came, and replayed as the first attempt of the careful
path (the Python code for single requests), which decides about retries, resuming and errors as if it had received it.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable
from weakref import WeakKeyDictionary

from apyfal._core import transport as native
from apyfal.exceptions import StorageError, StoreUnavailable, TransferCancelled, TransferTimeout
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.handler import ObjectInfo, RangeReader
from apyfal.storage.http.connection import Connection, parse_head
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import TRANSIENT_STATUSES
from apyfal.storage.metadata import ObjectMetadata
from apyfal.threads import start_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MOST_CONNECTIONS", "ExchangeHandler", "Exchanges", "LookUpHandler", "Replay", "is_exchange_handler"]

_LOG = logging.getLogger(__name__)

MOST_CONNECTIONS = native.MOST_CONNECTIONS
#: Answers that are not ordinary after which the transport begins no request any more: a store that answers so always
#: (in chunks, say) is asked once more for these only.
_MISTAKES = 8
#: Statuses whose answer is final, or passes with time. After any other (a redirect, a refusal) the general path asks
#: anew, as it may have learned meanwhile where, when and with which keys.
_REPLAYED = TRANSIENT_STATUSES | {200, 404, 410}


@runtime_checkable
class ExchangeHandler(Protocol):
    """A mounted store whose objects can be read and written by many requests at once.

    Attributes
    ----------
    client
        Its connections.
    """

    client: ConnectionPool

    @abstractmethod
    def requests_to_read(self, paths: Sequence[str]) -> list[tuple[Origin, bytes]]:
        """Return for each object where its request goes, and its head; good for some minutes."""

    @abstractmethod
    def read_answered(self, path: str, response: Response) -> RangeReader:
        """Do what `Handler.read` does with the answer to a request for a whole object, which has been received."""

    @abstractmethod
    def requests_to_write(
        self, items: Sequence[tuple[str, memoryview]], metadata: ObjectMetadata | None
    ) -> list[tuple[Origin, bytes]]:
        """Return for each object and its content where the request goes that `Handler.put` would send, and its head.

        Content that is sent with a checksum where the store takes one. Errors as `Handler.put`.
        """

    @abstractmethod
    def write_answered(self, path: str, size: int, response: Response) -> ObjectInfo:
        """Do what `Handler.put` does with the answer to such a request, which has been received."""


@runtime_checkable
class LookUpHandler(ExchangeHandler, Protocol):
    """An `ExchangeHandler` whose objects can also be looked up with many requests at once."""

    @abstractmethod
    def requests_to_look_up(self, paths: Sequence[str]) -> list[tuple[Origin, bytes]]:
        """Return the origin and the head of a HEAD request for each object; valid for some minutes."""

    @abstractmethod
    def looked_up(self, path: str, response: Response) -> ObjectInfo | None:
        """Describe an object from the head of a response with status 200; ``None``: it does not state enough."""


_kinds: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def is_exchange_handler(handler: object) -> TypeGuard[ExchangeHandler]:
    """Return whether a handler is an `ExchangeHandler`; asked once for each class, since such a check is slow."""
    kind = type(handler)
    known = _kinds.get(kind)
    if known is None:
        known = _kinds[kind] = isinstance(handler, ExchangeHandler)
    return known


class Replay:
    """An answer that was not ordinary, for the general path to begin with.

    Parameters
    ----------
    name
        ``host:port``.
    head
        The head with its blank line; empty if none came.
    body
        What of the body came.
    timeout
        Seconds after which the connection counted as stalled; ``None``: it was closed, or the answer is complete.
    """

    def __init__(self, name: str, head: bytes, body: memoryview, timeout: float | None) -> None:
        self.name = name
        self._head = head
        self._body = body
        self._timeout = timeout

    def response(self) -> Response:
        """Return the answer.

        Raises
        ------
        StoreUnavailable, TransferTimeout
            None came.
        """
        if not self._head:
            self._raise_if_stalled()
            raise StoreUnavailable(f"{self.name}: closed before the end of its response")
        status, headers, _ = parse_head(self._head[:-4], self.name)
        response = Response(self, "GET", status, headers, False)
        response.on_release(lambda usable: None)
        return response

    def receive_into(self, out: memoryview) -> int:
        """Deliver what came; into the memory where it lies already nothing moves."""
        count = min(len(out), len(self._body))
        if not count:
            self._raise_if_stalled()
        out[:count] = self._body[:count]
        self._body = self._body[count:]
        return count

    def read_line(self) -> bytes:
        """Raise: an answer in chunks is not kept."""
        raise StoreUnavailable(f"{self.name}: closed in the middle of a body")

    def check_cancelled(self) -> None:
        """Raise `TransferCancelled` if the calling thread's transfer was cancelled."""
        cancel = current_cancel()
        if cancel is not None:
            cancel.check()

    def close(self) -> None:
        """Do nothing: the connection is not used any more."""

    def _raise_if_stalled(self) -> None:
        if self._timeout is not None:
            raise TransferTimeout(f"{self.name}: nothing moved for {self._timeout:g} s")


class Exchanges:
    """Requests to one origin, sent as soon as this is made; the results of those that ended in the ordinary way.

    Parameters
    ----------
    pool, origin
        The connections, and where they lead; `ConnectionPool.leads_straight_to` it.
    requests
        Their heads.
    outs
        Where the body of each answer goes, which must have exactly this size; ``None`` in it: memory of the pool.
    contents
        What is sent behind each head; `outs` is ``None`` then, and the bodies of the answers are dropped.
    most
        Connections at most.
    largest
        Bytes of a body in memory of the pool; a larger one is for the general path.
    cancel
        Ends the call.
    keep_heads
        Whether `head` will be called.
    bodiless
        The requests are HEAD requests.
    guessed
        The sizes of `outs` are guesses: a body of another size goes into memory of the pool.

    Attributes
    ----------
    states
        One of the constants of `apyfal._core.transport` for each request.
    cancelled
        Whether `cancel` ended the call. Results of exchanges that ended before that are kept.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        origin: Origin,
        requests: list[bytes],
        outs: Sequence[NDArray[np.uint8] | None] | None,
        contents: Sequence[NDArray[np.uint8]] | None = None,
        *,
        most: int,
        largest: int,
        cancel: CancelToken,
        keep_heads: bool = False,
        bodiless: bool = False,
        guessed: bool = False,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._outs = outs
        self._stall = pool.timeouts.stall
        self._transport = native.Transport(
            requests,
            outs,
            contents,
            stall=self._stall,
            largest=largest,
            mistakes=_MISTAKES,
            keep_heads=keep_heads,
            bodiless=bodiless,
            guessed=guessed,
        )
        self._leased: dict[int, Connection] = {}
        cancel.add(self._transport)
        self.cancelled = False
        try:
            self._run(min(most, len(requests), MOST_CONNECTIONS))
        except TransferCancelled:
            self.cancelled = True
        finally:
            cancel.discard(self._transport)
            usable: list[Connection] = []
            for slot, connection in self._leased.items():
                if self._transport.detach(slot) and not cancel.is_set():
                    usable.append(connection)
                else:
                    pool.release(connection, False)
            pool.keep(usable)
            self._leased.clear()
        self.states = self._transport.states()
        if _LOG.isEnabledFor(logging.DEBUG):
            done = self.states.count(native.DONE)
            _LOG.debug("%s: %d of %d requests by the native transport", origin, done, len(requests))

    def _run(self, wanted: int) -> None:
        while True:
            wanted = self._connect(wanted)
            if not wanted or self._transport.run(wanted):
                return
            for slot in [slot for slot in self._leased if self._transport.lost(slot)]:
                self._transport.detach(slot)
                self._pool.release(self._leased.pop(slot), False)

    def _connect(self, wanted: int) -> int:
        """Have as many connections as `wanted`; returns how many there are. Where one fails, the others must do."""
        missing = wanted - len(self._leased)
        found: list[tuple[Connection, bool]] = []

        def lease() -> None:
            try:
                found.append(self._pool.lease(self._origin))
            except StorageError as error:
                _LOG.debug("%s: %s", self._origin, error)

        if missing:
            found += [(kept, False) for kept in self._pool.lease_kept(self._origin, missing)]
            missing -= len(found)
        if missing > 1:
            # each waits for the other side, and new ones may be far away
            for thread in start_threads("connect", missing, lease):
                thread.join()
        elif missing:
            lease()
        for connection, fresh in found:
            descriptor = connection.descriptor()
            if descriptor is None:
                self._pool.release(connection, False)
                continue
            self._leased[self._transport.attach(descriptor, not fresh, connection.session)] = connection
        return len(self._leased)

    def take(self, index: int) -> memoryview | None:
        """Give the memory of the pool that a body is in; ``None``: it is empty."""
        memory = self._transport.take(index)
        return None if memory is None else memoryview(memory)

    def is_in_place(self, index: int) -> bool:
        """Whether the body of an ordinary answer is in its place of `outs`."""
        return self._transport.in_place(index)

    def head(self, index: int) -> Response:
        """Return the head of an ordinary response, with `keep_heads`; its body cannot be read from it."""
        name = f"{self._origin.host}:{self._origin.port}"
        return Replay(name, self._transport.answer(index)[0], memoryview(b""), None).response()

    def replay(self, index: int) -> Replay | None:
        """Give what came of an answer that was not ordinary; ``None``: begin anew."""
        state = self.states[index]
        if state not in (native.ANSWERED, native.BROKEN, native.STALLED):
            return None
        head, body, received = self._transport.answer(index)
        if head and int(head[9:12]) not in _REPLAYED:
            return None
        data = memoryview(body)
        if received and not body:
            out = self._outs[index] if self._outs is not None and self.is_in_place(index) else None
            place = self.take(index) if out is None else out.data.cast("B")
            data = place[:received] if place is not None else data
        name = f"{self._origin.host}:{self._origin.port}"
        return Replay(name, head, data, self._stall if state == native.STALLED else None)
