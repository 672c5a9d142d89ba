"""Several threads that begin at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["together"]


def together(*works: Callable[[], object]) -> list[BaseException]:
    """Run all of them at once; returns what they raised."""
    gate = threading.Barrier(len(works))
    raised: list[BaseException] = []

    def go(work: Callable[[], object]) -> None:
        gate.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=go, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised
