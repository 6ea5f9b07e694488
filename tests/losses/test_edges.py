"""Inputs, settings and surroundings at the edge: right, or refused in one line."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from losses.variants import AXES, batch, each, gradient
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from study.losses import LossConfig, build_loss

COUNTS = [[400, 90, 10, 7], [300, 0, 150, 50]]


def make(config, **options):
    return build_loss(config, num_classes=4, class_counts=COUNTS, **options)


# --- binary -------------------------------------------------------------------------------------


def binary(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 1, 6, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 6, 5, generator=generator) < 0.3
    return logits.to(dtype).requires_grad_(), mask


@pytest.mark.parametrize("shape", ["(B, H, W)", "(B, 1, H, W)"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_one_channel_is_a_sigmoid(shape, dtype):
    logits, mask = binary()
    expected = functional.binary_cross_entropy_with_logits(logits, mask[:, None].double())
    target = (mask if shape == "(B, H, W)" else mask[:, None]).to(dtype)
    value = build_loss({}, num_classes=1)(logits, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))


def test_soft_binary_labels_are_the_probability_of_the_second_class():
    logits, _ = binary()
    soft = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    expected = functional.binary_cross_entropy_with_logits(logits, soft)
    for target in (soft, soft[:, 0]):
        torch.testing.assert_close(build_loss({}, num_classes=1)(logits, target), expected)
    with pytest.raises(ValueError, match="a soft target must be a distribution"):
        build_loss({}, num_classes=1)(logits, 255 * soft)


@each(AXES)
def test_a_binary_loss_is_that_of_two_classes_of_which_the_first_has_logit_0(config):
    logits, mask = binary()
    target = mask.long().masked_fill(torch.rand(mask.shape) < 0.2, 255)
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    counts = [[900, 100], [500, 20]]
    one, two = (build_loss(config, num_classes=c, class_counts=counts) for c in (1, 2))
    value, expected = one(logits, target), two(both, target)
    assert value == expected
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))
    assert one.terms().keys() == two.terms().keys()
    assert one.num_classes == 1


def test_a_binary_label_or_count_that_does_not_fit_is_refused():
    logits, mask = binary()
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\) or 255 \(ignored\), got 2"):
        build_loss({}, num_classes=1)(logits, 2 * mask.long())
    with pytest.raises(ValueError, match=r"class_counts must have shape \(2,\)"):
        build_loss({"class_weights": {"scheme": "enet"}}, num_classes=1, class_counts=[9])


# --- shapes -------------------------------------------------------------------------------------


@each({name: config for name, config in AXES.items() if "boundary" not in name})
@pytest.mark.parametrize("size", [(30,), (2, 3, 5), (5, 3, 2, 1)], ids=str)
def test_sequences_and_volumes_are_images_of_another_shape(config, size):
    logits, target = batch()
    expected = make(config)(logits, target)
    other = logits.detach().flatten(2).unflatten(2, size).requires_grad_()
    value = make(config)(other, target.flatten(1).unflatten(1, size))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        gradient(value, other).flatten(), gradient(expected, logits).flatten()
    )


def test_boundaries_of_volumes_are_refused():
    loss = make(AXES["boundary"])
    with pytest.raises(ValueError, match=r"^smoothing_region/kind: .*\(2, 3, 5\); kind: every"):
        loss(torch.zeros(1, 4, 2, 3, 5), torch.zeros(1, 2, 3, 5).long())


def test_a_target_and_a_mask_may_have_a_channel_of_their_own():
    logits, target = batch()
    expected = make({})(logits, target)
    assert make({})(logits, target[:, None]) == expected
    found = make({})(logits, target.clamp(max=3)[:, None], (target != 255)[:, None])
    assert found == expected


# --- soft targets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda soft: soft * 255, "got a sum of 255"),
        (lambda soft: torch.cat([soft[:, :2] + 3, soft[:, 2:] - 3], 1), "got a value of -"),
        (lambda soft: soft * torch.nan, "got a sum of nan"),
        (lambda soft: torch.cat([soft[:, :3], soft[:, 3:] + 0.01], 1), r"got a sum of 1\.01"),
    ],
    ids=["of 0..255", "log", "nan", "nearly"],
)
def test_a_soft_target_that_is_no_distribution_is_refused(change, words):
    logits, _ = batch(dtype=torch.float32)
    soft = torch.softmax(torch.randn(logits.shape), 1)
    with pytest.raises(ValueError, match=f"distribution .*{words}.*validate=False"):
        make({})(logits, change(soft))
    make({}, validate=False)(logits, change(soft))
    keep = torch.zeros(logits[:, 0].shape, dtype=torch.bool)
    assert make({})(logits, change(soft), keep) == 0  # what is not kept is not read


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_rounded_distribution_is_one(dtype):
    logits = torch.randn(2, 40, 6, 5)
    soft = torch.softmax(3 * torch.randn(2, 40, 6, 5), 1)
    value = build_loss({}, num_classes=40)(logits, soft.to(dtype))
    torch.testing.assert_close(
        value, build_loss({}, num_classes=40)(logits, soft), rtol=1e-2, atol=0
    )


# --- numbers near the end of single precision ---------------------------------------------------


def confident(margin=18.0):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (1, 60, 60), generator=generator)
    easy = torch.rand(target.shape, generator=generator) < 0.95
    shown = functional.one_hot(target, 4).movedim(-1, 1).double()
    noise = 0.1 * torch.rand(shown.shape, generator=generator)
    return shown * torch.where(easy, margin, 0.5)[:, None] + noise.float(), target


@pytest.mark.parametrize("margin", [5.0, 12.0, 18.0, 40.0])
@pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])
def test_ohem_orders_sure_pixels_in_single_precision_too(margin, plain, monkeypatch):
    if plain:
        monkeypatch.setattr("study.losses.kernel.knows", lambda config: False)
    logits, target = confident(margin)
    found = {}
    for dtype in (torch.float64, torch.float32):
        loss = make({"pooling": {"kind": "ohem", "threshold": 0.7, "min_kept": 0.1}})
        found[dtype] = float(loss(logits.to(dtype), target)), float(loss.terms()["kept"])
    assert found[torch.float32] == pytest.approx(found[torch.float64], abs=1e-6)
    assert found[torch.float64][1] == pytest.approx(0.1, abs=1e-3)


def test_true_ties_of_sure_pixels_are_all_kept():
    logits = torch.tensor([20.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    loss = build_loss({"pooling": {"kind": "ohem", "threshold": 0.0}}, num_classes=3)
    loss(logits, torch.zeros(1, 4, 5, dtype=torch.int64))
    assert loss.terms()["kept"] == 1


@pytest.mark.parametrize("average", ["batch", "image", "class"])
def test_soft_jaccard_of_false_positives_alone_is_exact_in_single_precision(average):
    jaccard = {"mix": 1.0, "beta": 0.0, "smooth": 0.0, "average": average, "classes": "all"}
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 40, 40, generator=generator)
    logits[:, 2] -= 16  # hardly predicted, and less than its label
    soft = torch.softmax(torch.randn(2, 4, 40, 40, generator=generator), 1)
    exact = make({"jaccard": jaccard})(logits.double(), soft.double(), None)
    found = make({"jaccard": jaccard})(logits, soft)
    assert float(found) == pytest.approx(float(exact), abs=1e-6)


# --- settings -----------------------------------------------------------------------------------


def test_no_index_need_be_ignored():
    logits, target = batch()
    shown = target.clamp(max=3)
    for config in ({}, {"focal_gamma": 1.0}):
        loss = make(config, ignore_index=None)
        assert loss(logits, shown) == make(config)(logits, shown)
        assert loss.ignore_index is None
        for label in (255, -100):
            wrong = torch.where(target == 255, label, target)
            with pytest.raises(ValueError, match=rf"\[0, 4\), none is ignored, got {label}"):
                loss(logits, wrong)


@pytest.mark.parametrize("given", [[255, -1], (255, -1), np.array([255, -1]), {255, -1}], ids=str)
def test_several_indices_are_ignored(given):
    logits, target = batch()
    other = torch.where((target == 255) & (torch.rand(target.shape) < 0.5), -1, target)
    for config in ({}, AXES["everything"]):
        loss = make(config, ignore_index=given)
        value, expected = loss(logits, other), make(config)(logits, target)
        assert value == expected
        assert torch.equal(gradient(value, logits), gradient(expected, logits))
    with pytest.raises(ValueError, match=r"or 255 or -1 .ignored., got 7|or -1 or 255 .ign"):
        loss(logits, torch.where(target == 255, 7, target))


@pytest.mark.parametrize("given", ["255", 255.0, [1.5], None], ids=str)
def test_an_index_that_is_no_integer_is_refused(given):
    if given is None:
        with pytest.raises(ValueError, match=r"^num_classes: num_classes must be a whole number"):
            build_loss({}, num_classes=4.0)
        return
    with pytest.raises(ValueError, match=r"^ignore_index: .*whole number.*None to ignore nothing"):
        make({}, ignore_index=given)


def test_numbers_of_numpy_are_numbers():
    logits, target = batch()
    config = {
        "focal_gamma": np.float32(2.0),
        "smoothing_region": {"kind": "boundary", "width": np.int64(3)},
        "label_smoothing": np.float64(0.1),
        "class_weights": {"scheme": "manual", "weights": np.array([1.0, 2.0, 3.0, 4.0])},
    }
    loss = build_loss(config, num_classes=np.int64(4), ignore_index=np.int32(255))
    plain = LossConfig.model_validate(
        {
            "focal_gamma": 2.0,
            "smoothing_region": {"kind": "boundary", "width": 3},
            "label_smoothing": 0.1,
            "class_weights": {"scheme": "manual", "weights": [1, 2, 3, 4]},
        }
    )
    assert loss.config == plain
    assert loss(logits, target) == build_loss(plain, num_classes=4)(logits, target)


@pytest.mark.parametrize("counts", [[0.9, 0.09, 0.01, 0.0], [90.5, 9.0, 0.4, 0.1]])
def test_effective_numbers_need_pixels_not_shares(counts):
    config = {"class_weights": {"scheme": "effective_number", "kappa": 100.0}}
    with pytest.raises(
        ValueError, match=r"^class_weights/scheme: .*whole numbers of pixels.*share"
    ):
        build_loss(config, num_classes=4, class_counts=counts)


@pytest.mark.parametrize("name", ["config", "num_classes", "ignore_index"])
def test_what_a_loss_was_built_with_cannot_be_replaced(name):
    loss = make({})
    with pytest.raises(AttributeError, match=name):
        setattr(loss, name, getattr(make({"focal_gamma": 2.0}), name))


# --- state --------------------------------------------------------------------------------------


def test_other_class_weights_than_the_configured_ones_are_not_loaded():
    inverse = {"class_weights": {"scheme": "inverse_frequency"}}
    old = build_loss(inverse, num_classes=3, class_counts=[900, 90, 10])
    manual = {"class_weights": {"scheme": "manual", "weights": [1.0, 1.0, 5.0]}}
    for inside in (False, True):
        new = build_loss(manual, num_classes=3)
        target, source = (
            torch.nn.ModuleDict({"loss": one}) if inside else one for one in (new, old)
        )
        with pytest.raises(
            RuntimeError, match=r"class_weights are .* in the state and .*, 5.0. by"
        ):
            target.load_state_dict(source.state_dict(), strict=False)
    state = old.state_dict()
    del state["class_weights"]
    new.load_state_dict(state, strict=False)
    assert new.class_weights.tolist() == [1.0, 1.0, 5.0]
    same = build_loss(inverse, num_classes=3, class_counts=[9000, 900, 100])
    same.load_state_dict(old.state_dict())
    adjusted = {"logit_adjustment": {"tau": 1.0}}
    one, two = (build_loss(adjusted, num_classes=2, class_counts=c) for c in ([9, 1], [1, 1]))
    with pytest.raises(RuntimeError, match="log_prior are"):
        two.load_state_dict(one.state_dict())


def test_a_state_of_flags_is_loaded():
    """The classes seen were booleans once."""
    loss, other = (make({"recall": {"ema_momentum": 0.5}}) for _ in range(2))
    loss(*batch())
    state = loss.state_dict()
    state["recall.seen"] = state["recall.seen"].bool()
    other.load_state_dict(state)
    assert other.recall.seen.tolist() == [1, 1, 1, 0]
    assert other(*batch(seed=1)) == loss(*batch(seed=1))


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["mean", "ema"])
def test_an_averaged_model_averages_the_state(average):
    config = {"class_weights": {"scheme": "enet"}, "recall": {"ema_momentum": 0.5}}
    model = torch.nn.ModuleDict({"loss": make(config)})
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    for seed in range(3):
        model["loss"](*batch(seed))
        averaged.update_parameters(model)
    loss = averaged.module["loss"]
    assert (loss.recall.seen > 0).tolist() == [True, True, True, False]
    torch.testing.assert_close(loss.class_weights, model["loss"].class_weights)
    assert loss.eval()(*batch()).isfinite()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_observes_recall_once(reentrant):
    config = {"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": 0.5}}
    expected, found = make(config), make(config)
    for loss in (expected, found):
        loss(*batch(seed=7))
    logits, target = batch()
    value = expected(logits, target)
    wanted = gradient(value, logits)
    again = checkpoint(found, logits, target, use_reentrant=reentrant)
    assert again == value
    again.backward()
    torch.testing.assert_close(logits.grad, wanted)
    assert torch.equal(found.recall.value, expected.recall.value)


@pytest.mark.parametrize(
    ("logits", "target", "got"),
    [
        ({"out": 1, "aux": 2}, torch.zeros(1, 2, 2), "logits must be a tensor, got a dict of out,"),
        ((torch.zeros(1, 4, 2, 2),), torch.zeros(1, 2, 2), "logits must be a tensor, got a tuple"),
        (torch.zeros(1, 4, 2, 2), np.zeros((1, 2, 2)), "target must be a tensor, got a ndarray"),
    ],
    ids=["dict", "tuple", "numpy"],
)
def test_what_is_no_tensor_is_named(logits, target, got):
    with pytest.raises(ValueError, match=got):
        make({})(logits, target)


def test_a_copy_of_a_loss_that_has_seen_transforms_and_steps_is_a_loss():
    loss = make(AXES["everything"])
    logits, target = batch()
    torch.func.grad(lambda z: loss(z, target))(logits.detach())
    loss(logits, target)
    other = copy.deepcopy(loss)
    assert other(*batch(seed=1)) == loss(*batch(seed=1))


# --- which classes count ------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [3, 9, 10, 19])
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_smoothing_makes_no_class_present_whatever_their_number(num_classes, epsilon):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, num_classes, 8, 8, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (1, 8, 8), generator=generator)
    jaccard = {"mix": 1.0, "smooth": 0.0, "target": "smoothed"}
    config = {"label_smoothing": epsilon, "jaccard": jaccard}
    value = build_loss(config, num_classes=num_classes)(logits, target)
    p, shown = logits.softmax(1), functional.one_hot(target, num_classes).movedim(-1, 1)
    t = (1 - epsilon) * shown + epsilon / num_classes
    index = torch.minimum(p, t).sum((0, 2, 3)) / torch.maximum(p, t).sum((0, 2, 3))
    assert float(value) == pytest.approx(float(1 - index[:2].mean()))


# --- logit adjustment ---------------------------------------------------------------------------


def test_logit_adjustment_adds_the_log_prior_and_recall_is_that_of_the_network():
    logits, target = batch()
    counts = torch.tensor([700.0, 200.0, 100.0, 0.0])
    prior = (counts.clamp(min=100) / 1000).log().double()
    loss = build_loss({"logit_adjustment": {"tau": 1.5}}, num_classes=4, class_counts=counts)
    shifted = logits + 1.5 * prior[:, None, None]
    expected = functional.cross_entropy(shifted, target, ignore_index=255)
    value = loss(logits, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))
    config = {"logit_adjustment": {"tau": 9.0}, "recall": {"ema_momentum": 0.0}}
    adjusted = build_loss(config, num_classes=4, class_counts=counts)
    plain = build_loss({"recall": {"ema_momentum": 0.0}}, num_classes=4)
    adjusted(logits, target), plain(logits, target)
    assert torch.equal(adjusted.recall.value, plain.recall.value)


def test_at_tau_1_it_is_the_balanced_softmax():
    logits, target = batch(shape=(2, 4, 4))
    pixels = torch.tensor([60.0, 30.0, 9.0, 1.0], dtype=torch.float64)
    balanced = pixels[:, None, None] * logits.exp()
    q = balanced.gather(1, target.clamp(max=3)[:, None])[:, 0] / balanced.sum(1)
    expected = -q.log()[target != 255].mean()
    loss = build_loss({"logit_adjustment": {"tau": 1.0}}, num_classes=4, class_counts=pixels)
    torch.testing.assert_close(loss(logits, target), expected)


def test_logit_adjustment_needs_counts():
    with pytest.raises(ValueError, match=r"^logit_adjustment/tau: logit_adjustment needs class_co"):
        build_loss({"logit_adjustment": {"tau": 1.0}}, num_classes=4)
    assert build_loss({"logit_adjustment": {"tau": 0.0}}, num_classes=4).log_prior is None
    assert math.isclose(
        float(make({"logit_adjustment": {"tau": 1.0}}).log_prior.exp()[0]), 700 / 1007
    )
