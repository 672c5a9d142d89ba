"""How long, and how often, a client asks a host that does not answer or has no room."""

from __future__ import annotations

import secrets
import time

from apyfal.exceptions import AcceleratorException, HostUnreachable, RunTimeout

__all__ = ["RETRY_FOR", "Retry"]

#: seconds a request is repeated for when the host cannot be reached: long enough for a restart
RETRY_FOR = 60.0
_FIRST_DELAY = 0.05
_MAX_DELAY = 2.0


class Retry:
    """How long and how often one job is asked for again."""

    def __init__(self, timeout: float | None, longest: float = RETRY_FOR) -> None:
        now = time.monotonic()
        self._end = None if timeout is None else now + timeout + _MAX_DELAY
        self._longest = longest
        self._give_up: float | None = None
        self._delay = _FIRST_DELAY

    def pause(self, reason: str, delay: float | None, error: BaseException | None = None) -> None:
        """Wait before the next attempt, or raise what `reason` and `error` say when it has been long enough."""
        now = time.monotonic()
        if self._give_up is None:
            self._give_up = now + self._longest
        if now >= self._give_up:
            if isinstance(error, AcceleratorException):
                raise error
            raise HostUnreachable(f"{reason} for {self._longest:g} s: {error or 'no answer'}") from error
        self.check()
        time.sleep(min(self._delay if delay is None else delay, _MAX_DELAY) * (0.5 + secrets.randbelow(1000) / 1000))
        self._delay = min(2 * self._delay, _MAX_DELAY)

    def check(self) -> None:
        """Raise `RunTimeout` when the job's own time is over and the host has not said so."""
        if self._end is not None and time.monotonic() > self._end:
            raise RunTimeout("the job did not end in time, nor did its host say so")
