"""The package's logger, and texts of messages and logs without what may be secret in a URL."""

from __future__ import annotations

import logging
import re
import sys
import threading

__all__ = ["get_logger", "redact", "redact_text", "redact_web_path"]

#: Repetitions are bounded: a text of a million letters, or dashes, is read in a second.
_ANY_URL = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9+._-]{0,63}:/|https?:)[^\s'\"]+", re.ASCII | re.IGNORECASE)
#: A URL, or what was meant to be one: ``https:/host``, ``https:host``.
_LIKE_URL = re.compile(r"([A-Za-z0-9][A-Za-z0-9+._-]+):/*", re.ASCII)
_NESTED = re.compile(r"(?:https?:/+)+", re.IGNORECASE)
_WEB = ("http", "https")
#: Parameters whose values let others in: of signed URLs (AWS, Google, Azure, Alibaba), and what tokens are called.
_SECRETS = re.compile(
    r"(?i)(?<![a-z0-9])((?:x-(?:amz|goog|oss)-)?(?:signature|security-token|credential)|sig"
    r"|[a-z_-]{0,30}(?:token|password|secret)|api[_-]?key|auth|awsaccesskeyid|ossaccesskeyid|googleaccessid)=[^&;#\s]*"
)
#: The same in a text about them, where a quotation mark ends a value.
_SECRETS_QUOTED = re.compile(_SECRETS.pattern.replace("[^&;#\\s]*", "[^&;#\\s'\"]+"))

_LOGGER = logging.getLogger("apyfal")
_LOGGER.addHandler(logging.NullHandler())
_adding = threading.Lock()


class _StdoutHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only, not at run time
    """Writes to what `sys.stdout` is at that time, so that redirection and test capture keep working."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def get_logger(stdout: bool = False) -> logging.Logger:
    """Return the logger that all of apyfal writes to, named ``"apyfal"``.

    Parameters
    ----------
    stdout
        Also print its records, from level INFO, on standard output. Asking twice does not print twice.

    Returns
    -------
    logging.Logger
        Silent until a handler is added, here or by the application.
    """
    if stdout:
        with _adding:
            if not any(isinstance(handler, _StdoutHandler) for handler in _LOGGER.handlers):
                handler = _StdoutHandler(sys.stdout)
                handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
                _LOGGER.addHandler(handler)
                if _LOGGER.level == logging.NOTSET:
                    _LOGGER.setLevel(logging.INFO)
    return _LOGGER


def redact(url: str) -> str:
    """Remove what may be secret from a URL before it is shown: users, passwords and signatures.

    Of a web URL, no value of the query or the fragment is left. In other URLs ``?`` and ``#`` may be part of a name, so
    that only the values of parameters that are named like secrets go.
    """
    match = _LIKE_URL.match(url)
    if match is None:
        return url
    rest = url[match.end() :]
    if match[1].lower() in _WEB:
        shown = redact_web_path(rest)
    else:  # "name@" may begin a bucket's or container's name, a password does not
        secret = ":" in rest.partition("/")[0]
        shown = _SECRETS.sub(r"\1=...", _without_user(rest) if secret else rest)
    return url[: match.end()] + shown


def redact_web_path(path: str) -> str:
    """Remove what may be secret from a web address without its scheme; see `redact`."""
    nested = _NESTED.match(path)  # a whole URL where its host was expected
    before = "" if nested is None else nested.group()
    path, hash_sign, _ = path.partition("#")
    path, question_mark, _ = path.partition("?")
    shown = _SECRETS.sub(r"\1=...", _without_user(path.removeprefix(before)))
    return before + shown + ("?..." if question_mark else "") + ("#..." if hash_sign else "")


def _without_user(text: str) -> str:
    """Remove ``user:password@`` from what follows ``scheme://``. The password may hold ``/``, unencoded by mistake."""
    authority, slash, path = text.partition("/")
    if "@" in authority:
        return authority.rpartition("@")[2] + slash + path
    host, colon, port = authority.rpartition(":")
    if not colon or port.isdigit() or not port or authority.endswith("]"):
        return text
    return text.rpartition("@")[2] if "@" in path else f"{host}:...{slash}{path}"


def redact_text(text: str) -> str:
    """Remove what may be secret from every URL in a text, as `redact` does, and from what is left of broken ones."""
    if ":" not in text and "=" not in text:
        return text
    return _SECRETS_QUOTED.sub(r"\1=...", _ANY_URL.sub(lambda found: redact(found.group()), text))
