"""``accelerator.conf``: finds, parses and checks the file, and layers its sections.

The file is INI text. Every value records its file, section, line and key, and every error names them::

    [accelerator.vadd]              ; comments begin with ';' (anywhere after a blank) or '#' (at the start of a line)
    driver    = opencl
    arguments = src, dst, count

    [security]
    authorized_host_dirs = ~/shared
        /data/fpga                  ; a deeper line continues the value above it

A section ``[a.b.c]`` falls back to ``[a.b]``, then ``[a]``, for each key. Arguments of a call override the file.

The file of the working directory is used in full only if the user trusts it: see `apyfal.config.authority` and
`apyfal.config.trust`. Importing this module reads no file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from apyfal.config import ini
from apyfal.config.ini import Value, shown_path
from apyfal.config.schema import KINDS
from apyfal.config.section import Section, untrusted, values_of
from apyfal.config.trust import TrustStore, content_of
from apyfal.exceptions import ConfigurationError, did_you_mean

__all__ = [
    "ENVIRONMENT",
    "FILE_NAME",
    "KINDS",
    "ConfigSource",
    "Configuration",
    "Section",
    "Value",
    "host_section",
    "untrusted",
]

_LOGGER = logging.getLogger("apyfal.config")

FILE_NAME = "accelerator.conf"
ENVIRONMENT = "APYFAL_CONFIG_FILE"

#: Kinds whose named sections also hold parameters of the accelerator, which its definition checks.
_PARAMETER_KINDS = frozenset({"process", "configuration"})


class Configuration:
    """A parsed configuration, created by `load`. Read-only.

    Attributes
    ----------
    file
        Path of the file; ``None`` if no file was found, or the configuration was given as a mapping.
    distrust
        Why the user does not trust the file; ``None`` if it is trusted.
    """

    def __init__(
        self, sections: Mapping[str, Mapping[str, Value]], file: Path | None = None, distrust: str | None = None
    ) -> None:
        self.file = file
        self.distrust = distrust
        self._sections = {name: dict(values) for name, values in sections.items()}
        for name, values in self._sections.items():
            self._check(name, values)

    @classmethod
    def load(cls, source: ConfigSource = None) -> Configuration:
        """Read a configuration.

        Parameters
        ----------
        source
            Path of a file; a mapping of section names to mappings of keys to values (text, numbers, truth values, paths
            or lists of these); a `Configuration`, which is returned unchanged; or ``None``: the file named by
            ``$APYFAL_CONFIG_FILE``, else ``accelerator.conf`` in the working directory, else in the home directory,
            else an empty configuration. A file of the working directory is always read, but trusted only after ``apyfal
            config trust``.

        Raises
        ------
        ConfigurationError
            The file is missing or unreadable, a line is not INI, or a section or key is unknown or repeated.
        """
        if isinstance(source, Configuration):
            return source
        if isinstance(source, Mapping):
            return cls({name: values_of(name, values) for name, values in source.items()})
        if source is not None:
            return cls._read(Path(os.path.expanduser(source)))
        if named := os.environ.get(ENVIRONMENT):
            return cls._read(Path(os.path.expanduser(named)), f" (from ${ENVIRONMENT})")
        here, home = Path.cwd(), Path(os.path.expanduser("~"))
        if (file := here / FILE_NAME).is_file() and not _is_same(here, home):
            return cls._found(file)
        if (file := home / FILE_NAME).is_file():
            return cls._read(file)
        return cls({})

    @classmethod
    def _read(cls, file: Path, origin: str = "") -> Configuration:
        """Read a file that the user has named, or the one in the home directory."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"cannot read configuration {str(file)!r}{origin}: {error.strerror}") from None
        return cls(ini.parse(_text(content, file), file, KINDS), file)

    @classmethod
    def _found(cls, file: Path) -> Configuration:
        """Read the file of the working directory."""
        try:
            content, status = content_of(file)
        except OSError as error:
            raise ConfigurationError(f"cannot read configuration {str(file)!r}: {error.strerror}") from None
        distrust = TrustStore().refusal(file, content, status)
        if distrust is not None:
            _LOGGER.debug("%s is not trusted: %s", shown_path(file), distrust)
        return cls(ini.parse(_text(content, file), file, KINDS, trusted=distrust is None), file, distrust)

    def section(self, name: str, arguments: Mapping[str, object] | None = None) -> Section:
        """Return the section `name` with its fallbacks.

        Parameters
        ----------
        name
            ``"a.b.c"``: keys missing there are taken from ``[a.b]``, then ``[a]``. None of these sections has to exist.
        arguments
            Values that override the file. Those that are ``None`` are ignored.
        """
        parts = name.split(".")
        values: dict[str, Value] = {}
        for depth in range(1, len(parts) + 1):
            values.update(self._sections.get(".".join(parts[:depth]), {}))
        if arguments:
            values.update(values_of("", arguments))
        return Section(name, values, self.file)

    def exactly(self, name: str) -> Section:
        """Return the section `name` without its fallbacks."""
        return Section(name, self._sections.get(name, {}), self.file)

    def sections(self, prefix: str = "") -> list[str]:
        """Return the existing sections in order: `prefix` itself and those below it; all if `prefix` is empty."""
        return [name for name in self._sections if not prefix or name == prefix or name.startswith(prefix + ".")]

    def __contains__(self, name: object) -> bool:
        return name in self._sections

    def __repr__(self) -> str:
        return f"<Configuration {str(self.file) if self.file else 'without file'}: {', '.join(self._sections)}>"

    def _check(self, name: str, values: Mapping[str, Value]) -> None:
        kind, _, rest = name.partition(".")
        if kind not in KINDS:  # the sections of a file were checked with their lines, during parsing
            raise ConfigurationError(f"[{name}]: unknown section{did_you_mean(kind, KINDS)}")
        known = KINDS[kind]
        if known is None or (rest and kind in _PARAMETER_KINDS):
            return
        for key, value in values.items():
            if key not in known and not (kind == "accelerator" and "." in key):
                raise value.error(f"unknown key {key!r}{did_you_mean(key, known)}")


ConfigSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, Mapping[str, object]] | Configuration | None"


def host_section(configuration: Configuration, host_type: str | None = None) -> Section:
    """Return the section of one host: ``[host.HOST_TYPE]``, with fallback to ``[host]``.

    Parameters
    ----------
    configuration
        The configuration.
    host_type
        Selects the host. Default: ``host_type`` of ``[host]``; if it has none, ``[host]`` itself.
    """
    kind = host_type or configuration.section("host").text("host_type", None)
    return configuration.section("host" if kind is None else f"host.{kind.lower()}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{shown_path(file)}, line {line}: the text is not UTF-8") from None


def host_ip_of(config: ConfigSource, host_type: str | None = None) -> str | None:
    """Return the host that a configuration names; ``None``: this machine.

    Raises
    ------
    ConfigurationError
        `host_type` was given, and the configuration does not have it.
    """
    configuration = Configuration.load(config)
    address = host_section(configuration, host_type).text("host_ip", None)
    if address is None and host_type is not None:
        known = [name.partition(".")[2] for name in configuration.sections("host") if "." in name]
        known += [stated] if (stated := configuration.section("host").text("host_type", None)) else []
        if host_type.lower() not in (name.lower() for name in known):
            near = did_you_mean(host_type, known)
            raise ConfigurationError(f"host_type {host_type!r}: the configuration says nothing of it{near}")
    return address
