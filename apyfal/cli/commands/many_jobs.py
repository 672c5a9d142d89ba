"""Several jobs by one command: which sources there are, where each output goes, and running them in one process."""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from apyfal import storage
from apyfal.cli.selection import matches, parent_of
from apyfal.exceptions import (
    AcceleratorException,
    InvalidURL,
    ObjectNotFound,
    ParameterError,
    did_you_mean,
)
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.packed import Packed, Sorter, repeated
from apyfal.storage.trees.names import has_directories
from apyfal.storage.url import parse, redact

__all__ = [
    "JobFiles",
    "Many",
    "Named",
    "Outcome",
    "find_sources",
    "has_fields",
    "make_folders",
    "place_outputs",
    "run_all",
]

#: What braces in ``-o`` stand for.
FIELDS = ("name", "stem", "suffix", "parent", "path", "index")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: Files that are looked up at once.
_BATCH = 1000
#: Jobs that are submitted and not done, without ``--jobs``: enough that small ones travel together.
_UNDER_WAY = 256


class Named(NamedTuple):
    """One source.

    Attributes
    ----------
    url
        Where it is.
    path
        Its path below the directory that was named, or its name.
    size
        Its bytes; ``None``: nobody has asked for them.
    """

    url: str
    path: str
    size: int | None = None


class JobFiles(NamedTuple):
    """One job: a source's URL and size in bytes if known, and where the output goes."""

    source: str
    size: int | None
    destination: str | None


class Outcome(NamedTuple):
    """One job that has ended.

    Attributes
    ----------
    source, destination
        URLs; no destination: the result is `result`.
    result
        What `process` returned.
    info
        Its ``info_dict``.
    error
        Why it failed; ``None``: it did not.
    """

    source: str
    destination: str | None
    result: Any
    info: dict[str, Any]
    error: Exception | None


class Many(NamedTuple):
    """The jobs of one command, and how to run them.

    Attributes
    ----------
    jobs
        Source and destination of each; no destination: the job's output is its result.
    at_once
        Jobs under way at most; ``None``: as many as are of use.
    keep_going
        Whether a job that fails leaves the others alone.
    """

    jobs: Packed[JobFiles]
    at_once: int | None
    keep_going: bool


def has_fields(template: str) -> bool:
    """Return whether a text has a field of `FIELDS` in braces."""
    return any(found[1] in FIELDS for found in _FIELD.finditer(template))


def find_sources(urls: Sequence[str], *, recursive: bool) -> Packed[Named]:
    """List the files and objects that URLs, patterns and, if `recursive`, directories name, each once.

    Raises
    ------
    ObjectNotFound
        Nothing matches a pattern, or nothing is in a directory's place.
    StorageError
        Something below a directory is not a file: a broken link, a pipe.
    """
    found: Packed[Named] = Packed(Named._make)
    for url in urls:
        named = matches(url)
        if named is None:
            found.extend(_below(url, storage.stat(url)) if recursive else [Named(url, _name_of(url))])
        else:
            found.extend(_matched(named, recursive=recursive))
    if not found:
        raise ObjectNotFound(
            f"no files: {', '.join(redact(url) for url in urls)}", path=redact(urls[0]) if urls else ""
        )
    again = repeated(source.url for source in found)
    if not any(again):
        return found
    once: Packed[Named] = Packed(Named._make)
    once.extend(source for source, is_again in zip(found.drain(), again, strict=True) if not is_again)
    return once


def _name_of(url: str) -> str:
    return posixpath.basename(parse(url).path.rstrip("/"))


def _matched(urls: Sequence[str], *, recursive: bool) -> Iterator[Named]:
    """List the files among what matches a pattern and, if `recursive`, those below its directories."""
    for begin in range(0, len(urls), _BATCH):
        some = urls[begin : begin + _BATCH]
        for url, info in zip(some, storage.stat_many(some), strict=True):
            if recursive or not info.is_directory:
                yield from _below(url, info)


def _below(url: str, info: ObjectInfo) -> Iterator[Named]:
    """Give a file, or all files below a directory."""
    if not info.is_directory:
        yield Named(url, _name_of(url), info.size)
        return
    for item in tree(parse(url), sizes_only=True):
        if item.problem is not None:
            raise item.problem
        if not item.is_directory:
            yield Named(item.location.url, item.name, None if item.info is None else item.info.size)


