"""``apyfal bench``: what a card does on this machine."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any

import click
import numpy as np

import apyfal
from apyfal.cli.bars import Bar, svg_bars, text_bars
from apyfal.cli.commands.machine.places import Measurement, measure_place
from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows
from apyfal.cli.completion import complete_accelerator, complete_driver, complete_path
from apyfal.exceptions import KernelError
from apyfal.log import redact_text
from apyfal.units import format_duration, format_size, parse_size

__all__ = ["command"]

_SMALL = 4 << 10  # a job of this size costs what a job costs at all
_SMALL_JOBS = 200  # in one measurement of it


@click.command(cls=Command, name="bench")
@click.argument("urls", metavar="[URL]...", nargs=-1, shell_complete=complete_path)
@click.option(
    "-a",
    "--accelerator",
    metavar="NAME",
    shell_complete=complete_accelerator,
    default="loopback",
    show_default=True,
    help="One that copies.",
)
@click.option(
    "--driver",
    metavar="NAME",
    shell_complete=complete_driver,
    help="What runs it: emulator (default), opencl, xrt, xdma or a plugin's.",
)
@click.option("--device", metavar="DEVICE", help="An index or part of a name; 'apyfal devices' lists them.")
@click.option("--size", metavar="SIZE", default="256MiB", show_default=True, help="Of the large job.")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="How often each is measured.")
@click.option("--svg", metavar="FILE", help="Write the rates as a picture.")
@common_options
@click.pass_obj
def command(
    settings: CommonOptions,
    /,
    *,
    urls: tuple[str, ...],
    accelerator: str,
    driver: str | None,
    device: str | None,
    size: str,
    repeat: int,
    svg: str | None,
) -> None:
    """Measure a card: the time that a job costs, and the throughput of a large one, from and to pinned memory.

    Each URL is a directory or a prefix of a store: --size bytes and 64 small objects are written below it under new
    names, read, checked and removed. For a directory, bare system calls do the same for comparison.

    The median of all measurements counts; least and most are shown beside it. The data of every job is checked.
    """
    nbytes = parse_size(size)
    if nbytes < 1:
        raise click.UsageError(f"--size {size}: expected 1 byte or more")
    where = {key: text for key, text in (("driver", driver), ("device", device)) if text is not None}
    with apyfal.Accelerator(accelerator, config=settings.config, **where) as card:
        info: dict[str, Any] = {}
        small = _measure(lambda: _jobs(card, _SMALL, _SMALL_JOBS, info), repeat)
        large = _measure(lambda: _jobs(card, nbytes, 1, info), repeat)
    measured = [(redact_text(url), measure_place(url, nbytes, repeat)) for url in urls]
    machine = f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    bars = [Bar(f"{info['device']}, there and back", nbytes / large["median"])]
    for url, found in measured:
        for row in found:
            bars.append(Bar(f"{url}: {row.what}", row.nbytes / row.seconds))
            if row.limit is not None:
                bars.append(Bar("bare system calls", row.nbytes / row.limit, limit=True))
    if svg is not None:
        apyfal.storage.write_text(svg, svg_bars("Rates measured by apyfal bench", machine, bars), "utf-8")
    if settings.json:
        print_json(
            {
                "machine": machine,
                "device": info["device"],
                "driver": info["driver"],
                "small": {"bytes": _SMALL, "seconds": small},
                "large": {"bytes": nbytes, "seconds": large, "bytes_copied": info["bytes_copied"]},
                "limit": info["limit"],
                "places": [{"url": url, "rows": [asdict(row) for row in found]} for url, found in measured],
            }
        )
        return
    click.echo(f"{info['device']} ({info['driver']}) on {machine}\n")
    rows = [
        [f"one job of {format_size(_SMALL)}", *(format_duration(small[key]) for key in ("median", "least", "most"))],
        [
            f"{format_size(nbytes)} there and back",
            *(f"{format_size(nbytes / large[key])}/s" for key in ("median", "most", "least")),
        ],
    ]
    print_rows(rows, header=("what", "median", "least", "most"))
    click.echo(f"\ncopied in memory: {format_size(info['bytes_copied'])}; what limited it: {info['limit']}")
    for url, found in measured:
        click.echo(f"\n{url}")
        print_rows([_cells(row) for row in found], header=("what", "median", "bare calls", "rate", "what limited it"))
    if measured:
        click.echo("\n" + "\n".join(text_bars(bars)))


def _cells(row: Measurement) -> list[str]:
    bare = "" if row.limit is None else format_duration(row.limit)
    rate = f"{format_size(round(row.nbytes / row.seconds))}/s"
    return [row.what, format_duration(row.seconds), bare, rate, row.limited_by]


def _measure(work: Callable[[], float], repeat: int) -> dict[str, float]:
    """Return seconds: median, least and most of `repeat` measurements after one that does not count."""
    work()
    seconds = sorted(work() for _ in range(repeat))
    return {"median": statistics.median(seconds), "least": seconds[0], "most": seconds[-1]}


def _jobs(card: apyfal.Accelerator, nbytes: int, count: int, info: dict[str, Any]) -> float:
    """Run `count` jobs over `nbytes` bytes; return the seconds of one."""
    source = card.empty(nbytes, np.uint8)
    target = card.empty(nbytes, np.uint8)
    source[:] = np.resize(np.arange(251, dtype=np.uint8), nbytes)
    target[:] = 0
    start = perf_counter()
    for _ in range(count):
        card.process(source, target, info_dict=info)
    seconds = (perf_counter() - start) / count
    if not np.array_equal(source, target):
        raise KernelError(f"{info['device']}: the output differs from the input")
    return seconds
