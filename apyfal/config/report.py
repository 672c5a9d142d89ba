"""Reports on the configuration files, their trust, and keys that are ignored: for ``apyfal config show``."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from apyfal.config.authority import Verdict, refusal, rule_of
from apyfal.config.configuration import ENVIRONMENT, FILE_NAME, Configuration
from apyfal.config.trust import owner_name, unsafe
from apyfal.exceptions import ConfigurationError
from apyfal.log import redact

__all__ = ["FileReport", "KeyReport", "files", "limited_keys"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """A configuration file that exists or was named.

    Attributes
    ----------
    file
        Path of the file.
    place
        The rule by which the file is found.
    state
        ``trusted``, ``not trusted``, ``not used``, ``unreadable`` or ``wrong``.
    reason
        Why the file is not used in full; empty if it is.
    owner, mode
        Name of its owner, and its permissions; empty if it cannot be examined.
    """

    file: Path
    place: str
    state: str
    reason: str = ""
    owner: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """One key of an untrusted file that is ignored or restricted."""

    where: str
    state: str
    reason: str


def files() -> list[FileReport]:
    """List the configuration files, the one in use first."""
    if named := os.environ.get(ENVIRONMENT):
        places = [(Path(os.path.expanduser(named)), f"--config or ${ENVIRONMENT}")]
    else:
        places = []
    home = Path(os.path.expanduser("~"))
    for folder, place in ((Path.cwd(), "working directory"), (home, "home directory")):
        file = folder / FILE_NAME
        if file.is_file() and not any(_is_same(file, known) for known, _ in places):
            places.append((file, place))
    if len(places) == 1 and not named and _is_same(places[0][0].parent, home):
        places = [(places[0][0], "home directory")]
    return [_report(file, place, first=number == 0) for number, (file, place) in enumerate(places)]


def limited_keys(configuration: Configuration) -> list[KeyReport]:
    """List the keys of an untrusted configuration that are ignored, or used only with other credentials of the file."""
    found = []
    for name in configuration.sections() if configuration.distrust is not None else ():
        section = configuration.exactly(name)
        for key in section:
            value = section.unchecked(key)
            if value is None:
                continue
            if (what := refusal(value)) is not None:
                found.append(KeyReport(value.where, "refused", f"names {what}"))
            elif rule_of(name, key).verdict is Verdict.OWN:
                found.append(KeyReport(value.where, "limited", "gets no credentials but those of this file"))
    return found


def _report(file: Path, place: str, *, first: bool) -> FileReport:
    try:
        status = os.stat(file)
    except OSError as error:
        # perhaps a URL, by mistake
        return FileReport(Path(redact(str(file))), place, "unreadable", error.strerror or "")
    known = {"owner": owner_name(status.st_uid), "mode": f"{stat.S_IMODE(status.st_mode):04o}"}
    if not first:
        return FileReport(file, place, "not used", "another file comes first", **known)
    try:
        distrust = Configuration.load().distrust
    except ConfigurationError as error:
        return FileReport(file, place, "wrong", str(error), **known)
    if distrust is not None:
        return FileReport(file, place, "not trusted", distrust, **known)
    warning = unsafe(file, status) if place != "working directory" else None
    return FileReport(file, place, "trusted", f"but {warning}" if warning else "", **known)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
