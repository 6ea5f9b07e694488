from __future__ import annotations

from study.losses.config import LossConfig
from study.space.membership import candidates, effective, idle_knobs, spellings
from study.space.search_space import load_space


def test_options_that_contradict_a_config_are_dropped_before_they_are_combined():
    wanted = {"loss": LossConfig().model_dump(), "optimizer": {"lr_scale": 1.0}}
    found = list(candidates(load_space("joint").tree, wanted, idle_knobs(LossConfig())))
    assert len(found) == 1


def test_knobs_of_terms_that_are_off_are_idle():
    assert "loss/normalizer" in idle_knobs(LossConfig())
    assert "loss/jaccard/alpha" in idle_knobs(LossConfig())
    on = LossConfig.model_validate(
        {"recall": {"ema_momentum": 0.0}, "jaccard": {"mix": 0.5}, "label_smoothing": 0.1}
    )
    assert idle_knobs(on) == frozenset()


def test_idle_leaves_are_left_out_of_the_effective_config():
    tree = {"loss": {"a": [1, 2], "b": {"c": 3}}}
    assert effective(tree, frozenset({"loss/b/c"})) == {"loss/a": (1, 2)}


def test_no_weights_have_two_spellings_and_weights_one():
    assert len(list(spellings(LossConfig()))) == 2
    weighted = LossConfig.model_validate({"class_weights": {"scheme": "median_frequency"}})
    assert list(spellings(weighted)) == [weighted]
