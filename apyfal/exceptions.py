"""Every error that apyfal raises, as one tree.

`AcceleratorException` is the root, so one ``except`` catches all of it. Storage errors are also the builtin
`OSError` of the matching kind, so code written for local files keeps working when its path becomes a URL.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, ClassVar

from apyfal.log import redact_text

__all__ = [
    "AcceleratorException",
    "AccessDenied",
    "AuthenticationError",
    "BufferInUse",
    "ChecksumMismatch",
    "ClosedError",
    "ConfigurationError",
    "CopyRefused",
    "DeviceLost",
    "DeviceMemoryExhausted",
    "DeviceNotFound",
    "DriverError",
    "DriverUnavailable",
    "ForkedProcess",
    "HostError",
    "HostMemoryExhausted",
    "HostUnreachable",
    "InvalidURL",
    "IsADirectory",
    "JobRejected",
    "KernelError",
    "Misaligned",
    "MountError",
    "NotADirectory",
    "ObjectChanged",
    "ObjectExists",
    "ObjectNotFound",
    "ParameterError",
    "ProgramError",
    "ReadOnly",
    "RunCancelled",
    "RunTimeout",
    "StorageError",
    "StoreUnavailable",
    "TransferCancelled",
    "TransferTimeout",
    "UnsupportedByDriver",
    "UnsupportedByStore",
    "did_you_mean",
]


#: characters of a message; whoever gives a value of a megabyte need not read it again
_LONGEST = 10_000


class AcceleratorException(Exception):
    """Root of all errors raised by apyfal.

    Its text has no password or signature of a URL, whatever it quotes: a URL can be given where a name, a file or a
    device is expected, and then it is in a message of a driver or of the configuration.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(_shown(value) if isinstance(value, str) else value for value in arguments))


