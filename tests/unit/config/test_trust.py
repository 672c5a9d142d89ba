"""The user's word for a configuration: which files can have it, how it is kept, and what takes it away."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from apyfal.config import trust
from apyfal.config.configuration import Configuration
from apyfal.config.trust import MAX_BYTES, TrustStore, content_of, unsafe
from apyfal.exceptions import ConfigurationError

TEXT = "[accelerator]\ndriver = ./x.so\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    (tmp_path / "home").mkdir()
    here.mkdir(mode=0o755)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    path = here / "accelerator.conf"
    path.write_text(TEXT)
    path.chmod(0o644)
    return path


def trusted() -> bool:
    return Configuration.load().distrust is None


def test_trust_holds_for_one_file_and_one_content(file: Path) -> None:
    assert not trusted()
    digest = TrustStore().trust(file)
    assert len(digest) == 64
    assert trusted()
    assert Configuration.load().section("accelerator")["driver"] == "./x.so"
    file.write_text(TEXT + " ")
    assert not trusted()
    file.write_text(TEXT)
    assert trusted()
    moved = file.parent / "sub"
    moved.mkdir()
    os.rename(file, moved / file.name)
    os.chdir(moved)
    assert not trusted()
    os.chdir(file.parent)
    os.rename(moved / file.name, file)
    assert TrustStore().untrust("accelerator.conf")
    assert not TrustStore().untrust("accelerator.conf")
    assert not trusted()


def test_the_store_is_private_and_whole(file: Path) -> None:
    store = TrustStore()
    store.trust(file)
    assert store.path == Path.home() / ".local/state/apyfal/trusted.json"
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert sorted(os.listdir(store.path.parent)) == ["trusted.json", "trusted.json.lock"]


def test_many_at_once_lose_nothing(file: Path) -> None:
    files = []
    for number in range(16):
        folder = file.parent / f"d{number}"
        folder.mkdir()
        (folder / "accelerator.conf").write_text(TEXT)
        files.append(folder / "accelerator.conf")
    threads = [threading.Thread(target=TrustStore().trust, args=(one,)) for one in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in files:
        os.chdir(one.parent)
        assert trusted()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', "{" * 50_000, '{"files": {"a": 1}}', "\x00"])
def test_a_store_that_cannot_be_read_trusts_nothing(file: Path, content: str) -> None:
    TrustStore().trust(file)
    TrustStore().path.write_text(content)
    assert not trusted()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_store_that_others_can_write_trusts_nothing(file: Path, mode: int) -> None:
    TrustStore().trust(file)
    TrustStore().path.chmod(mode)
    assert not trusted()
    with pytest.raises(ConfigurationError, match="mode 0600"):
        TrustStore().trust(file)


def test_a_relative_state_directory_is_ignored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert TrustStore().path.is_relative_to(Path.home())
    monkeypatch.setenv("XDG_STATE_HOME", str(file.parent.parent / "state"))
    assert TrustStore().path == file.parent.parent / "state/apyfal/trusted.json"


# -- files that cannot be trusted -------------------------------------------------------------------------------------
def _directory_mode(mode: int) -> Callable[[Path], object]:
    return lambda file: file.parent.chmod(mode)


def _above(file: Path) -> None:
    file.parent.parent.chmod(0o777)


def _link_into_open_directory(file: Path) -> None:
    place = file.parent.parent / "open"
    place.mkdir()
    place.chmod(0o777)
    os.rename(file, place / "real.conf")
    file.symlink_to(place / "real.conf")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.chmod(0o646), "others can write it"),
        (lambda file: file.chmod(0o666), "others can write it"),
        (_directory_mode(0o777), "others can write the directory"),
        (_directory_mode(0o1777), "others can write the directory"),
        (_directory_mode(0o757), "others can write the directory"),
        (_above, "others can write the directory"),
        (_link_into_open_directory, "others can write the directory"),
    ],
    ids=["file-646", "file-666", "directory-777", "directory-1777", "directory-757", "above-777", "link"],
)
def test_what_others_can_write_is_never_trusted(file: Path, change: Callable[[Path], object], reason: str) -> None:
    TrustStore().trust(file)
    change(file)
    assert reason in (Configuration.load().distrust or "")
    with pytest.raises(ConfigurationError, match=reason):
        TrustStore().trust(file)
    with pytest.raises(ConfigurationError, match=f"cannot be trusted: {reason}.*apyfal config trust"):
        Configuration.load().section("accelerator").text("driver", None)


@root_only
@pytest.mark.parametrize("who", ["file", "directory", "above"])
def test_what_belongs_to_another_user_is_never_trusted(file: Path, who: str) -> None:
    TrustStore().trust(file)
    os.chown({"file": file, "directory": file.parent, "above": file.parent.parent}[who], 12345, 12345)
    assert "belongs to uid 12345" in (Configuration.load().distrust or "")
    with pytest.raises(ConfigurationError, match="belongs to uid 12345"):
        TrustStore().trust(file)


@root_only
@pytest.mark.parametrize(("gid", "private"), [(0, True), (12345, False)])
def test_a_group_of_the_users_own_is_not_others(file: Path, gid: int, private: bool) -> None:
    os.chown(file, 0, gid)
    file.chmod(0o664)
    assert (unsafe(file, file.stat()) is None) == private


def test_a_list_of_more_users_counts_as_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o664)
    monkeypatch.setattr(trust, "_is_private_group", lambda status: True)
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"])
    assert "others can write it" in (unsafe(file, file.stat()) or "")


# -- files that are none ----------------------------------------------------------------------------------------------
def test_a_found_file_is_small_and_regular(file: Path) -> None:
    file.write_bytes(b";" * (MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match=f"at most {MAX_BYTES} bytes"):
        Configuration.load()
    file.unlink()
    os.mkfifo(file)
    assert Configuration.load().file is None
    with pytest.raises(ConfigurationError, match="not a regular file"):
        content_of(file)  # as when it is exchanged in between; it does not hang
    with pytest.raises(ConfigurationError, match="not a regular file"):
        TrustStore().trust(file)
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        TrustStore().trust(file)


def test_what_the_user_names_is_the_users_word(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o666)
    assert Configuration.load(file).section("accelerator")["driver"] == "./x.so"
    monkeypatch.setenv("APYFAL_CONFIG_FILE", str(file))
    assert trusted()
    monkeypatch.delenv("APYFAL_CONFIG_FILE")
    assert not trusted()
    monkeypatch.setenv("HOME", str(file.parent))  # in the home directory, it is the user's own file
    assert trusted()


def test_a_directory_with_control_characters_in_its_name(file: Path) -> None:
    evil = file.parent / "a\x1b[2Jb"
    evil.mkdir()
    (evil / "accelerator.conf").write_text(TEXT)
    os.chdir(evil)
    with pytest.raises(ConfigurationError) as error:
        Configuration.load().section("accelerator").text("driver", None)
    assert str(error.value).isprintable()


def test_importing_reads_nothing(file: Path) -> None:
    code = """
import os, sys
seen = []
sys.addaudithook(lambda event, given: seen.append(str(given[0])) if event == "open" else None)
import apyfal, apyfal.storage, apyfal.cli, apyfal.config.configuration
print([name for name in seen if "accelerator.conf" in name or "trusted.json" in name])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=file.parent, check=True)
    assert done.stdout.strip() == "[]"
