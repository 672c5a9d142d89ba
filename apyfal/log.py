"""The package's logger."""

from __future__ import annotations

import logging
import sys

__all__ = ["get_logger"]

_LOGGER = logging.getLogger("apyfal")
_LOGGER.addHandler(logging.NullHandler())


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
    if stdout and not any(isinstance(handler, _StdoutHandler) for handler in _LOGGER.handlers):
        handler = _StdoutHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        _LOGGER.addHandler(handler)
        if _LOGGER.level == logging.NOTSET:
            _LOGGER.setLevel(logging.INFO)
    return _LOGGER
