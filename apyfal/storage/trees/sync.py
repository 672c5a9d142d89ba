"""`sync`: make one tree like another, copying what differs."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Any

from apyfal.exceptions import AcceleratorException, ObjectChanged, ObjectNotFound, ParameterError, StorageError
from apyfal.storage.api.copying import copy_to
from apyfal.storage.api.namespace import makedirs, rmdir, stat_at
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.batch.lanes import in_threads
from apyfal.storage.batch.many import remove_listed, stat_each
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.options import Progress
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.trees.comparing import differs, differs_in_content, is_changed
from apyfal.storage.trees.filters import Filter
from apyfal.storage.trees.plan import SyncPlan, Work, make_plan
from apyfal.storage.trees.sides import (
    Tree,
    list_destination,
    list_source,
    path_on_disk,
    require_apart,
    require_two_trees,
)
from apyfal.storage.url import parse

__all__ = ["SyncReport", "sync"]

#: Most attempts to copy a file that is written to at the same time.
_ATTEMPTS = 3
#: Files that are compared and copied before the next ones are loaded into memory.
_BLOCK = 8 << 10
#: Files that are deleted between two checks for failures.
_REMOVED = 1000


@dataclass
class SyncReport:
    """What `sync` did, or with ``dry_run`` would do.

    Attributes
    ----------
    copied
        Path below the top to why it was copied: ``"new"``, ``"size"``, ``"time"`` or ``"content"``.
    deleted
        Paths that were deleted at the destination.
    same
        How many files were left unchanged, because they do not differ.
    bytes
        Bytes of what was copied.
    left
        What could not be copied or deleted, or is not a file: an error for each.
    nothing_deleted
        Whether files that the source does not have were left, since `left` is not empty.
    """

    copied: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    same: int = 0
    bytes: int = 0
    left: list[Exception] = field(default_factory=list)
    nothing_deleted: bool = False

    def add_copied(self, name: str, reason: str) -> None:
        """Record a file that was copied. A subclass can override this to keep fewer names."""
        self.copied[name] = reason

    def add_deleted(self, name: str) -> None:
        """Record a path that was deleted. A subclass can override this to keep fewer names."""
        self.deleted.append(name)


def sync(
    src: object,
    dst: object,
    *,
    checksum: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    keep_going: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_links: bool = True,
    concurrency: int = 8,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: SyncReport | None = None,
) -> SyncReport:
    """Make a directory like another: copy the files that it lacks or that differ, several at once.

    Each copy is complete or does not exist, so an interrupted call can be repeated: it copies what is missing.

    Parameters
    ----------
    src, dst
        Directories, as storage URLs or paths. `dst` is made if it does not exist, but for a bucket.
    checksum
        Compare contents: by checksums that both stores state, else by reading. Default: size and time. Local copies
        have the time of their source; a copy elsewhere differs if it is older than its source, by the clocks of the
        stores.
    delete
        Delete files at the destination that the source does not have, after all copies. Nothing is deleted if anything
        was left: a listing that was not complete, a file that could not be copied.
    dry_run
        Only find out what there is to do.
    keep_going
        Continue after files that cannot be copied; the report has the errors. By default, a file that cannot exist at
        the destination ends the call before it copies anything, and the first error ends it. What is not a file (a
        broken link, a pipe) is in the report in any case.
    include, exclude
        Patterns that select files, see `apyfal.storage.trees.filters.Filter`; other files are neither copied nor
        deleted.
    follow_links
        Whether links to local directories below `src` are followed. Links at the destination never are.
    concurrency
        Files that are compared and copied at once.
    metadata
        As for `copy`.
    progress
        Called with the bytes of the files that are done, and those of all that differ (``None`` with `checksum`).
    report
        Filled while the call runs, so that it also shows what was done before an error.

    Returns
    -------
    SyncReport
        What was done.

    Raises
    ------
    ParameterError
        The trees overlap, two sources would become one file, or a pattern is malformed.
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        One of the two cannot be listed; nothing was done then. Or, without `keep_going`, a file cannot be copied; those
        that were done stay.

    Notes
    -----
    Memory: some 100 bytes a file for the two listings, what the report holds of each that is copied or deleted, and the
    buffers of `concurrency` copies (at most 64 MiB each).
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ParameterError(f"sync: concurrency is {concurrency!r}; expected a number of at least 1")
    stated = ObjectMetadata.of(metadata)
    chosen = Filter(include, exclude)
    source, destination = parse(src), parse(dst)
    if destination.is_local and stated is not None:
        raise ParameterError(f"sync: {str(destination)!r} is local, and a local file keeps no metadata")
    require_apart(source, destination)
    source_tree, problems = list_source(source, chosen, destination, follow_links=follow_links)
    destination_tree = list_destination(destination, chosen)
    require_two_trees(source_tree, destination_tree)
    plan = make_plan(source_tree, destination_tree, checksum=checksum, delete=delete)
    report = SyncReport() if report is None else report
    problems += plan.problems
    if problems and not keep_going:
        error = problems[0]
        if len(problems) > 1:
            error.args = (f"{error} (and {len(problems) - 1} more)", *error.args[1:])
        raise error
    report.left += [*problems, *source_tree.problems.values()]
    report.same += plan.same
    _Run(source_tree, destination_tree, plan, report, checksum, dry_run, keep_going, stated, progress).copy(concurrency)
    if delete:
        _delete(destination_tree, plan, report, dry_run=dry_run, keep_going=keep_going)
    return report


