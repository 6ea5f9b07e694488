"""The decision rule of an export: from a file or from its mapping, for torch and numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from study.core.errors import InputError
from study.core.yaml_text import as_yaml
from study.metrics import Decision, build_decision
from study.metrics.decision import log_prior

SHARES = log_prior([700, 250, 0, 50]).tolist()


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 4, 6, 5))


def test_a_file_and_its_mapping_give_the_rule_to_the_last_bit(tmp_path: Path) -> None:
    tree = {"loss": {}, "decision": {"tau": 0.7, "log_prior": SHARES}, "provenance": {"seed": 1}}
    path = tmp_path / "best_miou.yaml"
    path.write_text(as_yaml(tree), encoding="utf-8")
    expected = Decision(tuple(SHARES), 0.7)
    assert build_decision(path) == build_decision(str(path)) == expected
    assert build_decision(yaml.safe_load(path.read_text(encoding="utf-8"))) == expected


def test_torch_and_numpy_give_the_classes_of_the_formula(logits: np.ndarray) -> None:
    decision = build_decision({"decision": {"tau": 0.7, "log_prior": SHARES}})
    expected = (logits - 0.7 * np.array(SHARES)[:, None, None]).argmax(1)
    assert (expected != logits.argmax(1)).any()
    assert np.array_equal(decision(logits), expected)
    assert np.array_equal(decision(torch.as_tensor(logits)).numpy(), expected)
    assert np.array_equal(decision(logits[0]), expected[0])


def test_an_export_of_an_earlier_version_means_the_argmax(
    tmp_path: Path, logits: np.ndarray
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("loss: {}\n", encoding="utf-8")
    assert np.array_equal(build_decision(path)(logits), logits.argmax(1))


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("decision: 0.5", "2: decision: decision must be a mapping, got 0.5"),
        ("decision: {tau: 0.5}", "2: decision/log_prior: missing required key 'log_prior'"),
        ("decision: {tau: high, log_prior: [0]}", "2: decision/tau: tau must be a number"),
        ("decision: {tau: .nan, log_prior: [0]}", "2: decision/tau: tau must be a finite number"),
        (
            "decision:\n  tau: 0.5\n  log_prior: [0, -.inf]",
            "4: decision/log_prior/1: log_prior[1] must be a finite number",
        ),
        ("decision: {tau: 0.5, log_prior: []}", "2: decision/log_prior: log_prior must have a"),
        ("decision: {tau: 0.5, log_prior: [0], rho: 1}", "2: decision/rho: unknown key 'rho'"),
    ],
)
def test_a_malformed_block_is_refused_at_its_place(tmp_path: Path, block: str, says: str) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(f"loss: {{}}\n{block}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        build_decision(path)
    assert str(caught.value).startswith(f"{path}:{says}")
    with pytest.raises(InputError) as caught:
        build_decision(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert str(caught.value).startswith(says.partition(": ")[2])


def test_numpy_is_enough_for_a_decision() -> None:
    code = (
        "import sys, numpy as np; from study.metrics import build_decision\n"
        "decision = build_decision({'decision': {'tau': 1.0, 'log_prior': [-0.1, -3.0]}})\n"
        "print(decision(np.array([[1.0, 0.0]])).tolist(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1] False"
