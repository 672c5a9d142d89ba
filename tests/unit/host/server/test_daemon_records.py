"""The daemon does not go on without records that it has, and goes on when they cannot be tidied up."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from apyfal.exceptions import ConfigurationError
from apyfal.host.server import daemon
from apyfal.host.server.records.mapped_log import MappedLog


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
        assert daemon._log_of(path) is None, "there was none"
    assert os.strerror(number) in caplog.text
    MappedLog(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refused(number))
        with pytest.raises(ConfigurationError, match=os.strerror(number)) as caught:
            daemon._log_of(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_log_that_another_daemon_has_stops_the_daemon(tmp_path: Path) -> None:
    other = MappedLog(tmp_path / "jobs.log")
    with pytest.raises(ConfigurationError, match="end the other daemon"):
        daemon._log_of(tmp_path / "jobs.log")
    other.close()
    found = daemon._log_of(tmp_path / "jobs.log")
    assert found is not None
    found.close()
