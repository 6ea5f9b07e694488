"""What the README's first command leaves behind, checked where it has been run in this checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.core.names import BASELINE, COMPLETED, CONFIRM, REFERENCE, SEARCH, STOPPED_EARLY
from study.ledger.state import State
from study.storage.studies import load

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "studies" / "joint-synthetic"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "report.html").is_file(), reason="python -m study.run has not been run here"
)


@pytest.fixture(scope="module")
def state() -> State:
    return load(FOLDER)


def exported(name: str) -> dict[str, Any]:
    tree = yaml.safe_load((FOLDER / "exports" / name).read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def test_the_default_study_keeps_its_plan(state: State) -> None:
    assert state.finished
    assert [trial.label for trial in state.of_stage(BASELINE)] == [
        "ce",
        "recall",
        "inverse_sqrt",
        "median_frequency",
        "lmp",
        "jml",
    ]
    assert {trial.status for trial in state.of_stage(BASELINE, CONFIRM)} == {COMPLETED}
    searched = state.of_stage(SEARCH, REFERENCE)
    assert len(searched) == 16
    assert sum(trial.family == "ce" for trial in searched) >= 4
    assert state.selection is not None
    assert len(state.selection.confirmed) == 2
    sources = set(state.selection.sources)
    assert {(trial.source, trial.seed) for trial in state.completed(CONFIRM)} == {
        (source, seed) for source in sources for seed in (1, 2, 3)
    }


def test_trials_are_stopped_at_the_rung_alone(state: State) -> None:
    """How many depends on the proposals: 1 to 10 of 16 in simulations, as better ones pass."""
    stopped = [trial for trial in state.trials.values() if trial.status == STOPPED_EARLY]
    assert all(trial.epochs == 3 for trial in stopped)


@pytest.mark.slow
def test_ledger_mlflow_and_export_agree_to_the_last_digit(state: State) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(state.sessions[-1].tracking_uri)
    experiment = client.get_experiment_by_name("synthetic")
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string=f"tags.study = '{FOLDER.name}'",
        max_results=1000,
    )
    by_trial = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    for trial in state.trials.values():
        run = by_trial[trial.id]
        assert run.data.tags["status"] == trial.status
        for key, value in trial.last.items():
            if not key.startswith("time/"):
                assert run.data.metrics[key] == value, (trial.id, key)
        assert ("final/miou" in run.data.metrics) == (trial.status == COMPLETED)
        if trial.status == COMPLETED:
            assert run.data.metrics["final/miou"] == trial.last["val/miou"]
    provenance = exported("best_miou.yaml")["provenance"]
    assert provenance["metrics"] == state.trials[provenance["trial"]].last


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_export_trains_again_to_the_same_numbers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "study.train", str(FOLDER / "exports" / "best_miou.yaml")],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced exactly" in done.stdout
