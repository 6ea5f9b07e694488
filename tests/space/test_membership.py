from __future__ import annotations

from study.losses.config import LossConfig
from study.space.membership import candidates, effective, equivalent_forms, unused_fields
from study.space.search_space import load_space


def test_options_that_contradict_a_config_are_dropped_before_they_are_combined():
    wanted = {"loss": LossConfig().model_dump(), "optimizer": {"lr_scale": 1.0}}
    found = list(candidates(load_space("joint").tree, wanted, unused_fields(LossConfig())))
    assert len(found) == 1


def test_knobs_of_terms_that_are_off_are_idle():
    assert "loss/normalizer" in unused_fields(LossConfig())
    assert "loss/jaccard/alpha" in unused_fields(LossConfig())
    on = LossConfig.model_validate(
        {"recall": {"ema_momentum": 0.0}, "jaccard": {"mix": 0.5}, "label_smoothing": 0.1}
    )
    assert unused_fields(on) == frozenset()


def test_idle_leaves_are_left_out_of_the_effective_config():
    tree = {"loss": {"a": [1, 2], "b": {"c": 3}}}
    assert effective(tree, frozenset({"loss/b/c"})) == {"loss/a": (1, 2)}


def test_no_weights_have_two_spellings_and_weights_one():
    assert len(list(equivalent_forms(LossConfig()))) == 2
    weighted = LossConfig.model_validate({"class_weights": {"scheme": "median_frequency"}})
    assert list(equivalent_forms(weighted)) == [weighted]
