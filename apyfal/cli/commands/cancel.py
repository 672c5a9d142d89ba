"""``apyfal cancel``; it is in `apyfal.cli.commands.jobs`, where jobs are listed."""

from __future__ import annotations

from apyfal.cli.commands.jobs import cancel as command

__all__ = ["command"]
