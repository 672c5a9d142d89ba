"""One daemon for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host.support.daemon import RunningDaemon, running


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("daemon")) as started:
        yield started
