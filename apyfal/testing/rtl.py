"""Test your own RTL with pytest: a fixture that runs a design, and jobs under back-pressure drawn from many seeds.

::

    from apyfal.testing.rtl import rtl  # noqa: F401 - a fixture


    def test_vadd(rtl):
        vadd = rtl(
            "vadd.sv",
            kernel="vadd",
            inputs="a: int32, b: int32",
            outputs="c: int32",
            arguments="a, b, c, count:uint32",
            rtl={"registers": "a:0x10:buffer, b:0x1c:buffer, c:0x28:buffer, count:0x34"},
        )
        a, b = numpy.arange(100, dtype="int32"), numpy.ones(100, "int32")
        for _ in rtl.under_pressure(vadd):
            assert numpy.array_equal(vadd.process({"a": a, "b": b}), a + b)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from apyfal.accelerator import Accelerator

__all__ = ["Designs", "rtl"]

# What back-pressure is drawn from: share of held-back cycles, latency, whether answers overtake each other.
_STALLS = (0, 10, 30, 60, 90)
_LATENCIES = (0, 1, 7, 40, 200)


class Designs:
    """Opens designs as accelerators; they are closed at the end of the test."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __call__(self, program: str, **definition: Any) -> Accelerator:
        """Return an accelerator of driver ``rtl``.

        Parameters
        ----------
        program
            Files, a directory or a file list; see docs/how-to/rtl.md.
        **definition
            Keys of the definition, as for `apyfal.Accelerator`.

        Returns
        -------
        Accelerator
            Owned by the fixture, which closes it.
        """
        return self._stack.enter_context(Accelerator(driver="rtl", program=str(program), **definition))

    def under_pressure(self, card: Accelerator, seeds: Iterable[int] = range(25)) -> Iterator[int]:
        """Yield one seed after the other, with memory and streams that hold back in another way for each.

        Parameters
        ----------
        card
            Made by this fixture.
        seeds
            Each means the same cycles every time.
        """
        try:
            for seed in seeds:
                stall, latency = _STALLS[seed % len(_STALLS)], _LATENCIES[seed // len(_STALLS) % len(_LATENCIES)]
                self._set(card, seed=seed, stall=stall, latency=latency, reorder=seed % 2)
                yield seed
        finally:
            self._set(card, seed=1, stall=0, latency=40, reorder=0)

    @staticmethod
    def _set(card: Accelerator, **settings: int) -> None:
        for name, value in settings.items():
            card._context.device.control(name, str(value))

    def close(self) -> None:
        """Close all accelerators."""
        self._stack.close()


@pytest.fixture
def rtl() -> Iterator[Designs]:
    """A function that opens designs for one test; see `Designs`."""
    designs = Designs()
    yield designs
    designs.close()
