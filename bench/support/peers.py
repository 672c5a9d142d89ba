"""What the transfer benchmarks share: servers, and how each peer reads an object from an S3 endpoint."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from servers.web.nginx import Nginx, nginx

KEYS = {"client_id": "bench", "secret_id": "bench-secret"}
Fill = Callable[[memoryview], Any]


def serve(objects: dict[str, np.ndarray]) -> Nginx:
    """Serve objects as the bucket ``b`` from memory until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
    server = stack.enter_context(nginx(directory))
    (server.root / "b").mkdir()
    for name, data in objects.items():
        data.tofile(server.root / "b" / name)
    # nginx runs its workers as another user where it is started by root
    for path in (directory, server.root, server.root / "b", *(server.root / "b").iterdir()):
        path.chmod(0o755)
    return server


@contextlib.contextmanager
def generated_alone(size: int, pace: int) -> Iterator[str]:
    """Serve an object that is made as it is read, `pace` bytes a second, from a process of its own; yields its URL."""
    command = [sys.executable, "-m", "servers.web.generated", str(size), str(pace)]
    tests = Path(__file__).parents[2] / "tests"
    with subprocess.Popen(command, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the server has no pipes")
        yield process.stdout.readline().strip()
        process.stdin.close()


def address(url: str) -> tuple[str, int]:
    """Return host and port of an endpoint."""
    host, _, port = url.rpartition("://")[2].partition(":")
    return host, int(port)


def receive_range(url: str, path: str, out: memoryview, start: int, stop: int) -> None:
    """Do the least that receives a range: a socket, and `recv_into` its final address."""
    with socket.create_connection(address(url)) as sock:
        head = f"GET /{path} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-{stop - 1}\r\n\r\n"
        sock.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        while start < stop:
            count = sock.recv_into(out[start:stop])
            if not count:
                raise ConnectionError("the server closed early")
            start += count


def bare(url: str, path: str, connections: int) -> Fill:
    """Make the limit: bare sockets, one range each."""

    def run(out: memoryview) -> None:
        step = -(-len(out) // connections)
        threads = [
            threading.Thread(target=receive_range, args=(url, path, out, begin, min(begin + step, len(out))))
            for begin in range(0, len(out), step)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def installed(module: str) -> bool:
    """Whether a peer is installed here; if not that is said, so that the table is not silently shorter."""
    try:
        importlib.import_module(module)
    except ImportError:
        print(f"  not installed here: {module}", file=sys.stderr)
        return False
    return True


def boto3_client(url: str, ca: Path | None = None) -> Any:
    """Make a boto3 client."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEYS["client_id"],
        aws_secret_access_key=KEYS["secret_id"],
        region_name="us-east-1",
        verify=None if ca is None else str(ca),
        config=Config(
            max_pool_connections=16,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def obstore_store(url: str) -> Any:
    """Make an obstore store of the bucket; over TLS one that accepts any certificate, as it takes no bundle."""
    from obstore.store import S3Store

    return S3Store(
        "b",
        endpoint=url,
        access_key_id=KEYS["client_id"],
        secret_access_key=KEYS["secret_id"],
        region="us-east-1",
        client_options={"allow_http": True, "allow_invalid_certificates": True},
        virtual_hosted_style_request=False,
    )


def peers(url: str, only: str = "") -> dict[str, Callable[[str], Fill]]:
    """Return each peer's best ways to fill memory from ``b/<name>``, with its client made beforehand.

    Parameters
    ----------
    url
        The endpoint.
    only
        The one module to import; empty: all.
    """
    ways: dict[str, Callable[[str], Fill]] = {}

    def missing(module: str) -> bool:
        return (only not in ("", module)) or not installed(module)

    if not missing("boto3"):
        client = boto3_client(url)

        class Into:
            """What download_fileobj writes to: the memory."""

            def __init__(self, out: memoryview) -> None:
                self.out, self.position = out, 0

            def seek(self, position: int, whence: int = 0) -> int:
                self.position = position
                return position

            def write(self, data: bytes) -> int:
                self.out[self.position : self.position + len(data)] = data
                self.position += len(data)
                return len(data)

            def seekable(self) -> bool:
                return True

        def boto3_whole(name: str) -> Fill:
            def run(out: memoryview) -> None:
                out[:] = client.get_object(Bucket="b", Key=name)["Body"].read()

            return run

        def boto3_managed(name: str) -> Fill:
            return lambda out: client.download_fileobj("b", name, Into(out))

        ways["boto3 get_object().read()"] = boto3_whole
        ways["boto3 download_fileobj"] = boto3_managed

    if not missing("obstore"):
        import obstore

        store = obstore_store(url)

        def obstore_ranges(name: str) -> Fill:
            def run(out: memoryview) -> None:
                step = 16 << 20
                with_pool(
                    lambda begin: copy_into(
                        out, begin, obstore.get_range(store, name, start=begin, end=min(begin + step, len(out)))
                    ),
                    range(0, len(out), step),
                )

            return run

        def obstore_get(name: str) -> Fill:
            return lambda out: copy_into(out, 0, obstore.get(store, name).bytes())

        ways["obstore get_range, 8 x 16 MiB"] = obstore_ranges
        ways["obstore get().bytes()"] = obstore_get

    if not missing("pyarrow"):
        from pyarrow import fs

        host, port = address(url)
        filesystem = fs.S3FileSystem(
            access_key=KEYS["client_id"],
            secret_key=KEYS["secret_id"],
            region="us-east-1",
            scheme="http",
            endpoint_override=f"{host}:{port}",
        )

        def pyarrow_ranges(name: str) -> Fill:
            def run(out: memoryview) -> None:
                step = 16 << 20
                with filesystem.open_input_file(f"b/{name}") as file:
                    with_pool(
                        lambda begin: copy_into(out, begin, file.read_at(min(step, len(out) - begin), begin)),
                        range(0, len(out), step),
                    )

            return run

        ways["pyarrow read_at, 8 x 16 MiB"] = pyarrow_ranges

    if not missing("smart_open") and not missing("boto3"):
        import smart_open

        def smart(name: str) -> Fill:
            def run(out: memoryview) -> None:
                with smart_open.open(f"s3://b/{name}", "rb", transport_params={"client": client}) as file:
                    done = 0
                    while done < len(out):
                        done += file.readinto(out[done : done + (8 << 20)])

            return run

        ways["smart_open"] = smart

    if not missing("s3fs"):
        import s3fs

        filesystem_s3fs = s3fs.S3FileSystem(
            key=KEYS["client_id"], secret=KEYS["secret_id"], client_kwargs={"endpoint_url": url}
        )

        def fsspec_file(name: str) -> Fill:
            def run(out: memoryview) -> None:
                with filesystem_s3fs.open(f"b/{name}", "rb", block_size=32 << 20) as file:
                    done = 0
                    while done < len(out):
                        done += file.readinto(out[done : done + (32 << 20)])

            return run

        ways[f"s3fs {s3fs.__version__}"] = fsspec_file

    if not missing("s3torchconnectorclient"):
        from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

        os.environ.setdefault("AWS_ACCESS_KEY_ID", KEYS["client_id"])
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", KEYS["secret_id"])
        torch_client = MountpointS3Client("us-east-1", endpoint=url, force_path_style=True)

        def torch_connector(name: str) -> Fill:
            def run(out: memoryview) -> None:
                done = 0
                for piece in torch_client.get_object("b", name):
                    out[done : done + len(piece)] = piece
                    done += len(piece)

            return run

        ways["s3torchconnector's client"] = torch_connector

    return ways


def rclone_environment(url: str) -> dict[str, str]:
    """Return the environment in which rclone knows the endpoint as ``bench:``."""
    # rclone 1.60 does not start where AWS_CA_BUNDLE is set.
    inherited = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    return {
        **inherited,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENDPOINT": url,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": KEYS["client_id"],
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": KEYS["secret_id"],
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
    }


def rclone(url: str, *arguments: str) -> None:
    """Run rclone to its end."""
    subprocess.run(["rclone", *arguments], env=rclone_environment(url), capture_output=True, check=True)


class PeakOfProgram:
    """The most resident memory of a program that is run, once or several times."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._mebibytes = 0.0

    def __call__(self) -> None:
        """Run it to its end."""
        process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self._command)
        self._mebibytes = max(self._mebibytes, usage.ru_maxrss / 1024)

    def note(self) -> str:
        """Text for a table."""
        return f"{self._mebibytes:.0f} MiB in all"


def with_pool(work: Callable[[int], None], items: range, threads: int = 8) -> None:
    """Do work for each item in `threads` threads."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass


def copy_into(out: memoryview, begin: int, data: Any) -> None:
    """Copy a peer's own memory to the final address."""
    view = memoryview(data)
    out[begin : begin + view.nbytes] = view.cast("B") if view.ndim == 1 else view


class PeakMemory:
    """How far the resident memory of this process rises while something runs."""

    def __init__(self) -> None:
        self.mebibytes = 0.0

    def __call__(self, run: Callable[[], Any]) -> Any:
        """Run it and note the rise."""
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak (proc(5))
        before = self._status("VmRSS")
        result = run()
        self.mebibytes = max(self.mebibytes, (self._status("VmHWM") - before) / 1024)
        return result

    def note(self) -> str:
        """Text for a table."""
        return f"+{max(0.0, self.mebibytes):.0f} MiB"

    @staticmethod
    def _status(name: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise RuntimeError(f"/proc/self/status has no {name}")
