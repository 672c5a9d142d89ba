"""Tokens at rest and at the door."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, ParameterError
from apyfal.host.server.policy.tokens import SCOPES, TokenStore, default_state_directory


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "state" / "tokens.json")


def test_created_token_is_accepted_and_its_secret_is_nowhere(store: TokenStore) -> None:
    text = store.create("alice", ["process"])
    token = store.authenticate(text)
    assert token is not None
    assert (token.user, token.scopes, token.expires) == ("alice", ("process",), None)
    secret = text.rpartition(f"{token.id}_")[2]
    assert len(secret) == 43
    for file in store.path.parent.iterdir():
        assert secret not in file.read_text()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert secret not in repr(store.list())


def test_wrong_tokens_are_refused(store: TokenStore) -> None:
    text = store.create("alice")
    other = store.create("bob")
    mixed = text[:17] + other[17:]  # alice's id with bob's secret
    for wrong in ("", "x", text[:-1], text + "x", text.upper(), " " + text, mixed, "apf_" + "0" * 12 + "_" + "A" * 43):
        assert store.authenticate(wrong) is None


def test_expiry(store: TokenStore) -> None:
    text = store.create("alice", lifetime=100)
    assert store.authenticate(text) is not None
    assert store.authenticate(text, now=time.time() + 99) is not None
    assert store.authenticate(text, now=time.time() + 101) is None
    assert store.list()[0].state(time.time() + 101) == "expired"


def test_revocation_counts_at_once_in_every_process(store: TokenStore) -> None:
    text, kept = store.create("alice"), store.create("alice")
    reader = TokenStore(store.path)
    token = reader.authenticate(text)
    assert token is not None
    code = (
        "import sys; from apyfal.host.server.policy.tokens import TokenStore;"
        "TokenStore(sys.argv[1]).revoke(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, store.path, token.id], check=True)
    assert reader.authenticate(text) is None
    assert reader.authenticate(kept) is not None
    first = store.revoke(token.id)
    assert store.revoke(token.id) == first, "revoking again does not change when it was revoked"


def test_unknown_id_is_named_with_the_nearest(store: TokenStore) -> None:
    store.create("alice")
    known = store.list()[0].id
    with pytest.raises(ParameterError, match=f"did you mean '{known}'"):
        store.revoke(known[:-1] + "x")


@pytest.mark.parametrize("user", ["", "a b", "a\nb", "../x", "-a", "a" * 65, "a/b", "\u00e9"])
def test_malformed_users(store: TokenStore, user: str) -> None:
    with pytest.raises(ParameterError, match="user"):
        store.create(user)
    assert not store.path.exists()


def test_scopes_and_lifetimes_are_checked(store: TokenStore) -> None:
    with pytest.raises(ParameterError, match="did you mean 'process'"):
        store.create("alice", ["proces"])
    with pytest.raises(ParameterError, match="needs a scope"):
        store.create("alice", [])
    for lifetime in (0, -1, float("nan")):
        with pytest.raises(ParameterError, match="lifetime"):
            store.create("alice", lifetime=lifetime)
    assert SCOPES == ("process", "storage:read", "storage:write", "admin")


@pytest.mark.parametrize("content", ["", "{", "[1]", "[{}]", '{"a": 1}', '[{"id": "x"}]'])
def test_a_broken_file_admits_nobody(store: TokenStore, content: str) -> None:
    text = store.create("alice")
    store.path.write_text(content)
    with pytest.raises(ConfigurationError, match="token file"):
        store.authenticate(text)


def test_without_a_file_nobody_is_admitted(store: TokenStore) -> None:
    assert store.list() == []
    assert store.authenticate("apf_" + "0" * 12 + "_" + "A" * 43) is None
    text = store.create("alice")
    store.path.unlink()
    assert store.authenticate(text) is None


def test_concurrent_creation_loses_no_token(store: TokenStore) -> None:
    def create() -> None:
        for _ in range(10):
            TokenStore(store.path).create("alice")

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list()) == 40
    assert len(json.loads(store.path.read_text())) == 40
    assert {file.name for file in store.path.parent.iterdir()} == {"tokens.json", "tokens.json.lock"}


def test_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/apyfal:/var/lib/other")
    assert default_state_directory() == Path("/var/lib/apyfal")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_state_directory() == Path("/state/apyfal")
