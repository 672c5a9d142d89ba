"""Test a wheel on the Pythons that only Debian's development release has, installed into a folder by debootstrap.

Needs root, for chroot, and Debian's package `debootstrap`. The wheel is the one that CPython 3.12 and later share; its
quick tests run on each interpreter. What of the tests' own requirements has no wheel there is left out, and named. The
release also has the newest XRT: the xrt driver's tests run over it, on the first of the interpreters.

Use: python packaging/newest_pythons.py [--folder DIRECTORY] [--python 3.14 ...] WHEEL [-- pytest arguments]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import newest_xrt
from trial import SHORT, TOOLS, clone, run

NEWEST = ("3.14", "3.15")
RELEASE = "sid"
#: Settings of pip, and what they and HTTPS need; they are the same inside as outside.
SHARED = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs", "/etc/xdg/pip")


def mirror() -> str:
    """Return the address that this machine's apt fetches packages from."""
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for place in filter(Path.is_file, places):
        found = re.search(r"^(?:URIs:|deb)\s(?:.*\s)?(https?://\S+/debian/?)(?:\s|$)", place.read_text(), re.MULTILINE)
        if found:
            return found[1]
    sys.exit("newest_pythons: apt's sources name no mirror of Debian")


def packages_of(versions: list[str]) -> list[str]:
    """Return the names of the packages of these interpreters."""
    return [f"python{version}{part}" for version in versions for part in ("", "-venv")]


def install_release(folder: Path, versions: list[str]) -> None:
    """Install the development release with the interpreters and XRT into a folder, unless there is one.

    Two that begin at once do so beside each other: one folder stays.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    wanted = ",".join([*packages_of(versions), newest_xrt.PACKAGE, "zlib1g", "ca-certificates"])
    command = ["debootstrap", "--variant=minbase", f"--include={wanted}", RELEASE, fresh, mirror()]
    with tempfile.TemporaryFile("w+") as log:
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
            log.seek(0)
            shutil.rmtree(fresh)
            sys.exit("newest_pythons: debootstrap failed:\n" + "".join(log.readlines()[-20:]))
    fresh.chmod(0o755)
    try:
        fresh.rename(folder)
    except OSError:  # another one was first
        shutil.rmtree(fresh)


def add_missing(folder: Path, versions: list[str]) -> None:
    """Install what a folder of an earlier day lacks."""
    lacking = [version for version in versions if not (folder / "usr/bin" / f"python{version}").exists()]
    missing = packages_of(lacking) + ([] if newest_xrt.is_installed(folder) else [newest_xrt.PACKAGE])
    of_its_day = ("-o", "Acquire::Check-Valid-Until=false")  # as debootstrap takes a mirror
    if missing and (
        inside(folder, "apt-get", "-q", *of_its_day, "update")
        or inside(folder, "apt-get", "-qy", "--no-install-recommends", "install", *missing)
    ):
        sys.exit(f"newest_pythons: {folder} lacks {', '.join(missing)}, and apt-get cannot install that")


def inside(folder: Path, *command: str | Path, env: Mapping[str, str] = MappingProxyType({})) -> int:
    """Run a command in the folder as root directory, with this machine's settings of pip; return its status."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LC_", "SSL_"))}
    env = {
        **kept,
        **env,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TMPDIR": "/tmp",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    print("+ chroot", folder, *command, flush=True)
    chroot = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin") or sys.exit(
        "newest_pythons: there is no chroot here"
    )
    return subprocess.run([chroot, folder, *map(str, command)], env=env, check=False).returncode


def share(folder: Path) -> list[Path]:
    """Give the folder this machine's settings of pip, and the kernel's file systems; return what was mounted."""
    for name in map(Path, SHARED):
        target = folder / name.relative_to("/")
        if name.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(name, target)
    mounts = []
    local = [Path(place) for place in os.environ.get("PIP_FIND_LINKS", "").split() if place.startswith("/")]
    for place in [Path("/proc"), Path("/dev"), *filter(Path.is_dir, [*map(Path, SHARED), *local])]:
        target = folder / place.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        run("mount", "--rbind", "--make-rslave", place, target)
        mounts.append(target)
    return mounts


def pytest(folder: Path, at: Path, *arguments: str, env: Mapping[str, str] = MappingProxyType({})) -> int:
    """Run pytest in the folder, in the tree of an interpreter; return its status."""
    # `chroot` does not change the directory that relative names start from.
    code = f"import os, sys, pytest; os.chdir('{at / 'tree'}'); sys.exit(pytest.main(sys.argv[1:]))"
    return inside(folder, at / "venv/bin/python", "-c", code, "-q", *arguments, env=env)


def test(folder: Path, at: Path, version: str, wheel: Path, arguments: list[str]) -> bool:
    """Install the wheel for one interpreter, run the main job and the tests; return whether all passed."""
    shutil.rmtree(folder / at.relative_to("/"), ignore_errors=True)
    (folder / at.relative_to("/")).mkdir(parents=True)
    elsewhere = clone(folder / at.relative_to("/") / "tree")
    shutil.rmtree(elsewhere / "apyfal")
    shutil.copy(wheel, folder / at.relative_to("/"))
    python = at / "venv/bin/python"
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:")
    if inside(folder, f"python{version}", "-m", "venv", at / "venv") or inside(folder, *pip, at / wheel.name, *TOOLS):
        return False
    for extra in ("host", "fsspec"):
        if inside(folder, *pip, f"{at / wheel.name}[{extra}]"):
            print(f"newest_pythons: the extra {extra!r} cannot be installed on {version}: its tests are left out")
    if inside(folder, python, "-m", "apyfal", "process", "-a", "sha3", at / "tree/README.md"):
        return False
    typed = (at / "tree/packaging/typed_start.py", at / wheel.name, "--python", f"python{version}")
    if inside(folder, f"python{version}", *typed):
        return False
    return not pytest(folder, at, *arguments)


def main() -> None:
    """Install the release, then test on each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(f"/var/tmp/apyfal-{RELEASE}"), help="kept")
    parser.add_argument("--python", action="append", default=[], help=f"a version (default: {', '.join(NEWEST)})")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest instead of the short choice")
    options = parser.parse_args()
    versions = options.python or list(NEWEST)
    install_release(options.folder, versions)
    mounts = share(options.folder)
    try:
        add_missing(options.folder, versions)
        arguments = options.pytest or list(SHORT)
        places = {version: Path("/trial") / version for version in versions}
        wheel = options.wheel.resolve()
        failed = [one for one, at in places.items() if not test(options.folder, at, one, wheel, arguments)]
        if not failed and not options.pytest:
            at = places[versions[0]]
            if not newest_xrt.test(options.folder, at, partial(pytest, options.folder, at)):
                failed.append("XRT")
    finally:
        for place in reversed(mounts):
            subprocess.run(["umount", "-l", place], check=False)
    if failed:
        sys.exit(f"newest_pythons: failed on {', '.join(failed)}")
    print(f"== {options.wheel.name}: tested on {', '.join(versions)}", flush=True)


if __name__ == "__main__":
    main()
