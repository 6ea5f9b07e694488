from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
        "stage": "search",
        "family": "recall",
        "loss/recall": "ema",
        "loss/recall/ema_momentum": "0.1",
        "loss/jaccard/mix": "1e-05",
        "seed": "3",
    }


def test_a_choice_keeps_its_name_where_its_subtree_is_null() -> None:
    params = content.trial_params(
        trial(config={"loss": {"recall": None}}, params={"loss/recall": "off"})
    )
    assert params["loss/recall"] == "off"
    assert content.trial_params(trial(config={"loss": {"recall": None}}))["loss/recall"] == "null"


def test_the_rate_is_the_tasks_own_times_the_factor() -> None:
    config = {"task": {"optimizer": {"lr": 0.005}}, "optimizer": {"lr_scale": 1.7}}
    assert content.trial_params(trial(config=config))["lr"] == "0.0085"


def test_what_is_final_is_drawn_as_bars(tmp_path: Path) -> None:
    """MLflow draws a line for a metric with a step above 0."""
    state = load(make_study(tmp_path / "demo", until="baselines", rules=True))
    points = content.final_points(state.completed("baseline")[0])
    assert points and {step for *_, step in points} == {0}


ANSWER: dict[str, Any] = {
    "confirmed": True,
    "conclusions": ["best_miou: recall(ema 0.5), +3.1 points", "note: `top` *was* cut"],
    "table": "| config | mIoU |\n| --- | ---: |\n| recall | 41.0 |\n| ce | 38.0 |\n",
    "metrics": {"best_miou/test/tuned/miou": 0.41, "reference/test/tuned/miou": 0.38},
}


def test_the_page_of_a_study_has_the_answers_sentences_and_table(tmp_path: Path) -> None:
    study = load(make_study(tmp_path / "demo", until="start")).study
    assert study is not None
    note = content.answer_note(study, ANSWER)
    assert "* best\\_miou: recall(ema 0.5), +3.1 points\n" in note
    assert r"* note: `top` \*was\* cut" in note
    assert f"\n\n{ANSWER['table']}\n" in note and note.endswith(content.study_note(study))
    many = {**ANSWER, "table": ANSWER["table"] + "| x | 1 |\n" * 2000}
    short = content.answer_note(study, many)
    assert len(short) <= content.MAX_VALUE
    assert "| recall | 41.0 |" in short and short.endswith(content.study_note(study))
    long = {**many, "conclusions": ["sentence " * 20] * 200}
    assert len(content.answer_note(study, long)) <= content.MAX_VALUE


def test_the_numbers_of_an_answer_are_sent_once_it_is_confirmed() -> None:
    points = content.answer_points(ANSWER, 12.5)
    assert points == [
        ("best_miou/test/tuned/miou", 0.41, 12500, 0),
        ("reference/test/tuned/miou", 0.38, 12500, 0),
    ]
    assert content.answer_points({**ANSWER, "confirmed": False}, 12.5) == []


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
