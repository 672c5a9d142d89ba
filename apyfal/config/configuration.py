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
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from apyfal import units
from apyfal.config import ini
from apyfal.config.authority import refusal
from apyfal.config.ini import Value, is_secret, shown_path
from apyfal.config.trust import TrustStore, content_of, unsafe
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

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

#: Sections by the first part of their name, and the keys of each. ``None``: checked by the code that uses the section,
#: because a mount's keys depend on its provider.
KINDS: dict[str, frozenset[str] | None] = {
    "accelerator": frozenset(
        {
            *("driver", "device", "program", "kernel", "arguments", "inputs", "outputs", "parameters", "state"),
            *("dtype", "in_dtype", "out_dtype", "output", "chunking", "clear_outputs"),
            *("global", "local", "global_offset", "round_up", "shape", "initial", "inout"),
        }
    ),
    "host": None,
    "storage": None,
    "security": frozenset(
        {
            *("authorized_host_dirs", "private_endpoints", "state_directory", "audit_log", "max_body", "spool_above"),
            *(
                "memory_limit",
                "disk_limit",
                "disk_reserve",
                "journal_limit",
                "max_jobs",
                "max_jobs_of_user",
                "max_sessions",
                "max_sessions_of_user",
                "workers",
            ),
            *("max_connections", "request_rate", "session_timeout", "stall_timeout", "stop_timeout", "keep_jobs"),
            *("keep_outputs", "client_drivers", "client_programs"),
        }
    ),
    "process": frozenset({"copy", "memory_limit", "timeout"}),
    "configuration": frozenset({"src"}),
}
#: Kinds whose named sections also hold parameters of the accelerator, which its definition checks.
_PARAMETER_KINDS = frozenset({"process", "configuration"})

_T = TypeVar("_T")
_Default = TypeVar("_Default")


