"""Every field of every request, and what a client may put there.

A client chooses among names. Whatever the host loads, opens or runs comes from the host's configuration. `FIELDS` lists
all fields (a test compares it with the routes' declarations). `SessionFields` is the only place that checks a client's
keys of an accelerator's definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apyfal.config.configuration import Configuration
from apyfal.definition.types.dtypes import parse_element_type
from apyfal.exceptions import ParameterError, did_you_mean
from apyfal.host.server.policy.tokens import Grant, NotAllowed

__all__ = ["FIELDS", "SessionFields"]

_MAX_NAME = 256
#: A name that neither a file system nor a library loader reads as a path.
_NAME = re.compile(r"[^\W_][\w .,:;()\[\]{}@#+=*&-]{0,255}|_[\w .-]{0,254}")

_ELEMENT_TYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|[<>=|]?[biufc][0-9]{1,2}")

#: (document, field) to the values that a client may give. Documents are the OpenAPI schemas of requests; ``query``,
#: ``header`` and ``path`` are the parameters of routes.
FIELDS: Mapping[tuple[str, str], str] = {
    ("SessionRequest", "accelerator"): "a name that the host has and the token allows",
    ("SessionRequest", "driver"): "the definition's own, or one of `client_drivers`; never a path",
    ("SessionRequest", "device"): "an index or part of a name, if the definition names none; never a path",
    ("SessionRequest", "program"): "one of `client_programs`, letter for letter",
    ("SessionRequest", "dtype"): "an element type",
    ("SessionRequest", "in_dtype"): "an element type",
    ("SessionRequest", "out_dtype"): "an element type",
    ("JobRequest", "kind"): "process or start",
    ("JobRequest", "src"): "URLs to read, see below; the request's own body; the session's shared memory",
    ("JobRequest", "dst"): "URLs to write, see below; the answer's body; the session's shared memory",
    ("JobRequest", "parameters"): "the accelerator's own parameters; they are values and name nothing",
    ("JobRequest", "copy"): "true or false",
    ("JobRequest", "timeout"): "seconds, at most 30 days",
    ("JobRequest", "memory_limit"): "bytes, at most the host's `memory_limit`",
    ("JobRequest", "batch"): "element types and shapes of at most 256 jobs",
    ("MountRequest", "provider"): "a provider whose connections pass the outbound gate",
    ("MountRequest", "root"): "a bucket and prefix of the client's own account",
    ("MountRequest", "*"): "the client's own account and addresses that the outbound gate admits",
    ("CopyRequest", "src"): "a URL to read, see below",
    ("CopyRequest", "dst"): "a URL to write, see below",
    ("CopyRequest", "session"): "a session of the same user, for its mounts",
    ("MemoryRequest", "nbytes"): "at most half of the host's `memory_limit` for one user",
    ("query", "url"): "a URL to read, or to write and remove, see below",
    ("query", "session"): "a session of the same user, for its mounts",
    ("query", "recursive"): "true or false",
    ("query", "wait"): "0 to 60 seconds",
    ("query", "key"): "an idempotency key of the same user",
    ("header", "Idempotency-Key"): "1 to 128 letters, digits and _.:-",
    ("header", "Apyfal-Job"): "a JobRequest",
    ("header", "Upgrade"): "the protocol of the data channel; its JOB frames hold a key, a session and a JobRequest",
    ("header", "If-None-Match"): "*",
    ("path", "session"): "a session of the same user",
    ("path", "job"): "a job of the same user; of anybody for an administrator",
    ("path", "name"): "a mount of that session",
    ("path", "region"): "shared memory of that session",
}


@dataclass(frozen=True, slots=True)
class SessionFields:
    """Checks the fields with which a client opens an accelerator.

    Attributes
    ----------
    configuration
        The host's configuration, which defines the accelerators.
    drivers, programs
        Further values that the operator allows: ``client_drivers`` and ``client_programs`` of ``[security]``.
    """

    configuration: Configuration
    drivers: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def checked(self, given: Mapping[str, object], grant: Grant) -> dict[str, str | int]:
        """Return the options that the accelerator is opened with, without fields that are null.

        Parameters
        ----------
        given
            The client's document.
        grant
            Permissions of the request.

        Raises
        ------
        NotAllowed
            The client names something that only the host may choose. Nothing was looked up, so the error does not tell
            whether a file exists.
        ParameterError
            A field is unknown or malformed.
        """
        if "accelerator" not in given:
            raise ParameterError("accelerator: expected a name")
        for field in given:
            if field not in _CHECKS:
                raise ParameterError(f"{field!r} is defined on the host; a client may say {', '.join(_CHECKS)}")
        name = given["accelerator"]
        if name is not None:
            name = _name("accelerator", name)
        grant.require_accelerator(name)
        checked: dict[str, str | int] = {} if name is None else {"accelerator": name}
        for field, value in given.items():
            if value is not None and field != "accelerator":
                checked[field] = _CHECKS[field](self, field, value, name)
        return checked

    def _driver(self, field: str, value: object, accelerator: str | None) -> str:
        driver = _name(field, value)
        own = self._defined(accelerator, "driver") or "emulator"
        choices = {own, *self.drivers} if _NAME.fullmatch(own) else {*self.drivers}
        if driver not in choices:
            raise NotAllowed(
                f"driver {driver!r} is not one that clients of this host may name{did_you_mean(driver, choices)}"
            )
        return driver

    def _device(self, field: str, value: object, accelerator: str | None) -> str | int:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < 1 << 16:
                raise ParameterError(f"device {value}: expected an index from 0 on")
            device: str | int = value
        else:
            device = _name(field, value)
        own = self._defined(accelerator, "device")
        if own is not None and str(device) != own:
            raise NotAllowed(f"device: the host says on which device the accelerator {accelerator!r} runs")
        return device

    def _program(self, field: str, value: object, _: str | None) -> str:
        if not isinstance(value, str) or value not in self.programs:
            raise ParameterError(
                "program: an accelerator is defined on its host; this is not one that the operator lets clients name"
            )
        return value

    def _element_type(self, field: str, value: object, _: str | None) -> str:
        if not isinstance(value, str) or not _ELEMENT_TYPE.fullmatch(value):
            raise ParameterError(f"{field}: expected an element type, such as 'float32' or '<i2'")
        return str(parse_element_type(value).str)

    def _defined(self, accelerator: str | None, key: str) -> str | None:
        name = "accelerator" if accelerator is None else f"accelerator.{accelerator}"
        return self.configuration.section(name).text(key, None)


#: keys of a definition that a client may give, with the check of each; all others are refused
_CHECKS: Mapping[str, Callable[[SessionFields, str, object, str | None], str | int]] = {
    "accelerator": lambda _, field, value, __: _name(field, value),
    "driver": SessionFields._driver,
    "device": SessionFields._device,
    "program": SessionFields._program,
    "dtype": SessionFields._element_type,
    "in_dtype": SessionFields._element_type,
    "out_dtype": SessionFields._element_type,
}


def _name(field: str, value: object, expected: str = "a name") -> str:
    if not isinstance(value, str) or not value:
        raise ParameterError(f"{field}: expected {expected}")
    if len(value) > _MAX_NAME:
        raise ParameterError(f"{field}: expected {expected} of at most {_MAX_NAME} characters")
    if not _NAME.fullmatch(value) or ".." in value:
        raise NotAllowed(f"{field} {value!r}: expected {expected}; a client cannot name a path on this host")
    return value
