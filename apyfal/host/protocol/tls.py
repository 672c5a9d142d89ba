"""Certificates of the daemon, and how a client verifies them.

A host without a configured certificate generates a self-signed one, once. No authority has signed it, so a client pins
it: the URL that ``apyfal serve`` prints contains the SHA-256 fingerprint, and the client accepts that certificate only.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from apyfal.exceptions import ConfigurationError, HostError, ParameterError

__all__ = [
    "ensure_certificate",
    "fingerprint_of",
    "parse_fingerprint",
    "pinning_context",
    "server_context",
    "verify_pin",
]

_VALID_DAYS = 3650  # clients replace a pinned certificate by pinning another; an expiry date would not add security


def ensure_certificate(directory: str | os.PathLike[str], names: Iterable[str]) -> tuple[Path, Path]:
    """Return the certificate and key of this host; generate them on first use.

    Parameters
    ----------
    directory
        Directory of ``certificate.pem`` and ``key.pem`` (mode 0600).
    names
        Host names and addresses that the certificate is valid for, besides this machine's name.

    Returns
    -------
    (Path, Path)
        Certificate and private key.
    """
    folder = Path(directory)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not (certificate.exists() and key.exists()):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate_text, key_text = _generate(dict.fromkeys([*names, socket.gethostname(), "localhost"]))
        _write_private(key, key_text)
        _write_private(certificate, certificate_text)
    return certificate, key


def _generate(names: Iterable[str]) -> tuple[bytes, bytes]:
    from cryptography import x509  # slow to import, and used once in the lifetime of a host
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())

    def alternative(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    alternatives = [alternative(name) for name in names if name.isascii()]  # DNSName accepts ASCII only
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "apyfal host")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # allows for clocks that differ
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _write_private(path: Path, text: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def fingerprint_of(certificate: str | os.PathLike[str]) -> str:
    """Return the SHA-256 fingerprint of the first certificate in a PEM file, in hexadecimal.

    Raises
    ------
    ConfigurationError
        The file cannot be read or holds no certificate.
    """
    try:
        text = Path(certificate).read_text("ascii")
        start = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", start) + len("-----END CERTIFICATE-----")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start:end])).hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{os.fspath(certificate)!r} holds no certificate in PEM form ({error})") from error


def server_context(certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> ssl.SSLContext:
    """Return a TLS context for version 1.2 or later. Raises `ConfigurationError` if the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"certificate {os.fspath(certificate)!r} with key {os.fspath(key)!r} cannot be used: {error}"
        ) from error
    return context


def parse_fingerprint(text: str) -> str:
    """Return a fingerprint (``sha256:ab:cd...``, ``sha256=abcd...``, bare hexadecimal) as 64 hexadecimal digits.

    Raises
    ------
    ParameterError
        The text is not a SHA-256 fingerprint.
    """
    digits = re.sub(r"^sha-?256[:=]", "", text.strip().lower()).replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ParameterError(f"fingerprint {text!r}: expected sha256= and 64 hexadecimal digits")
    return digits


def pinning_context() -> ssl.SSLContext:
    """Return a client's TLS context that accepts any certificate: call `verify_pin` on each connection first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # `verify_pin` is more strict than an authority would be
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def verify_pin(connection: ssl.SSLSocket, fingerprint: str) -> None:
    """Raise `HostError` unless the peer of `connection` has the certificate with this fingerprint."""
    certificate = connection.getpeercert(binary_form=True) or b""
    found = hashlib.sha256(certificate).hexdigest()
    if not hmac.compare_digest(found, fingerprint):
        raise HostError(
            f"the host has another certificate than the pinned one: sha256={found}, expected sha256={fingerprint}"
        )
