"""What the follower keeps, and what it does with a store that says no; the store is made up."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ledgers import chained, make_study

from study.core.errors import InputError
from study.ledger.journal import LEDGER, Ledger, read
from study.ledger.records import ReportRecord
from study.ledger.state import State, Trial
from study.storage.studies import load
from study.tracking.projection import Projection
from study.tracking.store import is_refusal

Written = list[tuple[str, list[int]]]


def refusal() -> Exception:
    """What a store raises that has understood and says no."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    return MlflowException("no", error_code=RESOURCE_DOES_NOT_EXIST)


class MadeUpStore:
    """Remembers what it is given; `moods` says for each trial what it does: refuses, is away."""

    replaced = None

    def __init__(self, *_: Any, **__: Any) -> None:
        self.written: Written = []
        self.doubts: list[str] = []
        self.moods: dict[str, Exception] = {}
        self.lost = False

    def write_study(self, state: State, ended: float, *, live: bool) -> None:
        if self.lost:
            raise refusal()

    def write_trial(self, trial: Trial, epochs: Iterable[int], *, live: bool) -> None:
        if trial.id in self.moods or self.lost:
            raise self.moods.get(trial.id) or refusal()
        self.written.append((trial.id, list(epochs)))

    def is_lost(self, error: Exception) -> bool:
        return self.lost

    def doubt(self, trial: str) -> None:
        self.doubts.append(trial)

    def tidy(self) -> None:
        pass

    def write_answer(self, *_: Any) -> None:
        pass

    def write_files(self, *_: Any) -> None:
        pass

    @property
    def models(self) -> MadeUpStore:
        return self

    def write(self, *_: Any) -> None:
        pass


@pytest.fixture
def stores() -> list[MadeUpStore]:
    """Those that projections have made."""
    return []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "one", until="search")


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A study that a test may write to."""
    return Path(shutil.copytree(made, tmp_path / "one"))


def project(folder: Path, stores: list[MadeUpStore]) -> Projection:
    """A projection of the study in a folder, with stores that are made up."""

    def make(*_: Any, **__: Any) -> Any:
        stores.append(MadeUpStore())
        return stores[-1]

    return Projection(folder, "", open_store=make)


def goes_on(projection: Projection, folder: Path, *trials: str) -> None:
    """One more line of each of these trials, which the projection reads: its last report again."""
    ledger = Ledger(folder)
    for trial in trials:
        of_it = [
            record for record in read(folder / LEDGER) if getattr(record, "trial", "") == trial
        ]
        ledger.append(next(one for one in reversed(of_it) if isinstance(one, ReportRecord)))
    ledger.close()
    projection.read()


def _push(projection: Projection) -> Exception | None:
    try:
        assert projection.push(live=True)
    except Exception as error:
        if isinstance(error, ConnectionError) or is_refusal(error):
            return error
        raise
    return None


def test_each_line_is_written_once_and_repeated_epochs_with_it(
    stores: list[MadeUpStore], study: Path
) -> None:
    projection = project(study, stores)
    assert projection.finish() and projection.finish()
    trials = load(study).trials
    assert [trial for trial, _ in stores[0].written] == list(trials)
    assert dict(stores[0].written) == {id: sorted(it.reports) for id, it in trials.items()}
    assert projection.num_unsent == 0


def test_a_growing_ledger_is_written_as_far_as_it_goes(
    stores: list[MadeUpStore], study: Path, tmp_path: Path
) -> None:
    lines = (study / LEDGER).read_bytes().splitlines(keepends=True)
    projection = project(tmp_path, stores)
    projection.read()
    assert projection.num_lines == 0 and _push(projection) is None and stores == []
    for end in range(0, len(lines) - 1, 5):
        torn = lines[end][: len(lines[end]) // 2]
        (tmp_path / LEDGER).write_bytes(b"".join(lines[:end]) + torn)
        projection.read()
        assert projection.num_lines == end
        assert _push(projection) is None
    (tmp_path / LEDGER).write_bytes(b"".join(lines))
    assert projection.finish()
    epochs: dict[str, list[int]] = {}
    for written, some in stores[0].written:
        epochs.setdefault(written, []).extend(some)
    for id, trial in load(study).trials.items():
        assert set(epochs[id]) == set(trial.reports)
        assert len(epochs[id]) <= len(trial.reports) + trial.attempt


def test_a_line_that_is_none_is_named(study: Path, tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes((study / LEDGER).read_bytes() + b"{}\n")
    number = (study / LEDGER).read_bytes().count(b"\n") + 1
    with pytest.raises(InputError, match=f"{LEDGER}:{number}: "):
        Projection(tmp_path, "").read()


def test_a_trial_that_is_refused_is_looked_for_once_and_then_left_out(
    stores: list[MadeUpStore], study: Path
) -> None:
    projection = project(study, stores)
    projection.read()
    assert _push(projection) is None
    store, no = stores[0], refusal()
    store.moods["t0003"] = no
    store.written.clear()
    goes_on(projection, study, "t0003", "t0004")
    assert _push(projection) is no
    assert store.doubts == ["t0003"] and [trial for trial, _ in store.written] == ["t0004"]
    assert _push(projection) is no
    assert projection.refused == {"t0003": no}
    assert _push(projection) is None
    assert projection.num_unsent == (study / LEDGER).read_text().count('"trial": "t0003"')
    del store.moods["t0003"]
    goes_on(projection, study, "t0003")
    assert _push(projection) is None
    assert projection.refused == {} and projection.num_unsent == 0
    assert store.written[-1] == ("t0003", list(range(1, 9)))


def test_a_store_that_is_away_is_left_alone_after_two_trials_and_asked_for_others_next(
    stores: list[MadeUpStore], study: Path
) -> None:
    projection = project(study, stores)
    projection.read()
    away = ConnectionError()
    trials = list(load(study).trials)
    assert _push(projection) is None
    store = stores[0]
    store.written.clear()
    store.moods = dict.fromkeys(trials[:2], away)
    goes_on(projection, study, *trials)
    assert _push(projection) is away and store.written == []
    assert _push(projection) is away
    assert [trial for trial, _ in store.written] == trials[2:]
    store.moods.clear()
    assert _push(projection) is None
    assert {trial for trial, _ in store.written[-2:]} == set(trials[:2])
    assert projection.num_unsent == 0


def test_a_store_that_has_lost_the_study_is_given_all_of_it_again(
    stores: list[MadeUpStore], study: Path
) -> None:
    projection = project(study, stores)
    projection.read()
    assert _push(projection) is None
    stores[0].lost = True
    goes_on(projection, study, "t0002")
    error = _push(projection)
    assert error is not None and is_refusal(error)
    assert projection.num_unsent == projection.num_lines
    assert _push(projection) is None
    assert len(stores) == 2
    assert stores[1].written == stores[0].written


def test_memory_is_that_of_a_number_per_line(study: Path, tmp_path: Path) -> None:
    """Long studies, and servers that are away for long: the lines themselves stay in the file."""
    lines = (study / LEDGER).read_bytes().splitlines(keepends=True)
    first = [line for line in lines if b'"trial": ' not in line]
    copies = [
        line.replace(b'"trial": "t', b'"trial": "%d-t' % copy)
        for copy in range(20)
        for line in lines
        if line not in first
    ]
    (tmp_path / LEDGER).write_bytes(chained([*first, *copies]))
    projection = Projection(tmp_path, "")
    tracemalloc.start()
    projection.read()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert projection.num_lines > 3000
    size = (tmp_path / LEDGER).stat().st_size
    assert held < size / 10
    assert held / projection.num_lines < 100
