"""A SQLite database with a write-ahead log in mapped memory: each write survives the process before it is committed.

Thus many writes can share one commit. What a killed process left in the log is written to the database at the next
start.

SQLite is in WAL mode without a sync at each commit: a killed process loses nothing; a power failure can lose the last
moments. The sync of a checkpoint happens in another thread.

After an error (no space, a quota, the disk), SQLite may have undone any part of the transaction. So everything in the
log is written again before anything is read or committed, and the log is cleared only after a commit that contained all
of it. A commit fails if writes are lost that were not in the log.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from apyfal.exceptions import ConfigurationError
from apyfal.host.server.records.mapped_log import MappedLog

__all__ = ["LoggedDatabase", "Schema"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_SEPARATOR = "\0"
#: pages in the WAL after which a commit itself writes them back, in case `checkpoint` does not keep up
_WAL_PAGES = 16384


class Schema(NamedTuple):
    """The tables of a `LoggedDatabase`, and its statements.

    Attributes
    ----------
    version
        Number of the schema, which the file has, too.
    tables
        Statements that create missing tables.
    writes
        The statement of each kind of write. Those that insert begin with ``INSERT INTO``.
    together
        The kinds whose writes may wait in the log until they are executed together, in this order.
    """

    version: int
    tables: str
    writes: Mapping[bytes, str]
    together: Sequence[bytes]


def _fails(
    method: Callable[Concatenate[LoggedDatabase, _Arguments], _Result],
) -> Callable[Concatenate[LoggedDatabase, _Arguments], _Result]:
    """Decorate a method: any error of SQLite in it, even of a query, is taken to have undone the transaction."""

    @functools.wraps(method)
    def call(self: LoggedDatabase, /, *args: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        try:
            return method(self, *args, **keywords)
        except sqlite3.IntegrityError:  # this error undoes its own statement only
            raise
        except sqlite3.Error as error:
            self._fail(error)
            raise

    return call


class LoggedDatabase:
    """One SQLite file and its log. Used from one thread, except `checkpoint`.

    Parameters
    ----------
    path
        The file; created with mode 0600.
    schema
        Its tables and writes.
    log
        Where writes are kept until they are committed; owned by this object from now on. ``None``: nowhere, only a
        commit keeps them.

    Raises
    ------
    ConfigurationError
        The file was written by another version.
    """

    def __init__(self, path: str | os.PathLike[str], schema: Schema, log: MappedLog | None) -> None:
        self._path = os.fspath(path)
        self._log = log
        self._writes = schema.writes
        #: the same, for rows that may be in the database already
        self._again = {
            kind: text.replace("INSERT INTO", "INSERT OR REPLACE INTO") for kind, text in self._writes.items()
        }
        self._restored: Callable[[], None] = lambda: None
        self._logs = log is not None  # whether writes go to the log now; false while the database cannot be written
        self._is_kept = self._logs
        self._begun = False
        #: whether the database may lack what the log has, after an error
        self._is_behind = False
        self._is_failing = False  # since the last commit
        self._has_unlogged = False  # whether the transaction has writes that are nowhere else
        self._failure: sqlite3.Error | None = None  # after which these are gone
        #: rows that are in the log but not in the database yet: many are executed together
        self._waiting: dict[bytes, list[Sequence[Any]]] = {kind: [] for kind in schema.together}
        self._waiting_keys: set[Hashable] = set()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, schema.version):
                raise ConfigurationError(
                    f"{self._path}: a journal of version {version}, not {schema.version}; move it away"
                )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            self._database.executescript(f"{schema.tables}PRAGMA user_version={schema.version};")
        except BaseException:
            self.abandon()
            raise

    def start(self, restored: Callable[[], None]) -> None:
        """Commit what an earlier process left in the log.

        Parameters
        ----------
        restored
            Called now, and whenever a transaction was lost and its writes were written anew.
        """
        self._restored = restored
        self.begin()
        self._catch_up()
        self.commit()

    def close(self) -> None:
        """Commit all writes, and close the file. What cannot be committed stays in the log for the next start."""
        try:
            if self._log is not None:
                with contextlib.suppress(sqlite3.Error):
                    self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file and its log without a commit."""
        self._database.close()
        if self._log is not None:
            self._log.close()

    @property
    def is_kept(self) -> bool:
        """Return whether all writes survive the end of this process, committed or not."""
        return self._is_kept

    @property
    def is_logging(self) -> bool:
        """Return whether writes go to the log now."""
        return self._logs

    @property
    def is_failing(self) -> bool:
        """Return whether there was an error since the last commit."""
        return self._is_failing

    # -- transactions --------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Begin a transaction: the following writes are kept or lost together. Without one, each write is a
        transaction.
        """
        self._begun = True

    @_fails
    def commit(self) -> None:
        """End the transaction. Raises `sqlite3.Error` if it could not be written; then nothing of it is kept besides
        what the log has.
        """
        self.bring_in()
        if self._failure is not None:
            raise sqlite3.OperationalError(str(self._failure)) from self._failure
        if self._database.in_transaction:
            self._database.execute("COMMIT")
        self._begun = self._has_unlogged = self._is_failing = False
        if self._log is not None and not (self._log.is_empty and self._is_kept):
            self._log.clear()
            self._logs = self._is_kept = True

    def roll_back(self) -> bool:
        """Undo all writes since `begin` that are not in the log. Only a commit keeps further ones.

        Returns
        -------
        bool
            Whether the log has writes, which wait for the next commit: a transaction is open again. If it could not
            get them, whatever reads or commits next tries again.
        """
        again = self._log is not None and not self._log.is_empty
        if again:
            self._logs = self._is_kept = False
        self._begun = again
        self._has_unlogged = False
        self._failure = None
        self._is_behind = True
        with contextlib.suppress(sqlite3.Error):
            self._catch_up()
        return again

    def checkpoint(self) -> None:
        """Write the WAL back into the database file and sync it. May be called from any thread; writers do not wait for
        it.
        """
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=5)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # -- rows ----------------------------------------------------------------------------------------------------------
    def write(
        self,
        kind: bytes,
        *values: int | float | str,
        text: str | None = None,
        blob: bytes | None = None,
        key: Hashable = None,
    ) -> None:
        """Append a write to the log, and execute it: together with others if the log has it.

        Parameters
        ----------
        kind
            Which of the schema's writes.
        *values, text, blob
            The values of its statement, in this order. `text` may have any length and any characters.
        key
            Key by which `is_waiting` finds the row until it is executed; ``None``: no key.
        """
        is_logged = False
        row: list[Any] = list(values)
        if text is not None:
            row.append(text)
        if blob is not None:
            row.append(blob)
        if self._logs and self._log is not None:
            record = [kind, _SEPARATOR.join(map(str, values)).encode()]
            if text is not None:
                record.append(text.encode())
            if blob is not None:
                record.append(blob)
            is_logged = self._log.append(record)
            self._is_kept = is_logged and self._is_kept
            if is_logged and self._is_behind:
                return  # comes from the log with the others
            if is_logged and kind in self._waiting:
                self._waiting[kind].append(row)
                if key is not None:
                    self._waiting_keys.add(key)
                return
        if not is_logged:
            self._has_unlogged = self._begun
        try:
            self.bring_in()
            self._in_transaction()
            self._database.execute(self._writes[kind], row)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            self._fail(error)
            if not is_logged and not self._begun:
                raise  # otherwise the log has it, or the commit fails

    def is_waiting(self, key: Hashable) -> bool:
        """Return whether a row with this key is in the log but not in the database yet."""
        return key in self._waiting_keys

    @_fails
    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query. If waiting writes matter, which it does not see, call `bring_in` before."""
        self._in_transaction()  # a query outside of one locks the file and reads its head each time
        return self._database.execute(query, values).fetchall()

    @_fails
    def change(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for each row of values, in the transaction only: the log lacks it, so it may be lost."""
        self._in_transaction()
        self._database.executemany(statement, rows)

    @_fails
    def bring_in(self) -> None:
        """Execute the writes that wait; after an error, all that are in the log."""
        if self._is_behind:
            self._catch_up()
            return
        for kind, rows in self._waiting.items():
            if rows:
                self._in_transaction()
                self._database.executemany(self._again[kind], rows)
                rows.clear()
        self._waiting_keys.clear()

    def recover(self) -> None:
        """After an error, execute all that is in the log."""
        if self._is_behind:
            self.bring_in()

    def _in_transaction(self) -> None:
        if self._begun and not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")

    # -- errors --------------------------------------------------------------------------------------------------------
    def _fail(self, error: sqlite3.Error) -> None:
        """Assume that the transaction may lack anything that was written in it."""
        self._is_behind = self._is_failing = True
        if self._has_unlogged:
            self._failure = error
        self._forget_waiting()  # the log has these

    def _catch_up(self) -> None:
        """Begin the transaction again, with everything in the log."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._forget_waiting()
        if self._log is not None:
            self._database.execute("BEGIN IMMEDIATE")
            for kind, head, *rest in self._log.records():
                values: list[Any] = head.decode().split(_SEPARATOR)  # the columns have types
                if rest:
                    values.append(rest[0].decode())
                # a process that was killed after a commit may not have cleared the log: the last record of a key counts
                self._database.execute(self._again[kind], values + rest[1:])
            if not self._begun:
                self._database.execute("COMMIT")
        self._restored()
        self._is_behind = False

    def _forget_waiting(self) -> None:
        for rows in self._waiting.values():
            rows.clear()
        self._waiting_keys.clear()
