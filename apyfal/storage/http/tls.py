"""TLS of connections to web servers and stores: which authorities are trusted, and which library encrypts.

The context of Python's `ssl` decides what is accepted. OpenSSL is used directly if it has the same major version as
Python's: this costs less for each record, and the native transport can use it. Its context gets the values of Python's
context. Otherwise (another OpenSSL, an `ssl` that another package has replaced, a log of keys), Python's sockets are
used.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
from functools import lru_cache

from apyfal._core import tls as native
from apyfal.exceptions import AcceleratorException, ParameterError

__all__ = ["client_context", "is_native", "secured"]

_LOG = logging.getLogger(__name__)

#: Variables that name a bundle of certificate authorities to trust besides the system's; the first that is set counts.
_CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: Names of the certificates in a directory, as ``openssl rehash`` gives them: OpenSSL looks at no others.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
#: A directory without authorities: a context made with it has all other settings, but trusts nobody.
_NOWHERE = os.devnull
_Trusted = tuple[tuple[str, str], ...]


def secured(
    sock: socket.socket, host: str, port: int, verify: bool | str, timeout: float
) -> ssl.SSLSocket | native.Session:
    """Begin TLS on a connected socket.

    Parameters
    ----------
    sock
        The socket; owned by the result. If this raises, the caller closes it.
    host, port
        The server whose certificate is expected.
    verify
        As `apyfal.storage.http.pool.ConnectionPool` takes it.
    timeout
        Seconds for the handshake.

    Returns
    -------
    ssl.SSLSocket or apyfal._core.tls.Session
        Both have the methods that `apyfal.storage.http.connection` uses, and raise the same errors.

    Raises
    ------
    OSError
        The handshake failed, or the certificate is not accepted: the errors of `ssl`.
    ParameterError
        A bundle of certificates cannot be read.
    """
    trusted = _trusted_by_environment() if verify is True else ()
    sock.settimeout(timeout)
    context = _native_context(verify, trusted)
    if context is None:
        return _context(verify, trusted).wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False)
    session = native.Session(context, sock, host.encode("idna").decode("ascii"), port, timeout)
    session.handshake()
    return session


def is_native(verify: bool | str) -> bool:
    """Return whether `secured` uses OpenSSL directly."""
    return _native_context(verify, _trusted_by_environment() if verify is True else ()) is not None


def client_context() -> ssl.SSLContext:
    """Return the context of Python's `ssl` by which servers are accepted if no bundle is given: with ``verify=True``.

    Not to be changed: others have the same.

    Raises
    ------
    ParameterError
        A bundle that the environment names cannot be read.
    """
    return _context(True, _trusted_by_environment())


# -- Python's context -------------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def _context(verify: bool | str, trusted: _Trusted) -> ssl.SSLContext:
    """Make a client context; loading the authorities takes some 20 ms, so contexts are kept.

    Parameters
    ----------
    verify
        As `secured` takes it.
    trusted
        Of `_trusted_by_environment`, used with ``verify=True``.

    Raises
    ------
    ParameterError
        A bundle of certificates cannot be read.
    """
    if verify is False:
        context = _accepting_any()
    elif verify is True:
        context = ssl.create_default_context()  # the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR
        for name, value in trusted:
            _load_authorities(context, value, name)
        if not trusted and (bundle := _certifi()) is not None:
            context.load_verify_locations(bundle)
    else:
        context = ssl.create_default_context(capath=_NOWHERE)  # without a place, it would trust the system's
        _load_authorities(context, verify, "verify")
    return _hardened(context)


def _accepting_any() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _hardened(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set the options that all contexts have, and return the context."""
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # without this, an attacker could end a response early without close_notify
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trusted_by_environment() -> _Trusted:
    """Return the variables that name certificate authorities, with their values."""
    found = [(name, os.environ.get(name, "")) for name in _CA_VARIABLES]
    bundle = next(((name, value) for name, value in found if value), None)
    own = [(name, os.environ.get(name, "")) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    return (*((bundle,) if bundle else ()), *((name, value) for name, value in own if value))


def _load_authorities(context: ssl.SSLContext, path: str, name: str) -> None:
    """Trust the authorities in a file, or in directories of files that are named by their hash."""
    try:
        for file, folder in _locations(path, name):
            context.load_verify_locations(cafile=file, capath=folder)
    except ssl.SSLError as error:
        raise _no_bundle(name, path, "it has no certificate" if error.reason else "it is damaged") from None
    except OSError as error:
        raise _no_bundle(name, path, error.strerror or str(error)) from None


def _locations(path: str, name: str) -> list[tuple[str | None, str | None]]:
    """Return the files and directories that a variable or `verify` names, as pairs of which one is ``None``.

    Raises
    ------
    ParameterError
        It names directories in which OpenSSL would find nothing, and say nothing.
    """
    if name == "SSL_CERT_DIR":  # which lists directories as PATH does, and may name some that are not there
        folders = [folder for folder in path.split(os.pathsep) if os.path.isdir(folder)]
        if not folders:
            raise _no_bundle(name, path, "there is no such directory")
        return [(None, folder) for folder in folders]
    if not os.path.isdir(path):
        return [(path, None)]
    if not any(_HASHED.fullmatch(file) for file in os.listdir(path)):
        raise _no_bundle(name, path, "no file in this directory has the name of its hash")
    return [(None, path)]


def _no_bundle(name: str, path: str, why: str) -> ParameterError:
    others = "" if name == "SSL_CERT_DIR" else "a file in PEM format, or "
    if name == "verify":
        others = f"true, false, {others}"
    return ParameterError(
        f"{name}={path!r} is not a bundle of certificates: {why}; expected {others}a directory of files in PEM format,"
        " after 'openssl rehash'"
    )


def _certifi() -> str | None:
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()


# -- OpenSSL's own ----------------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def _native_context(verify: bool | str, trusted: _Trusted) -> native.Context | None:
    """Make a native context like `_context`; ``None``: use Python's, which also reports errors."""
    try:
        template = _hardened(_accepting_any() if verify is False else ssl.create_default_context(capath=_NOWHERE))
        if type(template).__module__ != "ssl" or template.keylog_filename:
            return None
        version, text = native.library()
        if version >> 28 != ssl.OPENSSL_VERSION_INFO[0]:  # 1.1.1 or 3: settings may mean something else
            _LOG.debug("TLS by Python's %s: the system has %s", ssl.OPENSSL_VERSION, text)
            return None
        protocols = {str(one["name"]): one["protocol"] for one in template.get_ciphers()}
        context = native.Context(
            options=int(template.options),
            verify_flags=int(template.verify_flags),
            minimum=max(0, int(template.minimum_version)),
            maximum=max(0, int(template.maximum_version)),
            level=template.security_level,
            verify=template.verify_mode is not ssl.CERT_NONE,
            ciphers=":".join(name for name, protocol in protocols.items() if protocol != "TLSv1.3") or None,
            suites=":".join(name for name, protocol in protocols.items() if protocol == "TLSv1.3") or None,
        )
        for file, folder in dict.fromkeys(_authorities(verify, trusted)):
            context.trust(file, folder)
    except (AcceleratorException, OSError) as error:
        _LOG.debug("TLS by Python's %s: %s", ssl.OPENSSL_VERSION, error)
        return None
    _LOG.debug("TLS by %s", text)
    return context


def _authorities(verify: bool | str, trusted: _Trusted) -> list[tuple[str | None, str | None]]:
    """Return the files and the directories that `_context` trusts."""
    if verify is False:
        return []
    if verify is not True:
        return _locations(verify, "verify")
    paths = ssl.get_default_verify_paths()  # with SSL_CERT_FILE and SSL_CERT_DIR
    found = [*([(paths.cafile, None)] if paths.cafile else []), *([(None, paths.capath)] if paths.capath else [])]
    for name, value in trusted:
        found += _locations(value, name)
    if not trusted and (bundle := _certifi()) is not None:
        found.append((bundle, None))
    return found
