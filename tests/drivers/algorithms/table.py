"""What a row of the table of algorithms says, and how it is run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import apyfal

__all__ = ["Algorithm"]


@dataclass(frozen=True)
class Algorithm:
    """One kernel as engineers write it, and its result by numpy.

    Attributes
    ----------
    name
        Of the row, and of the kernel.
    what
        The algorithm, as the literature calls it.
    source
        OpenCL C.
    keys
        The definition, without driver and program.
    data
        Makes sources from random numbers, by input; ``None``: the kernel has none.
    expected
        Makes the result from the sources (and parameters), or results by output.
    parameters
        Of `apyfal.Accelerator.process`.
    tolerance
        Relative; 0: equal.
    """

    name: str
    what: str
    source: str
    keys: Mapping[str, str]
    data: Callable[[np.random.Generator], dict[str, np.ndarray]] | None
    expected: Callable[..., Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0

    def run(self) -> None:
        """Run it twice, the second time into arrays of the caller's, and compare."""
        source = np.random.default_rng(14)
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / f"{self.name}.cl"
            program.write_text(self.source)
            settings: Any = {"kernel": self.name, **self.keys}
            with apyfal.Accelerator(self.name, driver="opencl", program=program, **settings) as accelerator:
                data = self.data(source) if self.data else {}
                before = {name: array.copy() for name, array in data.items()}
                expected = self.expected(**before, **self.parameters)
                results = accelerator.process(data or None, **self.parameters)
                self._compare(results, expected)
                for name, array in data.items():
                    np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was changed")
                target = {name: np.empty_like(array) for name, array in self._named(results).items()}
                accelerator.process(data or None, target, **self.parameters)
                self._compare(target if isinstance(expected, dict) else next(iter(target.values())), expected)

    def _named(self, results: Any) -> dict[str, np.ndarray]:
        if isinstance(results, dict):
            return results
        outputs = self.keys.get("outputs", "") or self.keys["inout"]
        return {outputs.partition(":")[0].partition("=")[0].strip(): results}

    def _compare(self, results: Any, expected: Any) -> None:
        if isinstance(expected, dict):
            assert results.keys() == expected.keys()
            for name, array in expected.items():
                self._compare(results[name], array)
            return
        assert results.shape == expected.shape, (results.shape, expected.shape)
        if self.tolerance:
            np.testing.assert_allclose(results, expected, rtol=self.tolerance, atol=self.tolerance)
        else:
            np.testing.assert_array_equal(results, expected)
