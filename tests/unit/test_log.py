from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import apyfal
from apyfal import log
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


def test_threads_that_ask_at_once_print_once(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log._StdoutHandler, "setFormatter", lambda handler, formatter: time.sleep(0.05))
    threads = [threading.Thread(target=get_logger, args=(True,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(handler, log._StdoutHandler) for handler in logger.handlers) == 1


def test_jobs_say_what_they_do_and_no_secret(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.DEBUG, "apyfal"):
        with apyfal.Accelerator("loopback") as accelerator:
            accelerator.process(b"hush-hush")
        with apyfal.AcceleratorPoolExecutor("loopback", emulator={"devices": 2}) as pool:
            pool._accelerators[0]._context.device.control("lose_device", 1)
            list(pool.process_map([b"hush-hush"] * 50))
    assert "opened 'software card 0' of driver emulator for accelerator 'loopback'" in caplog.text
    assert "loopback: 9 bytes in, 9 bytes out" in caplog.text
    assert "closed accelerator 'loopback'" in caplog.text
    if pool.statistics[0].error is not None:
        assert "emulator:0 is taken out of the pool: DeviceLost" in caplog.text
        assert {r.levelname for r in caplog.records if "taken out" in r.message} == {"WARNING"}
    assert "hush" not in caplog.text


def test_a_job_makes_no_record_if_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Logger, "makeRecord", lambda *arguments, **keywords: pytest.fail("a record"))
    with apyfal.Accelerator("loopback") as accelerator:
        assert accelerator.process(b"abc").tobytes() == b"abc"
