from __future__ import annotations

import math
from pathlib import Path

import pytest
from ledgers import make_study

from study.core.names import COMPLETED, FAILED, STOPPED_EARLY
from study.ledger.state import Trial
from study.storage.studies import load
from study.tracking import content


def trial(**fields: object) -> Trial:
    values = {
        "id": "t1", "number": 1, "stage": "search", "label": "a", "family": "recall",
        "params": None, "config": {}, "seed": 0, "source": None, "started": 1.0,
        "handed_out": 1.0, **fields,
    }  # fmt: skip
    return Trial(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ("val/iou/traffic light", "val/iou/traffic light"),
        ("val/iou/person[1]", "val/iou/person_1_"),
        ("val/iou/road/side", "val/iou/road/side"),
        ("val//iou/../x/", "val/iou/_/x"),
        ("x" * 300, "x" * 250),
    ],
)
def test_keys_become_what_mlflow_accepts(given: str, accepted: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert content.key_of(given) == accepted
    _validate_metric_name(accepted)


def test_params_are_the_leaves_of_the_config_and_the_names_of_the_choices() -> None:
    config = {"loss": {"recall": {"ema_momentum": 0.1}, "jaccard": {"mix": 1e-5}}, "seed": 3}
    params = {"loss/recall": "ema", "loss/recall/ema_momentum": 0.1}
    assert content.trial_params(trial(config=config, params=params)) == {
        "loss/recall": "ema",
        "loss/recall/ema_momentum": "0.1",
        "loss/jaccard/mix": "1e-05",
        "seed": "3",
    }


def test_a_choice_keeps_its_name_where_its_subtree_is_null() -> None:
    params = content.trial_params(
        trial(config={"loss": {"recall": None}}, params={"loss/recall": "off"})
    )
    assert params == {"loss/recall": "off"}
    assert content.trial_params(trial(config={"loss": {"recall": None}})) == {"loss/recall": "null"}


def test_nan_is_a_point_and_an_infinity_is_none() -> None:
    metrics = {"val/miou": math.nan, "train/loss": math.inf, "lr": 0.1}
    points = content.trial_points(trial(reports={1: metrics}, report_times={1: 2.0015}))
    assert [(key, when, epoch) for key, _, when, epoch in points] == [
        ("val/miou", 2002, 1),
        ("lr", 2002, 1),
    ]


def test_only_completed_trials_have_final_metrics(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "demo"))
    statuses = {item.status for item in state.trials.values()}
    assert statuses == {COMPLETED, STOPPED_EARLY, FAILED}
    for item in state.trials.values():
        names = [key for key, *_ in content.final_points(item)]
        expected = ["miou", "macc", "mprec", "acc"] if item.status == COMPLETED else []
        assert names == [f"final/{name}" for name in expected]


def test_final_metrics_are_those_of_every_rule(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "demo", until="baselines", rules=True))
    completed = state.completed("baseline")[0]
    found = {key: value for key, value, *_ in content.final_points(completed)}
    assert found["final/miou"] == completed.last["val/miou"]
    assert found["final/tuned/miou"] == completed.last["val/tuned/miou"]
    assert found["final/tuned_macc/macc"] == completed.last["val/tuned_macc/macc"]
    assert found["final/tau_miou"] == completed.last["val/tau_miou"]
    assert "final/nll" in found and not any("iou/" in key for key in found)


def test_an_unfinished_trial_runs_while_its_driver_lives() -> None:
    assert content.run_status(trial(), live=True) == "RUNNING"
    assert content.run_status(trial(), live=False) == "SCHEDULED"
