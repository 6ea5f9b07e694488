"""What a loss tells of its last step: terms, weights in effect, gradient norms."""

from __future__ import annotations

import copy

import pytest
import torch
from losses.variants import batch, every_axis, gradient

from study.losses import build_loss

COUNTS = [[400, 90, 10, 0], [300, 0, 150, 50]]


def make(config):
    return build_loss(config, num_classes=4, class_counts=COUNTS)


def mixed(config, mix):
    return {**config, "jaccard": {**config.get("jaccard", {}), "mix": mix}}


@every_axis
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_gradient_norms_are_those_of_each_terms_share(config, mix):
    logits, target = batch()
    loss = make(mixed(config, mix))
    loss.measure_gradients = True
    loss(logits, target)
    expected = {}
    for name, alone, share in (("pixel", 0.0, 1 - mix), ("jaccard", 1.0, mix)):
        if share:
            value = share * make(mixed(config, alone))(logits, target)
            expected[f"grad_norm/{name}"] = gradient(value, logits).norm()
    found = {name: norm for name, norm in loss.terms().items() if name.startswith("grad_norm")}
    assert found.keys() == expected.keys()
    for name, norm in expected.items():
        torch.testing.assert_close(found[name], norm)


@every_axis
def test_measuring_changes_neither_value_nor_gradient_nor_state(config):
    plain, measured = make(config), make(config)
    measured.measure_gradients = True
    for seed in range(2):
        logits, target = batch(seed)
        value, same = plain(logits, target), measured(logits, target)
        assert torch.equal(gradient(same, logits), gradient(value, logits))
        assert same == value
    for name, state in plain.state_dict().items():
        assert torch.equal(measured.state_dict()[name], state)
    assert measured.training
    assert all(module.training for module in measured.modules())
    others = {name for name in measured.terms() if not name.startswith("grad_norm")}
    assert others == plain.terms().keys()


def test_gradient_norms_are_measured_without_gradients_too():
    logits, target = batch(dtype=torch.float32)
    loss = make({"jaccard": {"mix": 0.5}})
    loss.measure_gradients = True
    loss(logits, target)
    expected = loss.terms()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            loss(logits.detach().clone(), target.clone())
        torch.testing.assert_close(loss.terms(), expected, rtol=0, atol=0, equal_nan=True)


def test_the_jaccard_term_is_weaker_than_its_share():
    """Why the norms are told: at 0.25 : 0.75 the gradient of cross entropy is still the larger."""
    logits, target = batch(shape=(4, 32, 32))
    loss = make({"jaccard": {"mix": 0.75}})
    loss.measure_gradients = True
    loss(logits, target)
    terms = loss.terms()
    assert 0.75 * terms["grad_norm/pixel"] > 0.25 * terms["grad_norm/jaccard"]


def weights(loss, **options):
    terms = loss.terms(**options)
    return {name: value.item() for name, value in terms.items() if name.startswith("weight/")}


def test_weights_in_effect_are_those_of_class_and_recall():
    logits, target = batch()
    config = {
        "class_weights": {"scheme": "manual", "weights": [0.5, 1, 2, 4]},
        "recall": {"ema_momentum": 0.9},
    }
    loss = make(config)
    loss(logits, target)
    expected = loss.weights().tolist()
    assert list(weights(loss).values()) == expected
    assert [*weights(loss)] == ["weight/0", "weight/1", "weight/2", "weight/3"]
    names = ["road", "car", "person", "pole"]
    assert list(weights(loss, class_names=names).items()) == [
        (f"weight/{name}", value) for name, value in zip(names, expected, strict=True)
    ]
    with pytest.raises(ValueError):
        loss.terms(["road"])


def test_weights_in_effect_have_the_normalizer_applied():
    logits, target = batch()
    loss = make({"recall": {"ema_momentum": 0.0}, "normalizer": "weight"})
    loss(logits, target)
    found = torch.tensor(list(weights(loss).values()))
    assert found[target[target != 255]].mean().item() == pytest.approx(1)
    raw = loss.weights()
    torch.testing.assert_close((found / found[0]).double(), raw / raw[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "config", [{}, {"jaccard": {"mix": 1.0}, "recall": {"ema_momentum": 0.0}}, {"focal_gamma": 1.0}]
)
def test_where_no_weight_acts_none_is_told(config):
    loss = make(config)
    loss(*batch())
    assert weights(loss) == {}


def test_terms_of_a_step_stay_when_the_next_one_comes():
    loss = make({"recall": {"ema_momentum": 0.0}, "pooling": {"kind": "ohem"}})
    loss(*batch())
    first = loss.terms()
    kept = copy.deepcopy(first)
    loss(*batch(seed=1))
    assert first == kept
    assert loss.terms() != first
