"""Runs of the command line, each in a process of its own that begins where one has imported everything.

What a new interpreter imports costs more than nearly any command. One process imports it, with all warnings being
errors, and forks for each run: that has its own environment, folder and streams, and ends as an interpreter ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import apyfal

__all__ = ["COMMAND", "Done", "run"]

COMMAND = "import sys; from apyfal.cli import main; sys.exit(main())"

_SERVER = """
import gc, importlib, json, os, socket, sys
import apyfal.accelerator, apyfal.cli.shells
for module, _ in apyfal.cli.COMMANDS.values():
    importlib.import_module(module)
gc.freeze()  # else the collection with which a run ends writes to, and so copies, all of the memory that is shared
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, descriptors, _, _ = socket.recv_fds(server, 1 << 17, 3)
    if not message:
        server.close()
        sys.exit()
    child = os.fork()
    if not child:
        break
    for descriptor in descriptors:
        os.close(descriptor)
    server.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
server.close()
for number, descriptor in enumerate(descriptors):
    os.dup2(descriptor, number)
    os.close(descriptor)
request = json.loads(message)
os.environ.clear()
os.environ.update(request["environment"])
os.chdir(request["folder"])
sys.argv = ["apyfal", *request["arguments"]]
exec(request["code"], {"__name__": "__main__"})
"""


class Done(NamedTuple):
    """How a run ended, and what it wrote to standard output and error."""

    status: int
    output: bytes
    error: bytes


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(apyfal.__file__).parents[1]),
        "OPENBLAS_NUM_THREADS": "1",  # a process with several threads must not fork
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SERVER, str(theirs.fileno())],
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    stdin: bytes = b"",
    code: str = COMMAND,
    seconds: float = 100,
) -> Done:
    """Do what ``python -W error -c CODE ARGUMENTS`` does in a folder.

    Parameters
    ----------
    arguments, folder, environment, stdin
        Of the process.
    code
        What it executes.
    seconds
        Until a run that has not ended is an error.
    """
    message = {"environment": dict(environment), "folder": str(folder), "arguments": arguments, "code": code}
    server = _server()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        server.settimeout(seconds)
        socket.send_fds(server, [json.dumps(message).encode()], [file.fileno() for file in files])
        status = int(server.recv(100))
        for file in files[1:]:
            file.seek(0)
        return Done(status, files[1].read(), files[2].read())
