"""Quotas: amounts of memory, disk space or other resources, for all users together and for each user."""

from __future__ import annotations

import os
import threading

from apyfal.host.server.policy.limits import share_of_user
from apyfal.host.server.policy.refusals import TooBusy, TooLarge, TooMany

__all__ = ["Quota", "Share", "require_free_space"]


class Quota:
    """A limit for all users together, with a lower limit for each user. Usable from any thread.

    Parameters
    ----------
    what
        The unit, for messages: ``bytes of memory``.
    limit
        Amount for all users together.
    limit_of_user
        Amount that one user may hold. Default: `share_of_user` of `limit`.
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
        """Amount that all users hold."""
        return self._used

    def held_by(self, user: str) -> int:
        """Return the amount that a user holds."""
        return self._held.get(user, 0)

    def reserve(self, user: str, count: int) -> None:
        """Reserve `count` for a user.

        Raises
        ------
        TooLarge
            `count` is more than a user may ever hold.
        TooMany
            `count` is too much together with what the user already holds.
        TooBusy
            Other users hold too much.
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

    def release(self, user: str, count: int) -> None:
        """Return `count` of what was reserved."""
        with self._lock:
            own = self._held.get(user, 0) - count
            if own > 0:
                self._held[user] = own
            else:
                self._held.pop(user, None)
            self._used -= count

    def share(self, user: str, count: int = 0) -> Share:
        """Return the share of one job or request of a user, with `count` already reserved."""
        share = Share(self, user)
        share.reserve(count)
        return share


class Share:
    """The amount of a quota that one job or request holds. Usable from any thread.

    Parameters
    ----------
    quota, user
        The quota, and the user.

    Attributes
    ----------
    held
        The amount reserved.
    """

    __slots__ = ("_lock", "_quota", "_user", "held")

    def __init__(self, quota: Quota, user: str) -> None:
        self._quota = quota
        self._user = user
        self._lock = threading.Lock()
        self.held = 0

    def reserve(self, count: int) -> None:
        """Reserve `count` more. Raises the errors of `Quota.reserve`."""
        with self._lock:
            if count:
                self._quota.reserve(self._user, count)
                self.held += count

    def release(self, count: int) -> None:
        """Return `count` of the share."""
        with self._lock:
            count = min(count, self.held)
            if count:
                self._quota.release(self._user, count)
                self.held -= count

    def settle(self, count: int) -> None:
        """Hold exactly `count` from now on. Raises the errors of `Quota.reserve` if that is more than before."""
        if count > self.held:
            self.reserve(count - self.held)
        else:
            self.release(self.held - count)

    def close(self) -> None:
        """Return everything that is reserved. Idempotent."""
        self.release(self.held)


def require_free_space(descriptor: int, nbytes: int, reserve: int) -> None:
    """Raise `TooBusy` if writing `nbytes` would leave less than `reserve` bytes free on the file's file system."""
    status = os.fstatvfs(descriptor)
    if status.f_bavail * status.f_frsize < reserve + nbytes:
        raise TooBusy("the host's disk is full; try again later")
