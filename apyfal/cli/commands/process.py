"""``apyfal process``: run one job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

import apyfal
from apyfal import storage
from apyfal.accelerator import LOCAL
from apyfal.accelerators import resolve
from apyfal.cli.commands.many_jobs import JobFiles, Many, find_sources, has_fields, make_folders, place_outputs, run_all
from apyfal.cli.common import Command, CommonOptions, common_options, key_values, print_error, print_json
from apyfal.cli.completion import complete_accelerator, complete_driver, complete_path
from apyfal.cli.progress import ProgressSum, progress_bar
from apyfal.cli.selection import matches
from apyfal.cli.trace import write_trace
from apyfal.config.configuration import host_ip_of
from apyfal.exceptions import ObjectNotFound, StorageError, did_you_mean
from apyfal.storage.packed import Packed
from apyfal.storage.url import redact
from apyfal.units import format_duration, format_size, parse_duration

if TYPE_CHECKING:
    from apyfal.definition.definition import Definition

__all__ = ["command"]

_DATA = "the output is data: expected -o URL, or -o - for standard output"


@click.command(
    cls=Command,
    name="process",
    epilog="A token for --host is taken from $APYFAL_TOKEN or the configuration, never from the command line.",
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete_path)
@click.option(
    "-a",
    "--accelerator",
    metavar="NAME",
    shell_complete=complete_accelerator,
    help="Which one; 'apyfal accelerators' lists them.",
)
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=URL", help="Of several inputs, one by its name.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="[NAME=]URL",
    shell_complete=complete_path,
    help="Where the output goes; '-' is standard output. Of several, one by its name.",
)
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="KEY=VALUE", help="A parameter of the job.")
@click.option("-d", "--define", "defines", multiple=True, metavar="KEY=VALUE", help="A key of [accelerator.NAME].")
@click.option("--dtype", metavar="TYPE", help="Element type of the source, like int32 or float64.")
@click.option(
    "--driver",
    metavar="NAME",
    shell_complete=complete_driver,
    help="What runs it: emulator (default), opencl, xrt, xdma or a plugin's.",
)
@click.option("--device", metavar="DEVICE", help="An index or part of a name; 'apyfal devices' lists them.")
@click.option("--host", metavar="URL", help="Run it on another machine: address or https://host:port; 'local': here.")
@click.option("--timeout", metavar="TIME", help="Give up after so long: seconds, or text like 500ms, 30s, 5min.")
@click.option("--memory-limit", metavar="SIZE", help="Host memory the job may take, like 256MiB.")
@click.option("--no-copy", is_flag=True, help="Fail where data would have to be copied in memory.")
@click.option("-r", "--recursive", is_flag=True, help="A job for each file below directories.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="Of several jobs, so many at once.")
@click.option("--resume", is_flag=True, help="Of several jobs, leave out those whose output is there.")
@click.option("-k", "--keep-going", is_flag=True, help="Of several jobs, go on past those that fail, and sum up.")
@click.option("--trace", metavar="FILE", help="Write a timeline of all stages, for ui.perfetto.dev.")
@click.option("-v", "--verbose", is_flag=True, help="Say afterwards what was done, on standard error.")
@common_options
@click.pass_obj
def command(
    settings: CommonOptions,
    /,
    *,
    sources: tuple[str, ...],
    accelerator: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    parameters: tuple[str, ...],
    defines: tuple[str, ...],
    host: str | None,
    timeout: str | None,
    memory_limit: str | None,
    no_copy: bool,
    recursive: bool,
    jobs: int | None,
    resume: bool,
    keep_going: bool,
    trace: str | None,
    verbose: bool,
    **options: str | None,
) -> None:
    """Run an accelerator over SOURCE, a storage URL, a path, or '-' for standard input.

    Result parameters, such as a digest, are printed; data goes to --output. Several sources, a pattern, or directories
    with -r are a job each, in one process; fields in --output tell the outputs apart: {name}, {stem}, {suffix}, {path}
    (below the directory that was named), {parent}, {index}. Each output appears whole or not at all, so that --resume
    completes what was interrupted.

    \b
      apyfal process -a sha3 README.md
      apyfal process -a gzip -p level=9 s3://lab/reads.bin -o reads.gz
      apyfal process -a scale --dtype int16 -p a=3 in.raw -o out.raw
      apyfal process -a sha3 --jobs 8 's3://lab/in/**/*.bin' -o 's3://lab/out/{stem}.sha3'
      apyfal process -a join -i x=a.raw -i y=b.raw -o total=t.raw -o low=l.raw
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    job: dict[str, Any] = {**key_values(parameters, "-p")}
    given = {key: text for key, text in options.items() if text is not None}
    definition: dict[str, Any] = {**key_values(defines, "-d"), **given}
    here = (host or host_ip_of(settings.config) or LOCAL) == LOCAL
    if inputs and sources:
        raise click.UsageError(f"SOURCE {sources[0]!r} and -i exclude each other")
    source = sources[0] if sources else None
    several = len(sources) > 1 or recursive or _is_several(sources, outputs)
    if not several and (jobs is not None or resume or keep_going):
        raise click.UsageError("--jobs, --resume and --keep-going are for several sources, a pattern, or -r")
    src: Mapping[str, str] | str | None = key_values(inputs, "-i") if inputs else source
    names: list[str] | None = None
    if here:
        local = resolve(accelerator, settings.config, **definition)
        _check_outputs(local, outputs)
        names = [port.name for port in local.outputs]
    if several:
        if inputs or "-" in (*sources, *outputs) or len(outputs) > 1 or trace is not None:
            raise click.UsageError("several jobs take neither '-', -i, several -o nor --trace")
        many = _planned(sources, outputs[0] if outputs else None, recursive, jobs, keep_going)
        keywords = {"copy": not no_copy, "memory_limit": memory_limit, "timeout": timeout, **job}
        with apyfal.Accelerator(
            accelerator,
            config=settings.config,
            host_ip=host,
            token=os.environ.get("APYFAL_TOKEN") if host is not None else None,
            **definition,
        ) as card:
            _run_several(card, many, keywords, settings, resume=resume, verbose=verbose)
        return
    dst = _destinations(outputs, names)
    # for an address of the configuration, who wrote that decides which token it gets
    token = os.environ.get("APYFAL_TOKEN") if host is not None else None
    info: dict[str, Any] = {}
    seconds = None if timeout is None else parse_duration(timeout)
    with (
        apyfal.Accelerator(accelerator, config=settings.config, host_ip=host, token=token, **definition) as card,
        progress_bar(
            str(accelerator or "process"), enabled=settings.progress, remark=lambda: str(info.get("limit", ""))
        ) as progress,
    ):
        result = card.process(
            _opened(src, sys.stdin.buffer),
            _opened(dst, sys.stdout.buffer),
            copy=not no_copy,
            memory_limit=memory_limit,
            info_dict=info,
            timeout=seconds,
            progress=progress,
            **job,
        )
    if dst is None and not isinstance(result, dict):
        raise click.UsageError(_DATA)  # of a host's accelerator this is known only now
    if trace is not None:
        write_trace(trace, info.get("timeline", ()))
    info.pop("timeline", None)
    if verbose:
        _summarize(info)
    _print_result(result if isinstance(result, dict) else {}, info, settings, to_stderr="-" in _each(dst))


def _is_several(sources: tuple[str, ...], outputs: tuple[str, ...]) -> bool:
    """Return whether one source means several jobs: a pattern, or fields in the output's name."""
    if len(sources) != 1 or sources[0] == "-":
        return False
    return any(has_fields(output) for output in outputs) or matches(sources[0]) is not None


def _planned(sources: tuple[str, ...], output: str | None, recursive: bool, jobs: int | None, keep_going: bool) -> Many:
    found = find_sources(sources, recursive=recursive)
    return Many(place_outputs(found, output), jobs, keep_going)


def _run_several(
    card: apyfal.Accelerator,
    many: Many,
    keywords: Mapping[str, object],
    settings: CommonOptions,
    *,
    resume: bool,
    verbose: bool,
) -> None:
    """Run several jobs; print each result, and what failed."""
    every = len(many.jobs)
    if resume:
        many = many._replace(jobs=_not_done(many.jobs))
    make_folders(many.jobs)
    done, failed, bytes_in, bytes_out, began = 0, 0, 0, 0, time.monotonic()
    documents: list[dict[str, Any]] = []
    with progress_bar(
        f"{len(many.jobs)} jobs", enabled=settings.progress, remark=lambda: f"{done} of {len(many.jobs)}"
    ) as progress:
        shown = ProgressSum(progress, (job.size for job in many.jobs))
        for number, outcome in enumerate(run_all(card.process_submit, many, keywords)):
            if outcome.error is not None:
                failed += 1
                shown.failed(number)
                print_error(outcome.error, as_json=settings.json)
                continue
            done += 1
            moved = outcome.info.get("bytes_in", 0)
            bytes_in += moved
            bytes_out += outcome.info.get("bytes_out", 0)
            if (show := shown.part(number)) is not None:
                show(moved, moved)
            result = outcome.result if isinstance(outcome.result, dict) else {}
            if outcome.destination is None and not isinstance(outcome.result, dict):
                raise click.UsageError(_DATA)  # of a host's accelerator this is known only now
            if settings.json:
                documents.append(
                    {
                        "source": redact(outcome.source),
                        "destination": None if outcome.destination is None else redact(outcome.destination),
                        "result": result,
                    }
                )
            elif result and outcome.destination is None:
                values = " ".join(map(str, result.values())) if len(result) == 1 else str(result)
                click.echo(f"{values}  {redact(outcome.source)}")
    if settings.json:
        print_json(documents)
    if verbose:
        seconds = time.monotonic() - began
        skipped = f", {every - len(many.jobs)} were there" if resume else ""
        click.echo(
            f"{done} jobs{skipped}, {format_size(bytes_in)} in, {format_size(bytes_out)} out,"
            f" {format_duration(seconds)}, {done / max(seconds, 1e-9):.0f} a second",
            err=True,
        )
    if failed:
        raise StorageError(f"{failed} of {len(many.jobs)} jobs failed")


