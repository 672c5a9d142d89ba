"""Daemon threads: the interpreter must not wait at exit for one whose device or store hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["start_threads"]


def start_threads(name: str, count: int, work: Callable[[], object]) -> list[threading.Thread]:
    """Start `count` daemon threads that call `work`, named ``apyfal-NAME-0`` and so on; return them.

    `work` must not raise: nobody would see it.
    """
    threads = [threading.Thread(target=work, name=f"apyfal-{name}-{number}", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads
