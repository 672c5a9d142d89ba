"""Azurite, Microsoft's own Azure Blob emulator: about 2 s to start. Needs Node.js and npm (Debian: ``nodejs npm``).

The npm package is installed once, outside of the tree: under ``$APYFAL_TEST_CACHE``, or the user's cache directory.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from servers.certificates import issue
from servers.process import HOST, answers, free_ports, listens, program, run, running

__all__ = ["Azurite", "azurite"]

VERSION = "3.35.0"
#: Where test servers that come from a package registry are kept between runs; tests may hide the home directory later.
CACHE = Path(
    os.environ.get("APYFAL_TEST_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apyfal-tests"
)


@dataclass(frozen=True)
class Azurite:
    """Where it is (over TLS with the authority of its certificate); account and key are those that it documents."""

    endpoint_url: str
    account: str = "devstoreaccount1"
    ca: Path | None = None
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def shared_access_signature(self, permissions: str) -> str:
        """Sign the query string of an account SAS ("Create an account SAS" of the Azure Storage REST reference).

        Parameters
        ----------
        permissions
            Letters in the order of that page: ``r`` read, ``w`` write, ``d`` delete, ``l`` list, ``c`` create, ...
        """
        version, end = "2021-12-02", "2099-01-01T00:00:00Z"
        signed = (self.account, permissions, "b", "sco", "", end, "", "https,http", version, "")
        text = "".join(f"{each}\n" for each in signed)
        digest = hmac.digest(base64.b64decode(self.key), text.encode(), "sha256")
        query = {"sv": version, "ss": "b", "srt": "sco", "sp": permissions, "se": end, "spr": "https,http"}
        return urlencode({**query, "sig": base64.b64encode(digest).decode()})


def install() -> Path:
    """Install Azurite unless it is there; return its main script."""
    place = CACHE / f"azurite-{VERSION}"
    main = place / "node_modules/azurite/dist/src/blob/main.js"
    done = place / "installed"
    if not done.exists():
        place.mkdir(parents=True, exist_ok=True)
        run(
            [program("npm", "npm"), "install", "--no-fund", "--no-audit", "--prefix", str(place), f"azurite@{VERSION}"],
            log=place / "install.log",
            cwd=place,
            within=300,
        )
        done.touch()
    return main


@contextmanager
def azurite(directory: Path, *, tls: bool = False) -> Iterator[Azurite]:
    """Run Azurite's blob service with its log in `directory`, its data in memory.

    With `tls` it speaks HTTPS, and takes tokens of Microsoft Entra ID: it looks at who issued them for whom and when
    they end, not at their signature.
    """
    main = install()
    (port,) = free_ports()
    url, ca = f"http://{HOST}:{port}", None
    secure: list[str] = []
    if tls:
        ca = issue(directory, "azurite", [HOST, "localhost"])
        secure = ["--oauth", "basic", "--cert", str(directory / "azurite.pem"), "--key", str(directory / "azurite.key")]
    with running(
        [
            *(program("node", "nodejs"), str(main), "--silent", "--disableTelemetry", "--inMemoryPersistence"),
            *("--blobHost", HOST, "--blobPort", str(port)),
            *("--skipApiVersionCheck", "--disableProductStyleUrl", *secure),
        ],
        log=directory / "azurite.log",
        cwd=directory,
        ready=lambda: listens(port) if tls else answers(url),
        within=30,
    ):
        yield Azurite(f"{'https' if tls else 'http'}://{HOST}:{port}/{Azurite.account}", ca=ca)
