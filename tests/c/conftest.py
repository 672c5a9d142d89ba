"""What the C tests compile, kept for all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from c.building import VARIANTS, Variant


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Variant]:
    """Give the compiled variant of a name of `VARIANTS`."""
    made: dict[str, Variant] = {}

    def give(name: str) -> Variant:
        if name not in made:
            made[name] = Variant(VARIANTS[name], tmp_path_factory.mktemp(name))
        return made[name]

    return give
