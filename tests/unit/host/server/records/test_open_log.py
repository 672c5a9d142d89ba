"""A log that may have records of jobs is used, or the daemon does not start."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from apyfal.exceptions import ConfigurationError
from apyfal.host.server.records.mapped_log import MappedLog, open_log


def refused(number: int) -> Any:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("name", "number"),
    [("open", errno.EMFILE), ("open", errno.EACCES), ("posix_fallocate", errno.EIO), ("posix_fallocate", errno.ENOSPC)],
)
def test_a_log_that_is_there_and_cannot_be_used_stops_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    path = tmp_path / "jobs.log"
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "apyfal"):
        patch.setattr(os, name, refused(number))
        assert open_log(path) is None, "there was none"
    assert os.strerror(number) in caplog.text
    MappedLog(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refused(number))
        with pytest.raises(ConfigurationError, match=os.strerror(number)) as caught:
            open_log(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_log_that_another_daemon_has_stops_the_daemon(tmp_path: Path) -> None:
    other = MappedLog(tmp_path / "jobs.log")
    with pytest.raises(ConfigurationError, match="end the other daemon"):
        open_log(tmp_path / "jobs.log")
    other.close()
    found = open_log(tmp_path / "jobs.log")
    assert found is not None
    found.close()