def place_outputs(sources: Iterable[Named], template: str | None) -> Packed[JobFiles]:
    """Return a job for each source, with the place of its output.

    Parameters
    ----------
    sources
        As `find_sources` returns them.
    template
        A URL or path with fields in braces: ``{name}`` (``reads.bin``), ``{stem}`` (``reads``), ``{suffix}``
        (``.bin``), ``{path}`` (below the directory that was named: ``2026/reads.bin``), ``{parent}`` (``2026``),
        ``{index}`` (from 0 on). ``{{`` and ``}}`` are braces. ``None``: nowhere.

    Raises
    ------
    ParameterError
        An unknown field, or two sources with one destination, or a destination that is a source.
    InvalidURL
        A source's name would not be below the destination, or cannot be a file's.
    """
    jobs: Packed[JobFiles] = Packed(JobFiles._make)
    if template is None:
        jobs.extend(JobFiles(source.url, source.size, None) for source in sources)
        return jobs
    for index, source in enumerate(sources):
        if "" in source.path.split("/") and has_directories(template):
            raise InvalidURL(f"{redact(source.url)!r}: its name has an empty part, which a directory cannot hold")
        place = _filled(template, source, index)
        parse(place)
        jobs.append(JobFiles(source.url, source.size, place))
    _require_distinct(jobs)
    return jobs


def _require_distinct(jobs: Packed[JobFiles]) -> None:
    """Refuse destinations that are sources, or those of other jobs."""
    if len(jobs) < 1:
        return
    used: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row[:2])
    for number, job in enumerate(jobs):
        used.add((job.source, -1, ""))
        used.add((job.destination, number, job.source))
    errors: list[tuple[int, ParameterError]] = []
    for place, group in groupby(used, lambda row: row[0]):
        rows = iter(group)
        _, first, source = next(rows)
        # a source that was named several times is there as often
        other = next((row for row in rows if row[1] >= 0), None)
        if other is None:
            continue
        if first < 0:
            error = ParameterError(f"{redact(place)!r} is a source, too, and would be replaced")
        else:
            error = ParameterError(
                f"{redact(source)!r} and {redact(other[2])!r} would both be written to {redact(place)!r}: "
                f"expected fields in -o that tell them apart, of {', '.join(f'{{{field}}}' for field in FIELDS)}"
            )
        errors.append((other[1], error))
    if errors:
        raise min(errors, key=lambda one: one[0])[1]


def _filled(template: str, source: Named, index: int) -> str:
    name = posixpath.basename(source.path)
    stem, suffix = posixpath.splitext(name)
    if {".", ".."} & set(source.path.split("/")):
        # who wrote the source's names does not choose places outside of the destination
        raise InvalidURL(f"{redact(source.url)!r}: its name has a part '.' or '..'")
    values = {
        "name": name,
        "stem": stem,
        "suffix": suffix,
        "parent": posixpath.dirname(source.path),
        "path": source.path,
        "index": str(index),
    }

    def fill(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if found[1] is None:
            raise ParameterError(
                f"-o {redact(template)!r}: a single {found[0]!r}; expected {found[0] * 2!r} for a brace"
            )
        if found[1] not in values:
            raise ParameterError(f"-o {redact(template)!r}: unknown field {found[1]!r}{did_you_mean(found[1], FIELDS)}")
        return values[found[1]]

    if not values["parent"]:
        template = template.replace("{parent}/", "")  # no empty part in the name
    return _FIELD.sub(fill, template)


def make_folders(jobs: Packed[JobFiles]) -> None:
    """Make the directories that the outputs go into, where directories are real."""
    first = next((job.destination for job in jobs), None)
    try:
        if first is None or not has_directories(first):
            return
    except InvalidURL:  # a name that a host may know; here, each job says that nobody does
        return
    for folder in sorted({parent_of(job.destination) for job in jobs if job.destination is not None} - {""}):
        storage.makedirs(folder, exist_ok=True)


def run_all(submit: Callable[..., Any], many: Many, keywords: Mapping[str, object]) -> Iterator[Outcome]:
    """Run the jobs; yield their outcomes in order.

    Parameters
    ----------
    submit
        `Accelerator.process_submit`.
    many
        The jobs.
    keywords
        Of `process`, for every job.

    Yields
    ------
    Outcome
        With an error only if ``many.keep_going``; otherwise the first error is raised, and the jobs that have not
        started are cancelled.
    """
    limit = many.at_once or _UNDER_WAY
    waiting: deque[tuple[JobFiles, dict[str, Any], Any]] = deque()

    def next_outcome() -> Outcome:
        job, info, future = waiting.popleft()
        try:
            return Outcome(job.source, job.destination, future.result(), info, None)
        except (AcceleratorException, OSError) as error:
            if not many.keep_going:
                raise
            return Outcome(job.source, job.destination, None, info, error)

    try:
        for job in many.jobs:
            if len(waiting) >= limit:
                yield next_outcome()
            info: dict[str, Any] = {}
            waiting.append((job, info, submit(job.source, job.destination, info_dict=info, **keywords)))
        while waiting:
            yield next_outcome()
    finally:
        for *_, future in waiting:
            future.cancel()
