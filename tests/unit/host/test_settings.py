"""The operator's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError
from apyfal.host.settings import HostSettings, default_socket


def test_values_from_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "accelerator.conf"
    config.write_text(
        "[security]\nauthorized_host_dirs = ~/shared\n    /data/fpga\nprivate_endpoints = minio.lab:9000\n"
        "max_body = 1GiB\nworkers = 2\nstop_timeout = 1min\naudit_log = ~/audit.log\nstate_directory = ~/state\n"
    )
    settings = HostSettings.load(config)
    assert settings.authorized_host_dirs == (str(tmp_path / "shared"), "/data/fpga")
    assert settings.private_endpoints == ("minio.lab:9000",)
    assert (settings.max_body, settings.workers, settings.stop_timeout) == (1 << 30, 2, 60.0)
    assert settings.audit_log == tmp_path / "audit.log"
    assert settings.state_directory == tmp_path / "state"
    assert HostSettings.load(config, workers=7).workers == 7


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    settings = HostSettings.load({})
    assert settings.authorized_host_dirs is None
    assert settings.private_endpoints == ()
    assert settings.state_directory == Path("/state")
    assert HostSettings.load({"security": {"memory_limit": "1MiB"}}).spool_above == 1 << 20


@pytest.mark.parametrize(("key", "value"), [("workers", "0"), ("max_body", "much"), ("stall_timeout", "x")])
def test_mistakes_name_the_key(key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        HostSettings.load({"security": {key: value}})


def test_socket_goes_where_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert default_socket() == Path("/run/user/1/apyfal/host.sock")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/apyfal")
    assert default_socket() == Path("/run/apyfal/host.sock")
