from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from apyfal.log import get_logger


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("apyfal")
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_the_logger_is_silent_by_default(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    logger.propagate, before = False, logger.propagate
    try:
        get_logger().error("nobody listens")
    finally:
        logger.propagate = before
    assert get_logger() is logger
    assert capfd.readouterr() == ("", "")


def test_stdout_prints_each_record_once(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    get_logger(stdout=True)
    get_logger(stdout=True).info("hello")
    get_logger().debug("too much detail")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("INFO hello")
