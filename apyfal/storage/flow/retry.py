"""When to try again, how soon, and how often; and what a mount's transfers may use together."""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from apyfal.exceptions import ChecksumMismatch, ObjectNotFound, StorageError, StoreUnavailable, TransferTimeout
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.connections import ConnectionLimiter
from apyfal.storage.handler import Handler

__all__ = ["Bandwidth", "Memory", "MountLimits", "RetryQuota", "Retrying", "limits_for", "retry_call", "retry_removal"]

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Errors after which another attempt may succeed.
TRANSIENT = (StoreUnavailable, TransferTimeout)

_BASE_DELAY = 0.05
_MAX_DELAY = 5.0
_MAX_RETRY_AFTER = 60.0


class RetryQuota:
    """How many retries all transfers of a mount have left, so that a failing store is not hit harder for failing.

    Each retry takes one; an operation that succeeds in the end gives back what it took, one that succeeds at once adds
    a little. So a store that breaks one connection in five is retried for ever, while one that always fails gets no
    more than `capacity` requests beyond the first attempts.

    Parameters
    ----------
    capacity
        Retries without any success.
    """

    def __init__(self, capacity: float = 50.0) -> None:
        self._capacity = capacity
        self._left = capacity
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one retry; ``False`` if there is none left."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True

    def refund(self, retries: int) -> None:
        """Give back, after a success, the retries that led to it."""
        if self._left < self._capacity:
            with self._lock:
                self._left = min(self._capacity, self._left + (retries or 0.1))


class Bandwidth:
    """A rate that many threads share: each pays before it moves bytes, and sleeps as long as it is in debt.

    Parameters
    ----------
    rate
        Bytes a second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._paid_until = 0.0
        self._lock = threading.Lock()

    def take(self, count: int, cancel: CancelToken | None) -> None:
        """Pay for `count` bytes; returns when they may move."""
        with self._lock:
            now = time.monotonic()
            # An idle mount may burst for a tenth of a second, no longer.
            self._paid_until = max(self._paid_until, now - 0.1) + count / self.rate
            wait = self._paid_until - now
        if wait <= 0:
            return
        if cancel is None:
            time.sleep(wait)
        elif cancel.wait(wait):
            cancel.check()


class Memory:
    """Bytes of buffers that the transfers of a mount may hold together.

    Parameters
    ----------
    limit
        Bytes. Each transfer may have its first buffer whatever the others hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, count: int) -> None:
        """Take `count` bytes in any case: what a transfer cannot do without, or idle ones could block it for ever."""
        with self._lock:
            self._held += count

    def try_acquire(self, count: int) -> bool:
        """Take `count` bytes if that is possible now."""
        with self._lock:
            if self._held and self._held + count > self.limit:
                return False
            self._held += count
            return True

    def release(self, count: int) -> None:
        """Give `count` bytes back."""
        with self._lock:
            self._held -= count


class MountLimits:
    """What all transfers of one mount share: the retry quota and the limits of its handler."""

    def __init__(self, handler: Handler) -> None:
        self.quota = RetryQuota()
        self.bandwidth = Bandwidth(handler.bandwidth) if handler.bandwidth else None
        self.memory = Memory(handler.memory_limit or 256 << 20)
        self.connections = ConnectionLimiter(handler.max_concurrency)
        #: the rate of one connection, in bytes a second, as last seen; part sizes follow it
        self.connection_rate = 0.0

    def note_rate(self, count: int, seconds: float) -> None:
        """Learn from a request that moved `count` bytes; small ones say nothing about the rate."""
        if count >= 1 << 20 and seconds > 0:
            self.connection_rate = count / seconds


#: By the handler's identity, as a handler may compare equal to another one, or have no hash at all.
_limits_by_handler: dict[int, MountLimits] = {}
_creating = threading.Lock()


def limits_for(handler: Handler) -> MountLimits:
    """Return what the transfers of `handler` share. The first call creates it; it lives as long as the handler."""
    found = _limits_by_handler.get(id(handler))
    if found is None:
        with _creating:
            found = _limits_by_handler.get(id(handler))
            if found is None:
                found = _limits_by_handler[id(handler)] = MountLimits(handler)
                weakref.finalize(handler, _limits_by_handler.pop, id(handler), None).atexit = False
    return found


class Retrying:
    """The attempts at one operation.

    Parameters
    ----------
    quota
        The mount's.
    limit
        Attempts in a row without progress.
    cancel
        Ends the waiting between attempts.
    """

    def __init__(self, quota: RetryQuota, limit: int, cancel: CancelToken | None) -> None:
        self._quota = quota
        self._limit = limit
        self._cancel = cancel
        self._failures = 0
        self._mismatched = False
        self.retries = 0

    def progress(self) -> None:
        """Note that the attempt moved something: the count of attempts starts again, and what it took is given back."""
        if self._failures:
            self._quota.refund(self._failures)
        self._failures = 0

    def success(self) -> None:
        """Note the end of the operation."""
        self._quota.refund(self._failures)

    def failed(self, error: StorageError, what: str) -> None:
        """Wait before the next attempt, or raise if there is none.

        Parameters
        ----------
        error
            Why the last attempt failed.
        what
            What was being done, to begin the message with: ``"cannot read 'bucket/key' at byte 0"``.
        """
        if self._cancel is not None:
            self._cancel.check()
        self._failures += 1
        if isinstance(error, ChecksumMismatch) and not self._mismatched:
            self._mismatched = True  # damaged on the way, once
        elif not isinstance(error, TRANSIENT):
            raise error
        if self._failures >= self._limit:
            raise restated(error, what, f" (attempt {self._failures})") from error
        if not self._quota.take():
            raise restated(error, what, " (not tried again: too much fails on this store)") from error
        self.retries += 1
        # Full jitter: retries of many threads must not come back in step.
        delay = random.uniform(0.0, min(_MAX_DELAY, _BASE_DELAY * 2.0**self._failures))
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, _MAX_RETRY_AFTER))
        _LOG.info("%s: %s; attempt %d follows in %.2f s", what, error, self._failures + 1, delay)
        if self._cancel is None:
            time.sleep(delay)
        elif self._cancel.wait(delay):
            self._cancel.check()


def restated(error: StorageError, what: str, end: str = "") -> StorageError:
    """Return the same kind of error with what was being done before its message."""
    text = str(error)
    if text.startswith(what):
        return error
    new = type(error)(f"{what}: {text}{end}")
    new.__dict__.update(error.__dict__)
    return new


def retry_removal(handler: Handler, function: Callable[[], None], what: str) -> None:
    """Remove something by `function`, again while its error is transient; see `retry_call`.

    Not found after a failed attempt is a success: that attempt removed it, and its response was lost.
    """
    first = True

    def attempt() -> None:
        nonlocal first
        was_first, first = first, False
        try:
            function()
        except ObjectNotFound:
            if was_first:
                raise

    retry_call(handler, attempt, what)


def retry_call(handler: Handler, function: Callable[[], Result], what: str, *, limit: int = 8) -> Result:
    """Do one idempotent operation of `handler`, again while its error is transient.

    Parameters
    ----------
    handler
        Whose quota counts.
    function
        One attempt.
    what
        What it does, to begin error messages with.
    limit
        Attempts at most.
    """
    limits, cancel = limits_for(handler), current_cancel()
    attempts = Retrying(limits.quota, limit, cancel)
    while True:
        try:
            with limits.connections.turn(cancel):
                result = function()
        except StorageError as error:
            attempts.failed(error, what)
        else:
            attempts.success()
            return result