class _Run:
    """The copies of one call."""

    def __init__(
        self,
        source_tree: Tree,
        destination_tree: Tree,
        plan: SyncPlan,
        report: SyncReport,
        checksum: bool,
        dry_run: bool,
        keep_going: bool,
        metadata: ObjectMetadata | None,
        progress: Progress | None,
    ) -> None:
        self._source = source_tree
        self._destination = destination_tree
        self._plan = plan
        self._report = report
        self._checksum = checksum
        self._dry_run = dry_run
        self._keep_going = keep_going
        self._metadata = metadata
        self._progress = progress
        self._made: set[str] = set()
        self._lock = Lock()
        self._total = plan.total
        self._done = 0
        self._files: dict[str, Work] = {}  # those that are copied now

    def copy(self, concurrency: int) -> None:
        """Compare and copy everything; make empty directories."""
        waiting = iter(self._plan.work)
        while some := list(islice(waiting, _BLOCK)):
            self._files = {work.name: work for work in some}
            self._copy_these(list(self._files), concurrency)
        if self._destination.on_disk and not self._dry_run:
            for (name,) in self._plan.folders:
                try:
                    self._make_directory(self._destination.at(name).url)
                except (AcceleratorException, OSError) as error:
                    if not self._keep_going:
                        raise
                    self._report.left.append(error)

    def _copy_these(self, names: list[str], concurrency: int) -> None:
        together = [name for name in names if not self._dry_run and self._is_sure(name)]
        sure = set(together)
        self._visit_all([name for name in names if name not in sure], concurrency)
        again: list[str] = []
        copy_each(
            [(self._source.at(name), self._destination.at(name)) for name in together],
            [self._files[name].size for name in together],
            metadata=self._metadata,
            copied=lambda done: again.extend(self._check([(together[number], info) for number, info in done])),
            one_by_one=lambda numbers: self._visit_all([together[number] for number in numbers], concurrency),
        )
        self._visit_all(again, concurrency)

    def _is_sure(self, name: str) -> bool:
        """Return whether the listings alone show that a file must be copied."""
        info, existing = self._files[name].source, self._files[name].existing
        if self._destination.on_disk:
            return False  # its directory must be made first
        if existing is None:
            return True
        known = all(one is not None for one in (info.size, existing.size, info.mtime, existing.mtime))
        return known and not self._checksum and self._difference(name) in ("size", "time")

    def _check(self, copies: list[tuple[str, ObjectInfo]]) -> list[str]:
        """Report copies that were made together; return those whose source was written to during the copy."""
        changed = []
        found = stat_each([self._source.at(name) for name, _ in copies])
        for (name, info), now in zip(copies, found, strict=True):
            if isinstance(now, Exception) or is_changed(info, now):
                changed.append(name)
            else:
                self._report_copy(name, self._difference(name) or "new", info)
        return changed

    def _visit_all(self, every: list[str], concurrency: int) -> None:
        """Compare and copy these files, several at once."""
        left = deque(every)
        failures: list[BaseException] = []
        cancel = CancelToken(current_cancel())

        def work() -> None:
            with cancel.scope():
                while not cancel.is_set():
                    try:
                        name = left.popleft()
                    except IndexError:
                        return
                    try:
                        self._visit(name)
                    except BaseException as error:
                        if not self._goes_on(name, error, cancel):
                            failures.append(error)
                            cancel.set()

        try:
            in_threads("sync", min(concurrency, len(every)), work, cancel)
            if failures:
                raise failures[0]
            cancel.check()
        finally:
            cancel.detach()

    def _goes_on(self, name: str, error: BaseException, cancel: CancelToken) -> bool:
        """Record that a file was not copied; return whether to continue with the others."""
        if not self._keep_going or cancel.is_set() or not isinstance(error, (AcceleratorException, OSError)):
            return False
        with self._lock:
            self._report.left.append(error)
            self._move(name, 0)
        return True

    def _move(self, name: str, moved: int) -> None:
        """Count the bytes of a file that is done, instead of its size in the listing; the lock is held."""
        self._done += moved
        if self._total is not None:
            self._total += moved - (self._files[name].size or 0)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _difference(self, name: str) -> str | None:
        source, existing = self._files[name].source, self._files[name].existing
        return "new" if existing is None else differs(source, existing, keeps_time=self._destination.top.is_local)

    def _visit(self, name: str) -> None:
        source, destination = self._source.at(name), self._destination.at(name)
        info, existing = self._files[name].source, self._files[name].existing
        reason = self._difference(name)
        if existing is not None and (
            info.size is None or existing.size is None or info.mtime is None or existing.mtime is None
        ):
            # listings of this store do not say what a look-up does
            info, existing = stat_at(source), stat_at(destination)
            reason = differs(info, existing, keeps_time=destination.is_local)
        if existing is not None and (reason == "content" or (self._checksum and reason != "size")):
            reason = "content" if differs_in_content(source, destination) else None
        if reason is None:
            with self._lock:
                self._report.same += 1
                self._move(name, 0)
            return
        if not self._dry_run:
            info = self._copied(name, info)
        self._report_copy(name, reason, info)

    def _report_copy(self, name: str, reason: str, info: ObjectInfo) -> None:
        with self._lock:
            self._report.add_copied(name, reason)
            self._report.bytes += info.size or 0
            self._move(name, info.size or 0)

    def _copied(self, name: str, info: ObjectInfo) -> ObjectInfo:
        """Copy one file; return what it was."""
        source, destination = self._source.at(name), self._destination.at(name)
        if (path := path_on_disk(destination)) is not None and os.path.islink(path):
            raise StorageError(f"{str(destination)!r} is a link: what it leads to is not replaced; expected a file")
        if self._destination.on_disk:
            folder = self._destination.at(name.rpartition("/")[0]) if "/" in name else self._destination.top
            self._make_directory(folder.url)
        for _ in range(_ATTEMPTS):
            mtime = info.mtime if destination.is_local else None
            copy_to(source, destination, metadata=self._metadata, mtime=mtime)
            if destination.is_local:
                return info  # if it was written to meanwhile, its time is another than the copy's
            now = stat_at(source)
            if not is_changed(info, now):
                return info
            info = now  # the copy is newer than the source, and would be taken for the same next time
        raise ObjectChanged(f"{str(source)!r} was written to while it was copied, {_ATTEMPTS} times in a row")

    def _make_directory(self, url: str) -> None:
        with self._lock:
            if url not in self._made:
                makedirs(url, exist_ok=True)
                self._made.add(url)


