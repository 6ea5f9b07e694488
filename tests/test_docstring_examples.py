"""The examples in the docstrings of the public functions and classes run as they are shown."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest

import study.losses.class_weights
import study.losses.config
import study.losses.focal
import study.losses.jaccard
import study.losses.label_smoothing
import study.losses.logit_adjustment
import study.losses.max_pooling
import study.losses.ohem
import study.losses.pooling
import study.losses.presets
import study.losses.recall
from study.data import SegmentationData, open_data
from study.losses import SegmentationLoss, build_loss
from study.metrics import SegmentationMetrics, build_decision
from study.training import train

EXAMPLES = (
    study.losses.config,
    study.losses.presets,
    study.losses.class_weights,
    study.losses.focal,
    study.losses.jaccard,
    study.losses.label_smoothing,
    study.losses.logit_adjustment,
    study.losses.max_pooling,
    study.losses.ohem,
    study.losses.pooling,
    study.losses.recall,
    build_loss,
    SegmentationLoss,
    SegmentationMetrics,
    build_decision,
    SegmentationData,
    open_data,
    train,
)


@pytest.mark.parametrize("documented", EXAMPLES, ids=lambda one: one.__name__)
def test_an_example_runs_as_it_is_shown(
    documented: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path))
    name, text = documented.__name__, inspect.getdoc(documented) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples
    shown: list[str] = []
    doctest.DocTestRunner().run(example, out=shown.append)
    assert shown == []
