"""What the C tests compile, kept for all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from c.building import VARIANTS, Variant
from servers.certificates import issue


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Variant]:
    """Give the compiled variant of a name of `VARIANTS`."""
    made: dict[str, Variant] = {}

    def give(name: str) -> Variant:
        if name not in made:
            made[name] = Variant(VARIANTS[name], tmp_path_factory.mktemp(name))
        return made[name]

    return give


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which C programs find a certificate for servers of TLS."""
    folder = tmp_path_factory.mktemp("certificate")
    issue(folder, "server", ["127.0.0.1"])
    return {"APYFAL_TEST_TLS": str(folder)}
