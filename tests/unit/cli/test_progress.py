from __future__ import annotations

import io
import sys

import pytest

from apyfal.cli.progress import progress_bar


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("x", enabled=False) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_name_bytes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress_bar("s3://lab/[reads]", enabled=True) as progress:
        assert progress is not None
        progress(1 << 20, None)
        progress(3 << 20, 4 << 20)
    text = terminal.getvalue()
    assert "s3://lab/[reads]" in text
    assert "3.0/4.0 MiB" in text
