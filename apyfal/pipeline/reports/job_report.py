"""`JobReport`: the result of a job together with what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from apyfal.exceptions import HostError, ParameterError
from apyfal.pipeline.reports.report import Span
from apyfal.units import format_duration, format_size

__all__ = ["JobReport", "reported"]

#: Keys that only some jobs write: a caller's ``info_dict`` may hold them from another job.
_OPTIONAL = ("host", "cycles")


@dataclass(frozen=True, repr=False, eq=False)
class JobReport:
    """The result of a job and what the job did: what ``process(..., report=True)`` returns.

    Attributes
    ----------
    result
        What `process` returns without ``report=True``.
    device, driver
        Name of the device, and of its driver.
    host
        Address of the host that ran the job; ``None``: this machine.
    bytes_in, bytes_out
        Bytes read from the job's inputs, and written to its outputs.
    bytes_copied, copy_reasons
        Bytes that were copied in host memory, and why.
    bytes_moved
        Bytes that were transferred between host memory and device: ``to_device`` and ``from_device``.
    seconds
        By stage, summed over all chunks; ``total``: the job from its beginning to its end.
    chunks
        Number of chunks.
    limit
        What limited the job: ``fetch 97 %, card idle 38 %``. Empty if no stage was at work.
    timeline
        Start and end of each chunk in each stage, in seconds since the job began. Empty for a job of another machine.
    cycles, details
        Clock cycles of the kernel, and what else the driver measured; only the driver ``rtl`` does.

    Notes
    -----
    In a notebook it is shown as a table.
    """

    result: Any
    device: str
    driver: str
    bytes_in: int
    bytes_out: int
    bytes_copied: int
    copy_reasons: tuple[str, ...]
    bytes_moved: Mapping[str, int]
    seconds: Mapping[str, float]
    chunks: int
    limit: str
    timeline: tuple[Span, ...] = ()
    host: str | None = None
    cycles: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, result: object, info: Mapping[str, Any]) -> JobReport:
        """Return the report of a job from its result and its ``info_dict``.

        Raises
        ------
        HostError
            The values came from a host, and are not what they should be.
        """
        driver = str(info.get("driver", ""))
        host = info.get("host")
        try:
            details = info.get(driver) or {}
            cycles = info.get("cycles")
            return cls(
                result=result,
                device=str(info.get("device", "")),
                driver=driver,
                bytes_in=int(info.get("bytes_in", 0)),
                bytes_out=int(info.get("bytes_out", 0)),
                bytes_copied=int(info.get("bytes_copied", 0)),
                copy_reasons=tuple(str(reason) for reason in info.get("copy_reasons", ())),
                bytes_moved={str(way): int(count) for way, count in dict(info.get("bytes_moved") or {}).items()},
                seconds={str(stage): float(time) for stage, time in dict(info.get("seconds") or {}).items()},
                chunks=int(info.get("chunks", 0)),
                limit=str(info.get("limit", "")),
                timeline=tuple(info.get("timeline", ())),
                host=None if host is None else str(host),
                cycles=None if cycles is None else int(cycles),
                details=dict(details),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise HostError(f"{host}: the job ended, and its report cannot be read ({error})") from None

    def __repr__(self) -> str:
        where = " ".join(_shown(text) for text in (self.driver, self.device, self.host and f"on {self.host}") if text)
        sizes = ", ".join(
            f"{format_size(count)} {what}"
            for count, what in (
                (self.bytes_in, "in"),
                (self.bytes_out, "out"),
                (self.bytes_copied, "copied"),
                (sum(self.bytes_moved.values()), "moved"),
            )
        )
        limit = f"; {_shown(self.limit)}" if self.limit else ""
        return f"<JobReport {where}: {sizes}, {format_duration(self.seconds.get('total', 0.0))}{limit}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        moved = [f"{format_size(count)} {way.replace('_', ' ')}" for way, count in self.bytes_moved.items()]
        times = [f"{stage} {format_duration(time)}" for stage, time in self.seconds.items() if time]
        copied = format_size(self.bytes_copied) + (f" ({'; '.join(self.copy_reasons)})" if self.copy_reasons else "")
        rows = {
            "device": self.device,
            "driver": self.driver,
            "host": self.host or "",
            "in": format_size(self.bytes_in),
            "out": format_size(self.bytes_out),
            "copied": copied,
            "moved": ", ".join(moved),
            "chunks": str(self.chunks),
            "seconds": ", ".join(times),
            "limit": self.limit,
            "cycles": "" if self.cycles is None else f"{self.cycles:,}",
        }
        cells = "".join(
            f"<tr><th>{name}</th><td>{escape(_shown(text))}</td></tr>" for name, text in rows.items() if text
        )
        return f"<table>{cells}</table>"


def reported(
    run: Callable[..., Any], report: object, info: dict[str, Any] | None, *args: Any, **kwargs: Any
) -> JobReport:
    """Run a job by a function that takes ``info_dict``, and return its report.

    Parameters
    ----------
    run
        Called with `info` as ``info_dict`` and the other arguments.
    report
        The caller's ``report=``, which is not ``False``.
    info
        The caller's ``info_dict``, which is filled as well.

    Raises
    ------
    ParameterError
        `report` is not ``True``.
    """
    if report is not True:
        raise ParameterError(f"report: {report!r}; expected True or False")
    info = {} if info is None else info
    for key in _OPTIONAL:
        info.pop(key, None)
    result = run(*args, info_dict=info, **kwargs)
    return JobReport.of(result, info)


def _shown(text: str) -> str:
    """Return text on one line, without characters that steer a terminal: another machine may have chosen it."""
    return "".join(character if character.isprintable() else "?" for character in text)
