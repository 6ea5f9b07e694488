"""Tables of learning curves: of foreign problems, and of a study's own ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ledgers import make_study
from optuna.distributions import FloatDistribution

import study.simulate
from study.core.errors import InputError
from study.core.names import SEARCH
from study.simulation.recording import recorded
from study.simulation.run import ALIKE, Settings, simulate
from study.simulation.table import TableProblem, load_table
from study.space.grammar import Leaf
from study.space.search_space import load_space
from study.storage.studies import load

EPOCHS = 6
SPACE = """
lr: {float: {low: 0.001, high: 1.0, log: true}}
optimizer: {choice: {sgd: {momentum: {float: {low: 0.0, high: 0.99}}}, adam: {}}}
study: {objectives: [accuracy, -loss], rungs: {first: 0.3}}
"""


def rows(*, conditional: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = []
    for number in range(24):
        lr = float(10 ** rng.uniform(-3, 0))
        config: dict[str, Any] = {"config/lr": lr}
        config["config/optimizer"] = ("sgd", "adam")[number % 2]
        if conditional:
            config["config/optimizer/momentum"] = 0.04 * number if number % 2 == 0 else None
        worth = 0.9 - 0.1 * (np.log10(lr) + 1.5) ** 2
        for epoch in range(1, EPOCHS + 1):
            accuracy = worth * (1 - 0.5**epoch)
            found.append({**config, "epoch": epoch, "accuracy": accuracy, "loss": 1 - accuracy})
    return pd.DataFrame(found)


Write = Callable[[pd.DataFrame], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(frame: pd.DataFrame) -> Path:
        frame.to_csv(tmp_path / "curves.csv", index=False)
        return tmp_path / "curves.csv"

    return to


def test_a_foreign_table_gets_a_space_of_its_own_columns(write: Write) -> None:
    problem = load_table(write(rows()), objectives=("accuracy", "-loss"))
    assert (problem.epochs, len(problem), problem.num_curves) == (EPOCHS, 24, 24)
    lr = problem.space.tree.children["lr"]
    assert isinstance(lr, Leaf) and isinstance(lr.distribution, FloatDistribution)
    assert (lr.low, lr.high) == (rows()["config/lr"].min(), rows()["config/lr"].max())
    assert lr.distribution.log
    assert problem.space.choices == {"optimizer": ("adam", "sgd")}
    outcome = simulate(problem, 0, Settings(trainings=8))
    warm = simulate(problem, 0, Settings(trainings=8, warm=ALIKE))
    assert outcome.state.study and outcome.state.study.prior is None
    assert warm.state.study and warm.state.study.prior is not None
    assert {"warm_start"} <= {trial.proposed_by for trial in warm.state.trials.values()}
    assert outcome.found[-1][1] < 0.6


def test_each_row_is_given_back_and_a_point_between_gets_the_nearest(write: Write) -> None:
    frame = rows()
    problem = load_table(write(frame), objectives=("accuracy",))
    one = frame[frame.epoch == EPOCHS].iloc[7]
    params = {"lr": one["config/lr"], "optimizer": one["config/optimizer"]}
    assert problem.truth(params)[0] == pytest.approx(one.accuracy)
    assert problem.curve(params, 5).metrics["accuracy"][-1] == pytest.approx(one.accuracy)
    near = {**params, "lr": params["lr"] * 1.0001}
    assert problem.truth(near) == problem.truth(params)
    assert problem.scale.best[0] == pytest.approx(frame[frame.epoch == EPOCHS].accuracy.max())


def test_less_is_better_of_a_name_with_a_minus(write: Write) -> None:
    path = write(rows())
    more, less = (load_table(path, objectives=(name,)) for name in ("loss", "-loss"))
    assert more.scale.best[0] == pytest.approx(rows()[rows().epoch == EPOCHS].loss.max())
    assert less.scale.best[0] == pytest.approx(-rows()[rows().epoch == EPOCHS].loss.min())


def test_a_space_beside_the_table_may_have_conditions(write: Write) -> None:
    path = write(rows(conditional=True))
    path.with_suffix(".space.yaml").write_text(SPACE)
    problem = load_table(path)
    assert problem.space.settings.objectives == ("accuracy", "-loss")
    assert len(problem) == 24
    outcome = simulate(problem, 0, Settings(trainings=6, sampler="random"))
    assert {"lr", "optimizer"} <= (next(iter(outcome.state.trials.values())).params or {}).keys()


def test_seeds_are_repeats_and_a_short_curve_fails(write: Write) -> None:
    again = rows().assign(seed=1, accuracy=lambda frame: frame.accuracy + 0.01)
    frame = pd.concat([rows().assign(seed=0), again])
    first = frame["config/lr"].iloc[0]
    frame = frame[(frame["config/lr"] != first) | (frame.epoch < 3)]
    problem = load_table(write(frame), objectives=("accuracy",))
    assert (len(problem), problem.num_curves) == (24, 48)
    params = {"lr": first, "optimizer": "sgd"}
    assert np.isnan(problem.truth(params)[0]) and len(problem.curve(params, 0)) == 2
    other = {"lr": rows()["config/lr"].iloc[-1], "optimizer": "adam"}
    values = [problem.curve(other, seed).metrics["accuracy"][-1] for seed in (0, 1)]
    assert values[1] - values[0] == pytest.approx(0.01)
    assert problem.truth(other)[0] == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="epoch"), "missing column 'epoch'"),
        (lambda f: f.rename(columns=lambda c: c.removeprefix("config/")), "no column begins with"),
        (lambda f: f[f.epoch != 2], "curves.csv:2: epoch: epochs must be 1, 2, ..."),
        (lambda f: f.assign(accuracy="high"), "accuracy: an objective must be numbers"),
        (lambda f: f.drop(columns="accuracy"), "unknown objective 'accuracy'"),
        (lambda f: f.iloc[:0], "no rows"),
        (
            lambda f: f.assign(**{"config/lr": f["config/lr"].where(f.index > 5)}),
            "curves.csv:2: config/lr: an empty value, so the space has options",
        ),
    ],
)
def test_a_bad_table_is_refused_with_its_row(
    write: Write, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(InputError) as error:
        load_table(write(change(rows())), objectives=("accuracy",))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["epoch", "config/lr", "acuracy"])
def test_what_is_no_metric_is_no_objective(write: Write, name: str) -> None:
    with pytest.raises(InputError) as error:
        load_table(write(rows()), objectives=(name,))
    assert f"unknown objective '{name}'" in str(error.value)
    assert str(error.value).endswith("(allowed: accuracy, loss)")


def test_distilled_losses_are_searched_as_any_other() -> None:
    space = load_space(
        {
            "loss": {"distillation": {"mix": {"float": {"low": 0.2, "high": 0.8}}}},
            "study": {"teacher": {"task": "large.yaml"}, "baselines": ["ce", "kd"], "rungs": None},
        }
    )
    names = space.settings.objectives
    frame = pd.DataFrame(
        {"config/loss/distillation/mix": mix, "epoch": epoch, **dict.fromkeys(names, mix / epoch)}
        for mix in (0.3, 0.5, 0.7)
        for epoch in (1, 2)
    )
    found = simulate(TableProblem("kt", frame, space), 0, Settings(trainings=4, workers=1))
    assert found.state.count(SEARCH) > 0


def test_a_value_outside_of_the_space_is_refused(write: Write) -> None:
    path = write(rows(conditional=True).replace({"config/optimizer": {"adam": "lion"}}))
    path.with_suffix(".space.yaml").write_text(SPACE)
    with pytest.raises(InputError, match=r"curves.csv:8: config/optimizer: no value of this leaf"):
        load_table(path)


def test_a_study_is_recorded_and_searched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_study(tmp_path / "studies" / "one", until="finish")
    frame, space, left_out = recorded(load(folder))
    assert left_out > 0 and set(space.settings.objectives) <= set(frame.columns)
    arguments = ["one", "--storage", str(tmp_path / "studies")]
    for name in ("curves.csv", "curves.parquet"):
        table = tmp_path / name
        assert study.simulate.main([*arguments, "--record", str(table)]) == 0
        assert "curves" in capsys.readouterr().out
        problem = load_table(table)
        assert problem.num_curves == (frame.epoch == 1).sum()
        assert problem.space.settings.objectives == space.settings.objectives
    few = ["--trials", "4", "--seeds", "1", "--json", "--methods", "random"]
    assert study.simulate.main([*arguments, *few]) == 0
    from_study = json.loads(capsys.readouterr().out)
    assert study.simulate.main([str(tmp_path / "curves.csv"), *few]) == 0
    assert json.loads(capsys.readouterr().out)["regret"] == from_study["regret"]


def test_a_table_may_have_another_space_than_its_study(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_study(tmp_path / "studies" / "one", until="finish")
    state = load(folder)
    assert state.study is not None
    settings = state.study.space.get("study", {})
    wider = {**state.study.space, "study": {**settings, "num_trials": 99, "rungs": None}}
    (tmp_path / "wider.yaml").write_text(json.dumps(wider))
    (tmp_path / "other.yaml").write_text("loss: {label_smoothing: 0.3}")
    arguments = ["one", "--storage", str(tmp_path / "studies"), "--record"]
    table = tmp_path / "curves.csv"
    assert (
        study.simulate.main([*arguments, str(table), "--space", str(tmp_path / "wider.yaml")]) == 0
    )
    problem = load_table(table)
    assert problem.num_curves == (recorded(state)[0].epoch == 1).sum()
    assert problem.space.settings.num_trials == 99
    assert (
        study.simulate.main([*arguments, str(table), "--space", str(tmp_path / "other.yaml")]) == 2
    )
    assert "no trial of one with a config of other was trained" in capsys.readouterr().err
    assert study.simulate.main([*arguments, str(table), "--objectives", "loss"]) == 2
    assert "--objectives: a study has its own objectives" in capsys.readouterr().err


def test_the_command_compares_methods(capsys: pytest.CaptureFixture) -> None:
    arguments = ["smooth", "--trainings", "4", "--seeds", "2", "--workers", "4"]
    assert study.simulate.main([*arguments, "--methods", "model,full-length"]) == 0
    out = capsys.readouterr().out
    assert "model less full-length" in out and "the model makes" in out
    assert study.simulate.main(["--list"]) == 0
    assert "crossing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoth"], "no family, table or study 'smoth'; did you mean 'smooth'?"),
        ([], "PROBLEM: missing PROBLEM"),
        (["smooth", "--methods", "best"], "--methods: unknown method 'best'"),
        (["smooth", "--workers", "0"], "--workers: workers must be a whole number from 1"),
        (["smooth", "--stragglers", "2"], "--stragglers: stragglers must be in [0, 1]"),
        (["smooth", "--space", "joint"], "--space: this is for a table"),
        (["smooth", "--trials", "3", "--trainings", "3"], "exclude each other"),
        (["none.csv"], "none.csv: cannot be read: No such file or directory\n"),
    ],
)
def test_bad_input_of_the_command_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert study.simulate.main([*arguments, "--storage", str(tmp_path)]) == 2
    found = capsys.readouterr().err
    assert message in found and found.count("\n") == 1
