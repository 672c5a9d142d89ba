"""`Finding`: what one check found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    area
        ``system``, ``memory``, ``cards``, ``files``, ``network`` or ``credentials``.
    state
        ``ok``; ``note``: something optional is missing; ``problem``: what is used here fails or is slow.
    what
        What was found, in one line without secrets.
    remedy
        The command or the setting that changes it; empty if nothing has to.
    """

    area: str
    state: str
    what: str
    remedy: str = ""
