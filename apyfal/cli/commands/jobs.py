"""``apyfal jobs`` and ``apyfal cancel``: jobs on a host."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from apyfal.cli.common import (
    Command,
    CommonOptions,
    common_options,
    host_option,
    named_host,
    print_error,
    print_json,
    print_rows,
)
from apyfal.exceptions import AcceleratorException, HostError
from apyfal.units import format_size

__all__ = ["cancel", "command"]


@click.command(cls=Command, name="jobs")
@click.argument("ids", nargs=-1, metavar="[JOB]...")
@host_option
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, ids: tuple[str, ...], host: str | None) -> None:
    """List your newest jobs on a host, or the JOBs of these ids; those of all users, for an administrator.

    The host is that of --host, or of [host] in the configuration; a token is taken from $APYFAL_TOKEN or from there.
    """
    with named_host(settings, host) as there:
        found = [there.json("GET", _target(one)) for one in ids] if ids else there.json("GET", "/v1/jobs")["jobs"]
    if settings.json:
        print_json(found)
        return
    print_rows([_row(job) for job in found], header=("job", "state", "done", "error"))


@click.command(cls=Command, name="cancel")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@host_option
@common_options
@click.pass_obj
def cancel(settings: CommonOptions, /, *, ids: tuple[str, ...], host: str | None) -> None:
    """Cancel JOBs on a host that wait or run; 'apyfal jobs' lists their ids.

    Each is tried, and those that could not be cancelled (unknown, of somebody else, ended) are named at the end.
    """
    failed: list[Exception] = []
    cancelled = []
    with named_host(settings, host) as there:
        for one in ids:
            try:
                cancelled.append(there.json("DELETE", _target(one)))
            except AcceleratorException as error:
                if len(ids) == 1:
                    raise
                failed.append(error)
    if settings.json:
        print_json(cancelled)
    if failed:
        for one_failed in failed:
            print_error(one_failed, as_json=settings.json)
        raise HostError(f"{len(failed)} of {len(ids)} jobs could not be cancelled")


def _target(job: str) -> str:
    """Return the request target of a job, of whatever text: it stays one part of a path."""
    if job in ("", ".", ".."):
        raise click.UsageError(f"{job!r} is not a job's id; 'apyfal jobs' lists them", click.get_current_context())
    return f"/v1/jobs/{quote(job, safe='')}"


def _row(job: dict[str, Any]) -> list[str]:
    progress = job.get("progress") or {}  # there is none of a job that an earlier daemon left
    done, total = progress.get("done", 0), progress.get("total")
    shown = format_size(done) if total is None else f"{format_size(done)} of {format_size(total)}"
    reason = (job.get("error") or {}).get("message") or ""
    return [job["id"], job["state"], shown if done or total else "-", str(reason)]
