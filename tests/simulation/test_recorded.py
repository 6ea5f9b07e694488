"""The table of trained configs that ships."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import study.simulate
from study.simulation.table import CONFIG, RECORDED, RECORDED_FILE, load_table, space_beside
from study.space.search_space import load_space


def test_it_has_whole_curves_of_both_objectives_over_the_joint_space() -> None:
    frame = pd.read_csv(RECORDED_FILE)
    problem = load_table(RECORDED_FILE)
    joint = load_space("joint")
    assert problem.space.data["loss"] == joint.data["loss"]
    assert problem.space.data["optimizer"] == joint.data["optimizer"]
    assert problem.space.settings == joint.settings
    assert set(joint.settings.objectives) <= set(frame.columns)
    configs = [column for column in frame.columns if column.startswith(CONFIG)]
    curves = frame.groupby([*configs, "seed"], dropna=False)
    assert set(curves.size()) == {problem.epochs} == {8}
    seeds = curves.size().reset_index().groupby(configs, dropna=False).size()
    assert len(seeds) >= 150 and (seeds >= 2).sum() >= 50
    assert not frame[list(joint.settings.objectives)].isna().any(axis=None)


def test_the_space_that_it_was_recorded_with_is_the_joint_one() -> None:
    recorded = load_space(f"{RECORDED_FILE.parents[2]}/benchmarks/table_joint.yaml")
    joint = load_space("joint")
    assert {**recorded.data, "study": {}} == {**joint.data, "study": {}}
    assert space_beside(RECORDED_FILE).is_file()


def test_the_command_knows_it(capsys: pytest.CaptureFixture) -> None:
    few = ["--seeds", "1", "--trainings", "4", "--workers", "4", "--methods", "random", "--json"]
    assert study.simulate.main([RECORDED, *few]) == 0
    assert json.loads(capsys.readouterr().out)["regret"]["random"]["mean"][-1] >= 0
    assert study.simulate.main(["--list"]) == 0
    assert RECORDED in capsys.readouterr().out
    assert study.simulate.main(["recordet"]) == 2
    assert f"did you mean {RECORDED!r}?" in capsys.readouterr().err
