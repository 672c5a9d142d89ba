"""The audit log: one line of JSON for each decision, which no client can forge or break.

Values that a client can influence are escaped (JSON, ASCII only), limited in length, and stripped of secrets. The file
is opened again after it was renamed or removed, so that ``logrotate`` needs no signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from typing import TextIO

__all__ = ["AuditLog", "without_secrets"]

_MAX_VALUE = 512
_TOKEN = re.compile(r"apf_[0-9a-f]{0,12}_[A-Za-z0-9_-]*")
_USERINFO = re.compile(r"(//)[^/\s@]*@")
_QUERY = re.compile(r"(://[^\s?\"']*)\?[^\s\"']*")


def without_secrets(text: str) -> str:
    """Return `text` without tokens, passwords in URLs, and queries of URLs, which hold signatures."""
    text = _TOKEN.sub("apf_...", text)
    text = _USERINFO.sub(r"\1...@", text)
    return _QUERY.sub(r"\1?...", text)


class AuditLog:
    """Writes decisions to a file or to standard error. Usable from any thread.

    Parameters
    ----------
    path
        The file, created with mode 0600; ``None``: standard error, which systemd's journal records.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else os.fspath(path)
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._identity: tuple[int, int] | None = None

    def write(self, decision: str, **fields: object) -> None:
        """Write one line: the time, `decision` and `fields`. Fields that are ``None`` are left out.

        Raises
        ------
        OSError
            The line cannot be written, to a full disk for example. The next one is tried anew.
        """
        record: dict[str, object] = {"time": round(time.time(), 3), "decision": decision}
        for name, value in fields.items():
            if value is not None:
                record[name] = value if isinstance(value, bool | int | float) else _shortened(str(value))
        line = json.dumps(record, ensure_ascii=True) + "\n"
        with self._lock:
            file = self._current()
            try:
                file.write(line)
                file.flush()
            except OSError:
                self._forget_file()  # what it holds unwritten would come later, after what others then wrote
                raise

    def close(self) -> None:
        """Close the file. The next `write` opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _forget_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _current(self) -> TextIO:
        if self._path is None:
            return sys.stderr
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self._path)
                if (status.st_dev, status.st_ino) == self._identity:
                    return self._file
            self._file.close()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="ascii")
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        return self._file


def _shortened(text: str) -> str:
    text = without_secrets(text)
    return text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "..."
