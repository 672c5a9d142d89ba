"""Python, the libraries that extras bring, and the TLS library."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata

from apyfal.doctor.finding import Finding
from apyfal.exceptions import ParameterError

__all__ = ["check_extras", "check_python", "check_tls"]

#: What each extra is for. The others (``test``, ``dev``) are for those who work on apyfal itself.
_EXTRAS = {
    "s3": "faster checksums of S3 objects",
    "swift": "faster checksums of Swift objects",
    "gs": "Google credentials, faster checksums",
    "az": "Microsoft credentials, faster checksums",
    "fsspec": "mounts of fsspec's filesystems, and apyfal as one of them",
    "upath": "paths of universal_pathlib",
    "host": "sharing this machine's cards: apyfal serve",
    "rtl": "simulated cards: driver = rtl",
    "dask": "clusters of Dask",
    "ray": "clusters of Ray",
}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['\"]([a-z0-9_-]+)['\"]")


def check_python() -> Iterator[Finding]:
    """Say what runs here."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("apyfal", "numpy"))
    yield Finding(
        "system", "ok", f"{versions}, Python {platform.python_version()} on {platform.machine()}, {platform.platform()}"
    )


def check_extras() -> Iterator[Finding]:
    """Name the extras whose libraries are not all installed."""
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("apyfal") or ():
        found = _REQUIREMENT.match(requirement)
        if found is None or found[2] not in _EXTRAS:
            continue
        try:
            metadata.version(found[1])
        except metadata.PackageNotFoundError:
            missing.setdefault(found[2], []).append(found[1])
    for extra, libraries in missing.items():
        yield Finding(
            "system",
            "note",
            f"extra {extra!r} ({_EXTRAS[extra]}) is not complete: no {', '.join(libraries)}",
            f"pip install 'apyfal[{extra}]'",
        )
    if not missing:
        yield Finding("system", "ok", "the libraries of all extras are installed")


def check_tls() -> Iterator[Finding]:
    """Say which TLS library Python has, and whether it trusts any authority."""
    try:
        import ssl

        from apyfal.storage.http.tls import client_context
    except ImportError as error:
        yield Finding(
            "system",
            "problem",
            f"Python cannot use TLS ({error}): https, cloud storage and remote hosts do not work",
            "install OpenSSL's library (apt install libssl3), or a Python that was built with it",
        )
        return
    try:
        context = client_context()
    except ParameterError as error:
        yield Finding("system", "problem", str(error), "the path of a bundle that exists, or no such variable")
        return
    paths = ssl.get_default_verify_paths()
    if context.cert_store_stats()["x509_ca"] or paths.capath:
        yield Finding("system", "ok", f"TLS by {ssl.OPENSSL_VERSION}")
    else:
        yield Finding(
            "system",
            "problem",
            f"{ssl.OPENSSL_VERSION} knows no certificate authority: every https address is refused",
            "apt install ca-certificates, or SSL_CERT_FILE=/path/to/bundle.pem",
        )
