"""Certificates made, loaded and pinned."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, HostError, ParameterError
from apyfal.host.protocol import tls

pytest.importorskip("cryptography", reason="the extra 'host' is not installed")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    """Connect `client` to `server` over a socket pair; the client's side."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as accepted:
                accepted.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        return client.wrap_socket(ours, server_hostname=name)
    except BaseException:
        ours.close()
        thread.join()
        raise


def test_generated_certificate_is_kept_private_and_pinned(tmp_path: Path) -> None:
    certificate, key = tls.ensure_certificate(tmp_path / "tls", ["10.1.2.3", "card.lab", "\u00e9"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = tls.ensure_certificate(tmp_path / "tls", ["other"])
    assert again == (certificate, key)
    fingerprint = tls.fingerprint_of(certificate)
    server = tls.server_context(certificate, key)
    with handshake(server, tls.pinning_context(), "anything") as connection:
        tls.verify_pin(connection, fingerprint)
        with pytest.raises(HostError, match="another certificate"):
            tls.verify_pin(connection, "0" * 64)
    with handshake(server, ssl.create_default_context(cafile=certificate), "card.lab") as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
    with handshake(server, ssl.create_default_context(cafile=certificate), "10.1.2.3"):
        pass


def test_wrong_name_and_unknown_authority_are_refused(tmp_path: Path) -> None:
    certificate, key = tls.ensure_certificate(tmp_path, ["card.lab"])
    server = tls.server_context(certificate, key)
    for context, name in (
        (ssl.create_default_context(cafile=certificate), "evil.lab"),
        (ssl.create_default_context(), "card.lab"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, context, name)


@pytest.mark.parametrize("prefix", ["sha256:", "sha256=", "SHA-256:", ""])
def test_fingerprints_in_every_usual_form(prefix: str) -> None:
    digits = "ab" * 32
    assert tls.parse_fingerprint(prefix + digits) == digits
    assert tls.parse_fingerprint(prefix + ":".join(["AB"] * 32)) == digits


@pytest.mark.parametrize("text", ["", "sha256:", "ab" * 31, "md5:" + "ab" * 32, "zz" * 32])
def test_malformed_fingerprints(text: str) -> None:
    with pytest.raises(ParameterError, match="64 hexadecimal digits"):
        tls.parse_fingerprint(text)


def test_unusable_files_are_configuration_errors(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        tls.server_context(tmp_path / "x", tmp_path / "x")
    for name in ("x", "missing"):
        with pytest.raises(ConfigurationError, match="holds no certificate"):
            tls.fingerprint_of(tmp_path / name)
