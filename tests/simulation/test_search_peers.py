"""Searches of other packages, by a stand-in for one."""

from __future__ import annotations

import ast
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from benchmarks.peers import driver
from study.simulation.families import FamilyProblem
from study.simulation.run import Settings
from study.space.search_space import SearchSpace

STAND_IN = '''
import random
from protocol import serve

class AtRandom:
    """Each config up to epoch 9, and then to the end; or `method` says what else."""

    def __init__(self, message):
        self.message, self.random, self.asked = message, random.Random(message["seed"]), []
        self.failures = 0

    def proposed(self, leaf):
        if "options" in leaf:
            return self.random.choice(leaf["options"])
        value = self.random.uniform(leaf["low"], leaf["high"])
        return round(value) if leaf["is_int"] else value

    def ask(self):
        print("not an answer")
        if self.message["method"] == "halves" and self.asked and self.asked[-1][0][1] == 9:
            (name, _), params = self.asked[-1]
            self.asked.append(((name, 24), params))
        else:
            until = 9 if self.message["method"] == "halves" else 24
            params = {leaf["name"]: self.proposed(leaf) for leaf in self.message["leaves"]}
            self.asked.append(((str(len(self.asked)), until), params))
        return self.asked[-1]

    def report(self, job, epoch, value):
        return self.message["method"] == "stops" and epoch == 3

    def failed(self, job):
        self.failures += 1
        if self.message["method"] == "breaks":
            raise ValueError(f"{self.failures} has failed")

serve("pytest", AtRandom)
'''


@contextmanager
def stand_in(folder: Path) -> Iterator[driver.Peer]:
    (folder / "stand_in_peer.py").write_text(STAND_IN, encoding="utf-8")
    with closing(driver.Peer(sys.executable, "stand_in", folder)) as peer:
        yield peer


def test_a_peer_searches_and_gets_better(tmp_path: Path) -> None:
    problem, settings = FamilyProblem("smooth", 1), Settings(workers=4, trainings=6)
    with stand_in(tmp_path) as peer:
        found = driver.search(peer, "", problem, 1, settings)
        assert found == driver.search(peer, "", problem, 1, settings)
    spent, regrets = zip(*found, strict=True)
    assert all(a < b for a, b in pairwise(spent))
    assert max(spent) <= 6 * problem.epochs
    assert regrets[-1] < 1


def test_a_training_that_is_asked_for_again_goes_on(tmp_path: Path) -> None:
    problem = FamilyProblem("smooth", 1)
    with stand_in(tmp_path) as peer:
        whole = driver.search(peer, "", problem, 1, Settings(workers=1, trainings=6))
        halves = driver.search(peer, "halves", problem, 1, Settings(workers=1, trainings=6))
    assert whole == halves and whole[0][0] == problem.epochs


def test_a_training_that_is_stopped_is_never_the_best(tmp_path: Path) -> None:
    with stand_in(tmp_path) as peer:
        settings = Settings(workers=2, trainings=2)
        assert driver.search(peer, "stops", FamilyProblem("smooth", 1), 1, settings) == []


def test_an_error_of_a_peer_is_told(tmp_path: Path) -> None:
    """Here, that a config has diverged."""
    settings = Settings(workers=2, trainings=20)
    with stand_in(tmp_path) as peer, pytest.raises(RuntimeError, match="ValueError: 1 has failed"):
        driver.search(peer, "breaks", FamilyProblem("failing", 1), 1, settings)


@pytest.mark.parametrize("family", ["smooth", "wide", "options"])
def test_what_is_proposed_for_all_leaves_is_a_point_of_the_space(family: str) -> None:
    space: SearchSpace = FamilyProblem(family, 1).space
    leaves, rng = driver.Leaves(space), np.random.default_rng(0)
    for end in (0.0, 0.3, 1.0):
        proposed = {
            leaf["name"]: str(rng.choice(leaf["options"]))
            if "options" in leaf
            else type(leaf["low"])(leaf["low"] + end * (leaf["high"] - leaf["low"]))
            for leaf in leaves.message()
        }
        assert space.point(leaves.params(proposed)) is not None


def test_a_leaf_says_under_which_options_it_is_active() -> None:
    leaves = driver.Leaves(FamilyProblem("smooth", 1).space).message()
    choice = next(leaf["name"] for leaf in leaves if "dropout" in leaf.get("options", ()))
    assert [leaf["when"] for leaf in leaves if leaf["when"]] == [
        {choice: ["decay"]},
        {choice: ["dropout"]},
        {choice: ["dropout"]},
    ]


@pytest.mark.parametrize("package", driver.PACKAGES)
def test_each_file_names_its_package_and_imports_none_of_ours(package: str) -> None:
    text = (driver.HERE / f"{package}_peer.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    compile(tree, package, "exec")
    names = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert names["PACKAGE"].lower().replace("_", "-") in (search.__doc__ or "").lower()
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert not imported & {"study", "benchmarks"}


@pytest.mark.parametrize(
    ("flag", "offence"), [("smak=/bin/sh", "known: dehb, neps"), ("smac=/tmp", "no Python")]
)
def test_a_flag_names_a_known_package_and_its_python(flag: str, offence: str) -> None:
    with pytest.raises(ArgumentTypeError, match=offence):
        driver.named(flag)


@pytest.mark.parametrize(
    ("method", "offence"),
    [("smac", "smac needs --peer smac=PYTHON"), ("smak", "no such method: smak (known: model,")],
)
def test_a_method_that_cannot_be_run_is_refused(
    method: str,
    offence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["search", "--methods", "model", method])
    with pytest.raises(SystemExit):
        search.main()
    assert offence in capsys.readouterr().err


def test_a_peer_is_left_out_where_a_problem_has_two_objectives(tmp_path: Path) -> None:
    with stand_in(tmp_path) as peer:
        settings = Settings(trainings=2)
        assert search._regrets("any", "joint", 1, settings, [2], {"any": peer}) is None
