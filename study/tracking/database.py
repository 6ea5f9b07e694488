"""The SQLite file of MLflow: opened by one process at a time, made anew where it is ruined."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.tracking.uri import DATABASE, artifact_location, sqlite_uri

LOCK_SECONDS = 50.0  # a new database takes 2 to 15
NO_DATABASE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
BESIDE = ("", "-journal", "-wal", "-shm")  # SQLite's own files of one database


@dataclass(frozen=True)
class Fault:
    """Why MLflow cannot use a database.

    Attributes:
        text: what is wrong with it.
        old: an earlier version of MLflow made it, or was interrupted: an upgrade may mend it.
        foreign: it may be somebody else's, if it does not have the name that a study gives.
    """

    text: str
    old: bool = False
    foreign: bool = False


@dataclass(frozen=True)
class Replaced:
    """A database that another one has replaced: `line` says so; `lost`: without its runs."""

    line: str
    lost: bool


def prepare(path: Path, *, thorough: bool = False) -> Replaced | None:
    """Make the database usable for MLflow before it opens it.

    A new one is made under another name first, so that nobody meets half of one; one of an older
    MLflow is upgraded as a copy; a ruined one is set aside as ``mlflow.db.old-1`` and the like,
    and a new one takes its place. On a file system without locks nothing is done: MLflow makes
    what is missing.

    Args:
        path: the file, which need not exist.
        thorough: also look for damaged pages, which reads the whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path) as locked:
        if _is_empty(path):
            if locked:
                _new(path).replace(path)
            return None
        fault = find_fault(path, thorough=thorough)
        if fault is None:
            return None
        if fault.foreign and path.name != DATABASE:
            raise OSError(f"{path}: {fault.text}; choose another --tracking-uri")
        if not locked:
            raise OSError(f"{path}: {fault.text}; no lock can be taken here: move it away yourself")
        upgraded = _upgraded(path) if fault.old else None
        aside = _set_aside(path, upgraded or _new(path))
        if upgraded:
            return Replaced(
                f"{path}: upgraded for this MLflow; as it was, it is {aside}", lost=False
            )
        line = (
            f"{path} was ruined: {fault.text}. It is now {aside}; a new one is filled from ledgers"
        )
        return Replaced(line, lost=True)


def is_whole(path: Path) -> bool:
    """Whether MLflow can work with the database."""
    return not _is_empty(path) and find_fault(path) is None


def find_fault(path: Path, *, thorough: bool = False) -> Fault | None:
    """What is wrong with a database; None if it is whole, or empty."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            return _find_fault(connection, thorough=thorough)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in NO_DATABASE:
            raise
        return Fault(f"it is no whole database ({error})", foreign=True)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20.0)


def _find_fault(connection: sqlite3.Connection, *, thorough: bool) -> Fault | None:
    from alembic.util import CommandError

    def rows(statement: str) -> list[tuple[Any, ...]]:
        return connection.execute(statement).fetchall()

    if thorough and (found := rows("PRAGMA quick_check(1)")) != [("ok",)]:
        return Fault(f"its pages are damaged ({str(found[0][0]).splitlines()[-1]})")
    tables = {name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
    wanted = _columns()
    if not tables & {*wanted, "alembic_version"}:
        return None
    versions = (
        rows("SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
    )
    if not versions:
        return Fault("its tables were left half made")
    (version,) = versions[0]
    scripts = _migrations()
    try:
        scripts.get_revision(version)
    except CommandError:
        return Fault(f"this MLflow does not know its version {version!r}", foreign=True)
    if version != scripts.get_current_head():
        return Fault(f"its tables are those of version {version}", old=True)
    for table, columns in wanted.items():
        held = {row[1] for row in rows(f'PRAGMA table_xinfo("{table}")')}
        if missing := columns - held:
            lack = f"the column {min(missing)} of table" if held else "the table"
            return Fault(f"it lacks {lack} {table}")
    return None


def _columns() -> dict[str, set[str]]:
    """The columns of each table that this version of MLflow uses."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # registers all tables
    from mlflow.store.db.base_sql_model import Base

    tables = Base.metadata.tables.items()
    return {name: {column.name for column in table.columns} for name, table in tables}


def _migrations() -> Any:
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _cleared(path: Path) -> Path:
    """The name under which a database is made, without what a killed process left there."""
    making = _beside(path, ".new")
    for ending in BESIDE:
        _beside(making, ending).unlink(missing_ok=True)
    return making


def _new(path: Path) -> Path:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    making = _cleared(path)
    SqlAlchemyStore(sqlite_uri(making), artifact_location(sqlite_uri(path)))
    return making


def _upgraded(path: Path) -> Path | None:
    """An upgraded copy; None if the database cannot be upgraded."""
    from alembic import command
    from alembic.config import Config

    making = _cleared(path)
    shutil.copyfile(path, making)
    migrations = _migrations().dir
    config = Config(os.path.join(migrations, "alembic.ini"))
    config.set_main_option("script_location", migrations.replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", sqlite_uri(making).replace("%", "%%"))
    try:
        command.upgrade(config, "heads")
    except Exception:  # whatever a migration meets in tables of which nobody knows the state
        return None
    return making if find_fault(making) is None else None


def _set_aside(path: Path, made: Path) -> Path:
    """Keep the database under another name, and put the one that was made in its place."""
    aside = next(
        name
        for number in itertools.count(1)
        if not (name := _beside(path, f".old-{number}")).exists()
    )
    for ending in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            _beside(path, ending).rename(_beside(aside, ending))
    made.rename(path)
    return aside


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold the lock beside the database; yields False where the file system has no locks.

    Raises TimeoutError if another process keeps it.
    """
    try:
        file = open(_beside(path, ".lock"), "w", encoding="utf-8")  # noqa: SIM115
    except OSError:
        yield False
        return
    with file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"another process keeps {file.name}") from None
                time.sleep(0.1)
            except OSError:
                locked = False
                break
            else:
                locked = True
                break
        yield locked