def _not_done(jobs: Packed[JobFiles]) -> Packed[JobFiles]:
    """Return the jobs whose output is not there."""
    left: Packed[JobFiles] = Packed(JobFiles._make)
    for some in jobs.blocks():
        places = [job.destination for job in some if job.destination is not None]
        if len(places) < len(some):
            raise click.UsageError("--resume goes by the outputs that are there: expected -o")
        found = storage.stat_many(places, return_exceptions=True)
        left.extend(job for job, info in zip(some, found, strict=True) if isinstance(info, ObjectNotFound))
    return left


def _destinations(outputs: tuple[str, ...], names: list[str] | None) -> Mapping[str, str] | str | None:
    """Read the values of ``-o``.

    Parameters
    ----------
    outputs
        As they were given.
    names
        Of the accelerator's outputs; ``None``: a host knows them.
    """
    if len(outputs) != 1:
        return key_values(outputs, "-o") if outputs else None
    name, equals, url = outputs[0].partition("=")
    if not equals or not name.isidentifier():
        return outputs[0]
    if names is not None and name not in names:
        raise click.UsageError(
            f"-o {outputs[0]!r}: no output is named {name!r}{did_you_mean(name, names)} "
            f"(a file of this name is {'./' + outputs[0]!r})"
        )
    return {name: url}


def _check_outputs(definition: Definition, outputs: tuple[str, ...]) -> None:
    """Ask for places for all data, before anything is opened."""
    names = [port.name for port in definition.outputs]
    if len(names) < 2:
        if definition.gives_data and not outputs:
            raise click.UsageError(_DATA)
        return
    given = key_values(outputs, "-o")
    if missing := [name for name in names if name not in given]:
        raise click.UsageError(f"the outputs are {', '.join(names)}: expected -o {missing[0]}=URL, and so on")


def _each(given: Mapping[str, str] | str | None) -> Iterable[str | None]:
    return given.values() if isinstance(given, Mapping) else (given,)


def _opened(given: Mapping[str, str] | str | None, standard: object) -> Any:
    """Put a standard stream in the place of each '-'."""
    if isinstance(given, Mapping):
        return {name: standard if url == "-" else url for name, url in given.items()}
    return standard if given == "-" else given


def _print_result(result: dict[str, Any], info: dict[str, Any], settings: CommonOptions, *, to_stderr: bool) -> None:
    """Print result parameters; not where the data goes."""
    if settings.json and not to_stderr:
        print_json({"result": result, "info": info})
    elif len(result) == 1:
        click.echo(next(iter(result.values())), err=to_stderr)
    else:
        for key, value in result.items():
            click.echo(f"{key}: {value}", err=to_stderr)


def _summarize(info: dict[str, Any]) -> None:
    seconds = info["seconds"]
    total = seconds["total"]
    chunks = "1 chunk" if info["chunks"] == 1 else f"{info['chunks']} chunks"
    moved = max(info["bytes_in"], info["bytes_out"])
    rate = f", {format_size(moved / total)}/s" if total else ""
    click.echo(
        f"{format_size(info['bytes_in'])} in, {format_size(info['bytes_out'])} out, {chunks}, "
        f"{format_duration(total)}{rate}, on {info['device']} ({info['driver']})",
        err=True,
    )
    stages = ", ".join(f"{stage} {format_duration(spent)}" for stage, spent in seconds.items() if stage != "total")
    click.echo(f"stages: {stages}", err=True)
    if info.get("limit"):  # not from an older host
        click.echo(f"limited by: {info['limit']}", err=True)
    reasons = f": {'; '.join(info['copy_reasons'])}" if info["copy_reasons"] else ""
    click.echo(f"copied in memory: {format_size(info['bytes_copied'])}{reasons}", err=True)