def _shown(text: str) -> str:
    return redact_text(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


# -- what the caller asked for ----------------------------------------------------------------------------------------
class ConfigurationError(AcceleratorException, ValueError):
    """A definition, option or configuration file is wrong."""


class ParameterError(AcceleratorException, ValueError):
    """An argument of a call has a wrong value or type."""


class BufferInUse(AcceleratorException, BufferError):
    """A buffer, run or device cannot be closed, resized or reused: a transfer, a run or a view is alive."""


class ClosedError(AcceleratorException, ValueError, RuntimeError):
    """The object was closed before."""


class HostMemoryExhausted(AcceleratorException, MemoryError):
    """No host memory is left, or the pool of pinned memory reached its limit."""


class CopyRefused(AcceleratorException, BufferError):
    """``copy=False`` was given and the data cannot be used in place; the message says why."""


# -- storage ----------------------------------------------------------------------------------------------------------
class StorageError(AcceleratorException, OSError):
    """A store could not do what was asked. Also the base of the more precise ones below.

    Attributes
    ----------
    path
        What was being read or written, as the handler was given it.
    offset
        The byte of the object at which it failed.
    code
        The store's own error code (``SlowDown``, ``NoSuchKey``).
    status
        The HTTP status of the answer.
    request_id
        The store's own id of the failed request, for its operators.
    retry_after
        Seconds after which the store wants to be asked again.
    errno
        The number of the matching error of the system, for code that asks for it; ``None`` if there is none.
    """

    _errno: ClassVar[int | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        path: str | None = None,
        offset: int | None = None,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if self._errno is not None:
            self.errno = self._errno
        self.path = path
        self.offset = offset
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep what `OSError` does not: number, text and file, set apart from its arguments."""
        return _restored, (type(self), self.args, self.__dict__, (self.errno, self.strerror, self.filename))


def _restored(
    kind: type[StorageError], arguments: tuple[Any, ...], state: dict[str, Any], system: tuple[Any, Any, Any]
) -> StorageError:
    """Make a storage error that was pickled."""
    error = kind(*arguments)
    error.__dict__.update(state)
    for name, value in zip(("errno", "strerror", "filename"), system, strict=True):
        if value is not None:  # set to nothing it would be printed
            setattr(error, name, value)
    return error


class InvalidURL(StorageError, ValueError):
    """The text is not a storage URL, or its scheme is not known or not mounted."""


class MountError(StorageError, ValueError):
    """A store cannot be mounted with these parameters."""


class ObjectNotFound(StorageError, FileNotFoundError):
    """There is no such object, bucket or file."""

    _errno = errno.ENOENT


class ObjectExists(StorageError, FileExistsError):
    """Mode ``x`` was asked for and the object is there."""

    _errno = errno.EEXIST


class IsADirectory(StorageError, IsADirectoryError):
    """A directory is where a file was expected."""

    _errno = errno.EISDIR


class NotADirectory(StorageError, NotADirectoryError):
    """A file is where a directory was expected."""

    _errno = errno.ENOTDIR


class AccessDenied(StorageError, PermissionError):
    """The store refused the operation to these credentials."""

    _errno = errno.EACCES


class AuthenticationError(AccessDenied):
    """The store does not know these credentials, or there are none."""


class ObjectChanged(StorageError):
    """The object changed while it was being read; versions are never mixed."""


class ChecksumMismatch(StorageError):
    """The bytes do not have the checksum that the store or the sender stated, twice in a row."""


class StoreUnavailable(StorageError, ConnectionError):
    """The store could not be reached, or kept failing until the retry quota was spent."""


class TransferTimeout(StorageError, TimeoutError):
    """The store stopped answering, or a transfer stopped moving, for longer than its timeout."""

    _errno = errno.ETIMEDOUT


class TransferCancelled(StorageError):
    """The caller cancelled a transfer; nothing of it became visible."""


class UnsupportedByStore(StorageError, NotImplementedError):
    """The store cannot do this kind of thing (appending to an S3 object, say)."""

    _errno = errno.EOPNOTSUPP


# -- devices ----------------------------------------------------------------------------------------------------------
class DriverError(AcceleratorException, RuntimeError):
    """A device or its driver failed; the message holds the device, the buffer and the driver's own text."""


class DriverUnavailable(DriverError):
    """The driver's vendor library is missing or unusable on this machine."""


class UnsupportedByDriver(DriverError, NotImplementedError):
    """The driver or device cannot do what was asked."""


class Misaligned(DriverError, BufferError):
    """Memory does not have the alignment that the driver needs to use it in place."""


class ReadOnly(DriverError, BufferError):
    """Memory is read-only where it would be written."""


class DeviceNotFound(DriverError, LookupError):
    """No device of this driver matches."""


class DeviceLost(DriverError):
    """The device went away; every later call on it raises this too."""


class DeviceMemoryExhausted(DriverError, MemoryError):
    """The device's own memory is full."""


class ProgramError(DriverError):
    """The program cannot be loaded or built, or does not contain this kernel."""


class KernelError(DriverError):
    """A run ended in an error state."""


class RunTimeout(DriverError, TimeoutError):
    """A run did not end in time; it was cancelled, or the device is marked as hung."""


class RunCancelled(DriverError):
    """A run was cancelled before it ended."""


class ForkedProcess(DriverError):
    """A device or buffer of the parent process was used in a forked child."""


# -- remote hosts -----------------------------------------------------------------------------------------------------
class HostError(AcceleratorException):
    """A remote host answered with an error of its own."""


class HostUnreachable(HostError, ConnectionError):
    """The host could not be reached for as long as it takes one to restart."""


class JobRejected(HostError):
    """The host will not take the job now (limits) or at all (its rules)."""


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Text that ends an error about an unknown name: the nearest choices, or all of them.

    Parameters
    ----------
    value
        What was given.
    choices
        What is valid.

    Returns
    -------
    str
        ``"; did you mean 'sha3'?"``, or ``"; expected one of a, b, c"``, or an empty string without choices.
    """
    import difflib  # only on the way to an error: it would double the time that importing this module takes

    known = sorted(set(choices))
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    if known:
        return "; expected one of " + ", ".join(known)
    return ""