class Section(Mapping[str, Value]):
    """The values of one section, with fallbacks and overriding arguments. Read-only.

    The typed getters return `default` if the key is missing. They raise `ConfigurationError` with the value's position
    if the text cannot be converted. Every access to a value raises it too if the file is untrusted and may not set the
    value (`apyfal.config.authority`).
    """

    def __init__(self, name: str, values: Mapping[str, Value], file: Path | None = None) -> None:
        self.name = name
        self.file = file
        self._values = dict(values)

    def __getitem__(self, key: str) -> Value:
        value = self._values[key]
        if not value.trusted and (what := refusal(value)) is not None:
            raise untrusted(value, what)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def unchecked(self, key: str) -> Value | None:
        """Return the value of `key` without the check of trust, to be examined or displayed."""
        return self._values.get(key)

    def only(self, keep: Callable[[Value], bool]) -> Section:
        """Return the section reduced to the values that `keep` accepts."""
        return Section(self.name, {key: value for key, value in self._values.items() if keep(value)}, self.file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({self.name!r}, {self._values!r})"

    def check(self, known: Iterable[str]) -> None:
        """Raise `ConfigurationError` for the first key that is not in `known`; the message suggests the nearest one."""
        known = frozenset(known)
        for key, value in self._values.items():
            if key not in known:
                raise value.error(f"unknown key {key!r}{did_you_mean(key, known)}")

    def require(self, key: str) -> Value:
        """Return the value of `key`, or raise `ConfigurationError` naming the section that lacks it."""
        if key not in self._values:
            raise self.missing(key)
        return self[key]

    def missing(self, key: str) -> ConfigurationError:
        """Return the error that reports a missing `key`; the caller raises it."""
        place = f"{shown_path(self.file)}, " if self.file else ""
        return ConfigurationError(f"{place}[{self.name}]: key {key!r} is missing")

    def text(self, key: str, default: _Default) -> str | _Default:
        """Return the text of `key`, which must not be empty."""

        def convert(value: Value) -> str:
            if not value:
                raise ParameterError("expected a value after '='")
            return value.text

        return self._convert(key, default, convert)

    def integer(self, key: str, default: _Default, *, minimum: int | None = None) -> int | _Default:
        """Return the whole number of `key`, at least `minimum`. Hexadecimal (``0x``) is accepted."""

        def convert(value: Value) -> int:
            try:
                number = int(value, 0)
            except ValueError:
                raise ParameterError(f"expected a whole number, not {value!r}") from None
            if minimum is not None and number < minimum:
                raise ParameterError(f"expected {minimum} or more, not {number}")
            return number

        return self._convert(key, default, convert)

    def boolean(self, key: str, default: _Default) -> bool | _Default:
        """Return the truth value of `key`: see `apyfal.units.parse_boolean`."""
        return self._convert(key, default, lambda value: units.parse_boolean(value.text))

    def size(self, key: str, default: _Default) -> int | _Default:
        """Return the size of `key` in bytes: see `apyfal.units.parse_size`."""
        return self._convert(key, default, lambda value: units.parse_size(value.text))

    def duration(self, key: str, default: _Default) -> float | _Default:
        """Return the duration of `key` in seconds: see `apyfal.units.parse_duration`."""
        return self._convert(key, default, lambda value: units.parse_duration(value.text))

    def choice(self, key: str, choices: Iterable[str], default: _Default) -> str | _Default:
        """Return the text of `key`, which must be one of `choices`."""
        choices = list(choices)

        def convert(value: Value) -> str:
            if value.text not in choices:
                raise ParameterError(f"unknown value {value!r}{did_you_mean(value.text, choices)}")
            return value.text

        return self._convert(key, default, convert)

    def parts(self, key: str, separator: str | None = ",") -> list[Value]:
        """Return the parts of `key`: see `Value.parts`. Empty if the key is missing."""
        return self[key].parts(separator) if key in self._values else []

    def paths(self, key: str, default: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
        """Return the paths of `key`, one per line, with ``~`` expanded; `default`, also expanded, if the key is
        missing.
        """
        given: Iterable[str | os.PathLike[str]] = self.parts(key, None) if key in self._values else default
        return [Path(os.path.expanduser(path)) for path in given]

    def _convert(self, key: str, default: _Default, convert: Callable[[Value], _T]) -> _T | _Default:
        if key not in self._values:
            return default
        value = self[key]
        try:
            return convert(value)
        except ParameterError as error:
            # a message about a secret must not contain the value
            raise value.error("not a valid value" if is_secret(key) else str(error)) from None


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
            return cls({name: _values_of(name, values) for name, values in source.items()})
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
            values.update(_values_of("", arguments))
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


def untrusted(value: Value, what: str) -> ConfigurationError:
    """Return the error for an untrusted file that names `what`; the caller raises it."""
    file = value.file
    word = "a configuration of the working directory may not name"
    if file is None:
        return value.error(f"{word} {what}")
    try:
        _, status = content_of(file)
        problem = unsafe(file, status)
    except (OSError, ConfigurationError):
        problem = None
    hint = "to trust it" if problem is None else f"the file cannot be trusted: {problem}; once it is yours alone"
    name = f" {shlex.quote(str(file))}" if str(file).isprintable() else ""
    hint += f": apyfal config trust{name}"
    return value.error(f"{word} {what} without your word; {hint}")


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


def _values_of(section: str, given: Mapping[str, object]) -> dict[str, Value]:
    """Convert the values of a mapping that a caller has passed."""
    values = {}
    for key, item in given.items():
        if item is None:
            continue
        items = list(item) if isinstance(item, (list, tuple)) else [item]
        texts = [_text_of(section, key, one) for one in items]
        values[key] = Value(
            "\n".join(texts), lines=(0,) * max(1, sum(t.count("\n") + 1 for t in texts)), section=section, key=key
        )
    return values


def _text_of(section: str, key: str, item: object) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (str, int, float)):
        return str(item)
    if isinstance(item, os.PathLike):
        return os.fsdecode(item)
    place = Value("", section=section, key=key)
    raise place.error(f"expected text, a number, a truth value, a path or a list of these, not {type(item).__name__}")
