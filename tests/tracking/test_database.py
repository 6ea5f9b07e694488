"""What becomes of a database file that is missing, half made, damaged or of another MLflow.

Making one takes seconds, so that all tests start from copies of the same.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import make_study

from study import track, tracking
from study.core.errors import InputError
from study.ledger.journal import LEDGER
from study.ledger.records import SessionRecord, decode, encode
from study.storage.studies import load
from study.tracking import database
from study.tracking.projection import Projection
from study.tracking.store import prepare_environment

pytestmark = pytest.mark.slow

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole database, to be copied."""
    prepare_environment()
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    assert database.prepare(path) is None
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """A whole database."""
    (tmp_path / "studies").mkdir()
    return Path(shutil.copy(made, tmp_path / "studies"))


def sql(*statements: str) -> Damage:
    def execute(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return execute


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"no database, whatever its name says")


def empty_but_for_versions(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE alembic_version (version_num TEXT)")(path)


def stop_half_way(path: Path) -> None:
    """As a killed migration leaves it: the tables of all steps, and the number of an early one."""
    sql("UPDATE alembic_version SET version_num = '181f10493468'")(path)


DAMAGES = {
    "no version": sql("DELETE FROM alembic_version"),
    "no table of versions": sql("DROP TABLE alembic_version"),
    "unknown version": sql("UPDATE alembic_version SET version_num = 'dc11f00dface'"),
    "no runs": sql("DROP TABLE runs"),
    "no traces": sql("DROP TABLE trace_info"),
    "no column": sql("ALTER TABLE runs RENAME COLUMN name TO nom"),
    "only the versions": empty_but_for_versions,
    "half way": stop_half_way,
    "cut": cut,
    "scribbled": scribble,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_ruined_database_is_set_aside_as_it_is_and_a_whole_one_takes_its_place(
    path: Path, made: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(path)
    as_it_was = path.read_bytes()

    def copy(path: Path) -> Path:
        return Path(shutil.copy(made, f"{path}.new"))

    monkeypatch.setattr(database, "_new", copy)  # to make one takes seconds
    tracking.check(tracking.default_uri(path.parent))
    found = database.prepare(path, thorough=True)
    assert found is not None
    assert found.lost
    aside = path.with_name("mlflow.db.old-1")
    assert f"{path} was ruined: " in found.line
    assert str(aside) in found.line
    assert aside.read_bytes() == as_it_was
    assert database.prepare(path, thorough=True) is None

    scribble(path)
    assert database.prepare(path) is not None
    assert path.with_name("mlflow.db.old-2").is_file()
    assert aside.read_bytes() == as_it_was


def test_a_whole_database_stays(path: Path) -> None:
    before = path.read_bytes()
    assert database.prepare(path, thorough=True) is None
    assert path.read_bytes() == before


def test_a_database_of_an_older_mlflow_is_upgraded_as_a_copy(path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    sql("INSERT INTO experiments (experiment_id, name) VALUES (77, 'mine')")(path)
    config = Config()
    config.set_main_option("script_location", database._migrations().dir)
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    command.downgrade(config, "-1")
    older = path.read_bytes()
    found = database.prepare(path)
    assert found is not None
    assert not found.lost
    assert path.with_name("mlflow.db.old-1").read_bytes() == older
    assert database.is_whole(path)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM experiments WHERE experiment_id = 77")
        assert rows.fetchall() == [("mine",)]


@pytest.mark.parametrize("damage", ["unknown version", "scribbled"])
def test_a_file_that_may_be_somebody_elses_stays(path: Path, damage: str) -> None:
    other = path.rename(path.with_name("team.db"))
    DAMAGES[damage](other)
    before = other.read_bytes()
    with pytest.raises(OSError, match=r"team\.db: .*choose another --tracking-uri"):
        database.prepare(other)
    assert other.read_bytes() == before
    if damage == "scribbled":
        with pytest.raises(InputError, match="no SQLite database"):
            tracking.check(f"sqlite:///{other}")


def test_tables_of_another_program_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    sql("CREATE TABLE notes (line TEXT)")(path)
    assert database.prepare(path) is None


def test_nothing_is_done_while_another_process_makes_the_database(
    path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.unlink()
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(database, "LOCK_SECONDS", 0.0)
            with pytest.raises(TimeoutError, match=r"mlflow\.db\.lock"):
                database.prepare(path)
        assert not path.exists()
        waiting = threading.Thread(target=database.prepare, args=[path])
        waiting.start()
        shutil.copy(made, path)  # the other one has made it
    waiting.join(60.0)
    assert not waiting.is_alive()
    assert path.read_bytes() == made.read_bytes()


def test_without_locks_mlflow_does_what_it_does_and_nothing_is_set_aside(path: Path) -> None:
    Path(f"{path}.lock").mkdir()  # cannot be opened for writing
    assert database.prepare(path) is None
    sql("DROP TABLE runs")(path)
    with pytest.raises(OSError, match="lacks the table runs; no lock"):
        database.prepare(path)
    path.unlink()
    assert database.prepare(path) is None
    assert sorted(file.name for file in path.parent.iterdir()) == ["mlflow.db.lock"]


def test_what_cannot_be_made_leaves_the_ruin_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(database, "_new", full)
    sql("DROP TABLE runs")(path)
    with pytest.raises(OSError, match="No space"):
        database.prepare(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_processes_that_begin_at_once_all_find_a_whole_database(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from study.tracking import database, store;"
        "store.prepare_environment(); path = Path(sys.argv[1]); import mlflow;"
        "assert database.prepare(path) is None; assert database.is_whole(path);"
        "mlflow.MlflowClient(f'sqlite:///{path}').create_experiment(sys.argv[2])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mlflow.db"), str(number)])
        for number in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]


def tracked_study(folder: Path, uri: str, **given: Any) -> Path:
    """A made-up study whose session says where it was tracked."""
    make_study(folder, **given)
    ledger = folder / LEDGER
    lines = []
    for line in ledger.read_text().splitlines():
        record = decode(line)
        if isinstance(record, SessionRecord):
            record = replace(record, tracking_uri=uri)
        lines.append(encode(record).rstrip("\n") + "\n")
    ledger.write_text("".join(lines))
    return folder


def runs(uri: str) -> dict[str, int]:
    """The number of runs of each study, its own included."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("synthetic")
    assert experiment is not None
    found: dict[str, int] = {}
    for run in client.search_runs([experiment.experiment_id]):
        found[run.data.tags["study"]] = found.get(run.data.tags["study"], 0) + 1
    return found


def test_tracking_a_study_fills_a_ruined_database_with_all_studies_that_it_held(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = tracking.default_uri(path.parent)
    folders = [
        tracked_study(path.parent / name, at, until="baselines")
        for name, at in (("one", uri), ("two", uri), ("elsewhere", "http://head:5000"))
    ]
    sql("DROP TABLE runs")(path)
    assert track.main([str(folders[0])]) == 0
    said = capsys.readouterr().out
    assert said.count("was ruined: it lacks the table runs") == 1
    expected = {folder.name: len(load(folder).trials) + 1 for folder in folders[:2]}
    assert runs(uri) == expected


def test_the_driver_is_told(path: Path) -> None:
    uri = tracking.default_uri(path.parent)
    folder = tracked_study(path.parent / "one", uri, until="baselines")
    sql("DROP TABLE runs")(path)
    said: list[str] = []
    assert tracking.start(folder, uri, said.append).close(120.0) == 0
    (line,) = said
    assert line.startswith(f"{path} was ruined: it lacks the table runs.")


@pytest.mark.parametrize("ruin", [sql("DROP TABLE runs"), Path.unlink], ids=["ruined", "deleted"])
def test_a_study_whose_database_is_lost_under_way_is_written_anew(path: Path, ruin: Damage) -> None:
    uri = tracking.default_uri(path.parent)
    whole = tracked_study(path.parent / "whole", uri, until="baselines")
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    folder = path.parent / "one"
    folder.mkdir()
    (folder / LEDGER).write_bytes(b"".join(lines[:20]))
    projection = Projection(folder, uri)
    projection.read()
    assert projection.push(live=True)
    ruin(path)
    with open(folder / LEDGER, "ab") as file:
        file.writelines(lines[20:])
    done = False
    for _ in range(4):  # each failure is tried again, as a follower does
        try:
            done = projection.finish()
        except Exception:
            continue
    assert done
    assert sum(runs(uri).values()) == len(load(folder).trials) + 1