def _delete(destination_tree: Tree, plan: SyncPlan, report: SyncReport, *, dry_run: bool, keep_going: bool) -> None:
    """Delete what only the destination has, unless something was left."""
    report.left += destination_tree.problems.values()
    if report.left:
        report.nothing_deleted = bool(plan.extra or plan.empty)
        return
    waiting = (name for (name,) in plan.extra)
    while names := list(islice(waiting, _REMOVED)):
        outcomes = [None] * len(names) if dry_run else remove_listed([destination_tree.at(name) for name in names])
        for name, error in zip(names, outcomes, strict=True):
            if error is None:
                report.add_deleted(name)
        failed = [error for error in outcomes if error is not None]
        if failed and not keep_going:
            raise failed[0]
        report.left += failed
    for _, name, was_empty in plan.emptied:
        is_gone = dry_run or _remove_directory(destination_tree.at(name).url, report, keep_going=keep_going)
        if is_gone and was_empty:
            report.add_deleted(f"{name}/")


def _remove_directory(url: str, report: SyncReport, *, keep_going: bool) -> bool:
    """Remove a directory all of whose selected files were removed; return whether it was removed."""
    try:
        rmdir(url)
    except ObjectNotFound:
        return False  # it was removed by somebody else meanwhile
    except (AcceleratorException, OSError) as error:
        if isinstance(error, StorageError) and error.errno == errno.ENOTEMPTY:
            return False  # it holds files that the filter does not select
        if not keep_going:
            raise
        report.left.append(error)
        return False
    return True
