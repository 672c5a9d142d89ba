"""A process in which a driver's cases run: vendors' libraries read their environment when they are loaded, stay loaded,
and may crash or hang. A case is a function of a module under ``tests/``, called by name.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import apyfal

__all__ = ["CaseFailed", "Worker"]

TESTS = Path(__file__).parents[2]


class CaseFailed(AssertionError):
    """A case raised in the worker; the message is its traceback there."""


class Worker:
    """One such process, started again after a case that broke it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, **environment}
        package = str(Path(apyfal.__file__).parents[1])  # the build under test, wherever it is
        paths = [str(TESTS), package, os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, module: str, function: str, *arguments: object, timeout: float = 60) -> None:
        """Run ``module.function(*arguments)`` there; `CaseFailed` with its traceback, or what became of the process."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "drivers.support.worker"],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._process
        assert process.stdin is not None  # they were asked for
        assert process.stdout is not None
        _send(process.stdin, (module, function, arguments))
        ready, _, _ = select.select([process.stdout], [], [], timeout)
        answer = _receive(process.stdout) if ready else f"no answer in {timeout} s"
        if answer is None or not ready:
            self.close()
            raise CaseFailed(answer or f"{function} ended its process: {process.returncode}")
        if answer:
            raise CaseFailed(answer)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _send(stream: BinaryIO | Any, message: object) -> None:
    content = pickle.dumps(message)
    stream.write(struct.pack("<I", len(content)) + content)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Any:
    head = stream.read(4)
    return pickle.loads(stream.read(struct.unpack("<I", head)[0])) if len(head) == 4 else None


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # vendors' libraries print
    while (request := _receive(sys.stdin.buffer)) is not None:
        module, function, arguments = request
        try:
            getattr(importlib.import_module(module), function)(*arguments)
        except Exception:
            _send(answers, traceback.format_exc())
        else:
            _send(answers, "")


if __name__ == "__main__":
    _main()
