"""Azurite, Microsoft's own Azure Blob emulator: about 2 s to start. Needs Node.js and npm (Debian: ``nodejs npm``).

The npm package is installed once, outside of the tree: under ``$APYFAL_TEST_CACHE``, or the user's cache directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, answers, free_ports, program, run, running

__all__ = ["Azurite", "azurite"]

VERSION = "3.35.0"


@dataclass(frozen=True)
class Azurite:
    """Where it is; account and key are those that its documentation publishes for development."""

    endpoint_url: str
    account: str = "devstoreaccount1"
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def cache_directory() -> Path:
    """Where test servers that come from a package registry are kept between runs."""
    chosen = os.environ.get("APYFAL_TEST_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apyfal-tests"
    base.mkdir(parents=True, exist_ok=True)
    return base


def install() -> Path:
    """Install Azurite unless it is there; return its main script."""
    place = cache_directory() / f"azurite-{VERSION}"
    main = place / "node_modules/azurite/dist/src/blob/main.js"
    done = place / "installed"
    if not done.exists():
        place.mkdir(exist_ok=True)
        run(
            [program("npm", "npm"), "install", "--no-fund", "--no-audit", "--prefix", str(place), f"azurite@{VERSION}"],
            log=place / "install.log",
            cwd=place,
            within=300,
        )
        done.touch()
    return main


@contextmanager
def azurite(directory: Path) -> Iterator[Azurite]:
    """Run Azurite's blob service with its log in `directory`, its data in memory."""
    main = install()
    (port,) = free_ports()
    url = f"http://{HOST}:{port}"
    with running(
        [
            *(program("node", "nodejs"), str(main), "--silent", "--disableTelemetry", "--inMemoryPersistence"),
            *("--blobHost", HOST, "--blobPort", str(port)),
            *("--skipApiVersionCheck", "--disableProductStyleUrl"),
        ],
        log=directory / "azurite.log",
        cwd=directory,
        ready=lambda: answers(url),
        within=30,
    ):
        yield Azurite(f"{url}/{Azurite.account}")
