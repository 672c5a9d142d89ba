"""Who holds how much: bytes of memory, of disk, or anything else that is counted, in all and for each user."""

from __future__ import annotations

import os
import threading

from apyfal.host.server.policy.limits import share_of_user
from apyfal.host.server.policy.refusals import TooBusy, TooLarge, TooMany

__all__ = ["Quota", "Share", "require_free_space"]


class Quota:
    """A limit for all users together, of which one user may hold a part. Usable from any thread.

    Parameters
    ----------
    what
        What is counted, for messages: ``bytes of memory``.
    limit
        How many there are.
    limit_of_user
        How many one user may hold. Default: `share_of_user`.
    """

    def __init__(self, what: str, limit: int, limit_of_user: int | None = None) -> None:
        self.what = what
        self.limit = limit
        self.limit_of_user = share_of_user(limit) if limit_of_user is None else limit_of_user
        self._held: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """What all users hold."""
        return self._used

    def held_by(self, user: str) -> int:
        """Return what one user holds."""
        return self._held.get(user, 0)

    def take(self, user: str, count: int) -> None:
        """Reserve for a user.

        Raises
        ------
        TooLarge
            It is more than a user may ever have.
        TooMany
            It is, with what the user holds already.
        TooBusy
            The others hold too much.
        """
        with self._lock:
            own = self._held.get(user, 0)
            if count > self.limit_of_user:
                raise TooLarge(f"{count} {self.what}: a user may have {self.limit_of_user}")
            if own + count > self.limit_of_user:
                raise TooMany(
                    f"{count} {self.what}: you hold {own}, and a user may have {self.limit_of_user}; "
                    "fetch or free your outputs and shared memory, or wait for your jobs to end"
                )
            if self._used + count > self.limit:
                raise TooBusy(f"{count} {self.what}: the host has none left now; try again")
            self._held[user] = own + count
            self._used += count

    def give(self, user: str, count: int) -> None:
        """Return what was reserved."""
        with self._lock:
            own = self._held.get(user, 0) - count
            if own > 0:
                self._held[user] = own
            else:
                self._held.pop(user, None)
            self._used -= count

    def share(self, user: str, count: int = 0) -> Share:
        """Return what one job or request of a user holds, with `count` of it taken."""
        share = Share(self, user)
        share.take(count)
        return share


class Share:
    """What one job or request holds of a quota. Usable from any thread.

    Parameters
    ----------
    quota, user
        Of which quota, and whose.

    Attributes
    ----------
    held
        How much.
    """

    __slots__ = ("_lock", "_quota", "_user", "held")

    def __init__(self, quota: Quota, user: str) -> None:
        self._quota = quota
        self._user = user
        self._lock = threading.Lock()
        self.held = 0

    def take(self, count: int) -> None:
        """Reserve more; see `Quota.take`."""
        with self._lock:
            if count:
                self._quota.take(self._user, count)
                self.held += count

    def give(self, count: int) -> None:
        """Return a part."""
        with self._lock:
            count = min(count, self.held)
            if count:
                self._quota.give(self._user, count)
                self.held -= count

    def settle(self, count: int) -> None:
        """Hold `count` from now on, whatever was held before; see `Quota.take` where that is more."""
        if count > self.held:
            self.take(count - self.held)
        else:
            self.give(self.held - count)

    def close(self) -> None:
        """Return everything. Idempotent."""
        self.give(self.held)


def require_free_space(descriptor: int, nbytes: int, reserve: int) -> None:
    """Raise `TooBusy` if writing `nbytes` would leave less than `reserve` bytes free on the file's file system."""
    status = os.fstatvfs(descriptor)
    if status.f_bavail * status.f_frsize < reserve + nbytes:
        raise TooBusy("the host's disk is full; try again later")
