"""Short jobs of one kind that are frequent: prepared once, so that the event loop can start them itself.

Waiting for a thread that waits for a job costs several times what a short run takes. So if jobs of a session differ
only in their data, one is prepared with its own arrays, into which each job's data is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.server.policy.quotas import Share

__all__ = ["PreparedRun", "ShortRun", "ShortRuns"]

#: number of jobs of a kind after which one is prepared
_OFTEN: Final = 4
#: kinds that a session keeps
_KINDS: Final = 4


class PreparedRun(Protocol):
    """A prepared job whose start does not wait for a card."""

    @property
    def is_current(self) -> bool:
        """Whether the accelerator still has the parameters and data of the preparation."""
        ...

    def begin(self, seconds: float) -> Callable[[], None] | None:
        """Start it, wait up to `seconds`. Return ``None`` if it has ended, else a function that waits for its end."""
        ...


class ShortRun:
    """Jobs of one kind, one at a time.

    Parameters
    ----------
    prepared, source, target
        The prepared job, and its arrays.
    share
        Share of a quota that the arrays count against; owned by this object.

    Attributes
    ----------
    kind
        Type and shape of the output.
    is_busy
        Whether a job is running, for which a thread waits.
    """

    def __init__(
        self, prepared: PreparedRun, source: np.ndarray[Any, Any], target: np.ndarray[Any, Any], share: Share
    ) -> None:
        self._prepared = prepared
        self._source = source
        self._target = target
        self._share = share
        self.kind = ArrayType.of(target)
        self.is_busy = False

    @property
    def is_current(self) -> bool:
        """Return whether the accelerator was not started again, with other parameters or data."""
        return self._prepared.is_current

    def begin(self, source: np.ndarray[Any, Any], seconds: float) -> Callable[[], None] | None:
        """Run a job over a copy of `source`; wait up to `seconds` for its end.

        Returns
        -------
        callable or None
            ``None``: it has ended. Otherwise a function that waits for its end; call it in another thread.

        Raises
        ------
        ParameterError
            `source` has another shape than the preparation's.
        """
        if source.shape != self._source.shape:  # numpy would broadcast it
            raise ParameterError(f"an array of shape {source.shape}; this job was prepared for {self._source.shape}")
        np.copyto(self._source, source, casting="no")
        return self._prepared.begin(seconds)

    def result(self) -> bytes:
        """Return a copy of the output of the job that has ended."""
        return self._target.tobytes()

    def close(self) -> None:
        """Return the share. Nothing is run afterwards."""
        self._share.close()


class ShortRuns:
    """The kinds of short jobs of one session, by their descriptions. Usable from any thread."""

    def __init__(self) -> None:
        self._kinds: dict[str, ShortRun | None] = {}
        self._last = ""
        self._count = 0

    def find(self, description: str) -> ShortRun | None:
        """Return the prepared run for jobs of this description, if it is free; ``None``: there is none."""
        found = self._kinds.get(description)
        return found if found is not None and not found.is_busy and found.is_current else None

    def is_wanted(self, description: str) -> bool:
        """Count a job that has run, and return whether one of its kind is to be prepared."""
        self._count = self._count + 1 if description == self._last else 1
        self._last = description
        known = self._kinds.get(description)
        return self._count >= _OFTEN and (
            description not in self._kinds or (known is not None and not known.is_current)
        )

    def keep(self, description: str, run: ShortRun | None) -> None:
        """Use `run` for jobs of this kind; ``None``: the kind cannot be prepared, and is not tried again."""
        replaced = self._kinds.pop(description, None)
        if replaced is not None:
            replaced.close()
        while len(self._kinds) >= _KINDS:
            oldest = self._kinds.pop(next(iter(self._kinds)))
            if oldest is not None:
                oldest.close()
        self._kinds[description] = run

    def drop(self, description: str) -> None:
        """Forget a kind."""
        dropped = self._kinds.pop(description, None)
        if dropped is not None:
            dropped.close()

    def close(self) -> None:
        """Forget all."""
        for description in list(self._kinds):
            self.drop(description)
