"""The audit log: one line a decision, whatever a client sends."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from apyfal.host.protocol.audit import AuditLog, without_secrets

SECRET = "apf_0123456789ab_" + "S" * 43


@pytest.mark.parametrize(
    "hostile",
    [
        "a\nb",
        "a\r\nb",
        'x"}\n{"decision": "allowed"}',
        "\x1b[2Jcleared",
        "\u2028\u2029\x85",
        "\0",
        "\ud800",
        "\u202egnp.exe",
    ],
)
def test_no_second_line_can_be_injected(tmp_path: Path, hostile: str) -> None:
    log = AuditLog(tmp_path / "audit.log")
    log.write("refused", user="alice", path=hostile, absent=None, status=403)
    log.close()
    text = (tmp_path / "audit.log").read_bytes()
    assert text.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in text[:-1])
    record = json.loads(text)
    assert record["decision"] == "refused"
    assert record["status"] == 403
    assert "absent" not in record


def test_values_are_cut_and_hold_no_secrets(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    log.write("x", long="y" * 10_000, url="https://u:pw@h/k?X-Amz-Signature=CANARY", header=f"Bearer {SECRET}")
    log.close()
    text = (tmp_path / "audit.log").read_text()
    assert len(text) < 1000
    for secret in ("CANARY", "pw@", "S" * 43):
        assert secret not in text


def test_file_is_private_and_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    log.write("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.rename(path, tmp_path / "audit.log.1")
    log.write("two")
    path.unlink()
    log.write("three")
    log.write("four")
    log.close()
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["three", "four"]
    assert json.loads((tmp_path / "audit.log.1").read_text())["decision"] == "one"


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    AuditLog().write("started", port=1)
    assert json.loads(capsys.readouterr().err)["port"] == 1


def test_without_secrets_keeps_the_rest() -> None:
    text = without_secrets(f"GET https://user:pw@host/a?sig=1 with {SECRET}, then https://h/b")
    assert text == "GET https://...@host/a?... with apf_..., then https://h/b"


def test_a_line_that_was_refused_does_not_come_later(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.symlink_to("/dev/full")
    log = AuditLog(path)
    with pytest.raises(OSError, match="No space left"):
        log.write("first")
    path.unlink()
    log.write("second")
    log.close()
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["second"]
