"""Local patterns that meet a directory which cannot be listed: an error, and not fewer names."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied
from apyfal.storage.mounting import table


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Give a directory with ``open/x`` and ``shut/x``, the second of which the process may not look into."""
    for name in ("open", "shut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"1")
    (tmp_path / "shut").chmod(0)
    above = [folder for folder in (tmp_path, *tmp_path.parents) if folder.stat().st_uid == os.geteuid()]
    modes = {folder: folder.stat().st_mode for folder in above if str(folder) != "/"}
    with contextlib.ExitStack() as stack:
        stack.callback((tmp_path / "shut").chmod, 0o755)
        if os.geteuid() == 0:  # who may look into all directories
            for folder, mode in modes.items():
                stack.callback(folder.chmod, mode & 0o7777)
                folder.chmod(mode & 0o7777 | 0o055)
            stack.callback(os.seteuid, 0)
            os.seteuid(65534)
        yield tmp_path


@pytest.mark.parametrize("pattern", ["**", "**/x", "**/", "*/x", "shut/*", "*/**"])
def test_what_cannot_be_listed_is_an_error(closed: Path, pattern: str) -> None:
    with pytest.raises(AccessDenied, match=r"cannot list .*shut/': permission denied"):
        storage.glob(f"{closed}/{pattern}")


@pytest.mark.parametrize("pattern", ["**", "**/x", "*/x"])
def test_an_error_leaves_the_mount_to_others(closed: Path, pattern: str) -> None:
    storage.mount("shut", provider="file", root=str(closed), config={})
    with pytest.raises(AccessDenied) as kept:
        storage.glob(f"shut://{pattern}")
    table.table.unmount("shut", timeout=0.1)  # also while the error, with all that its traceback holds, is there
    assert kept.value.errno == errno.EACCES


@pytest.mark.parametrize("pattern", ["open/*", "open/**", "o*/x", "*"])
def test_what_is_not_looked_into_does_not_matter(closed: Path, pattern: str) -> None:
    assert storage.glob(f"{closed}/{pattern}")


@pytest.mark.parametrize("pattern", ["missing/*", "missing/**/x", "open/x/*"])
def test_what_is_not_there_matches_nothing(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/x").write_bytes(b"1")
    assert storage.glob(f"{tmp_path}/{pattern}") == []
