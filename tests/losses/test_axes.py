"""What single axes promise beyond the battery of test_composite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from losses.variants import AXES

from study.losses import PRESETS, LossConfig, build_loss, family

CE = torch.nn.functional.cross_entropy


def config_of(**tree):
    return LossConfig.model_validate(tree)


def batch(seed=0, classes=4, shape=(2, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], classes, *shape[1:], generator=generator).double()
    return logits, torch.randint(0, classes, shape, generator=generator)


# --- recall -------------------------------------------------------------------------------------


def test_recall_is_the_share_of_hits_and_ignores_absent_classes():
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0, :3] = 1.0  # predictions 0 0 0 and a tie, which class 0 wins
    target = torch.tensor([[[0, 0, 1, 0]]])
    loss = build_loss({"recall": {"ema_momentum": 0.5}}, num_classes=3)
    loss(logits, target)
    assert loss.recall.value.tolist() == [1.0, 0.0, 0.0]
    assert loss.recall.seen.tolist() == [True, True, False]
    assert loss.weights().tolist() == [0.0, 1.0, 1.0]


def test_on_a_tie_the_lowest_class_wins():
    loss = build_loss({"recall": {"ema_momentum": 0.0}}, num_classes=3)
    loss(torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 1, 2]]]))
    assert loss.recall.value.tolist() == [1.0, 0.0, 0.0]


def test_momentum_weighs_the_past():
    loss = build_loss({"recall": {"ema_momentum": 0.75}}, num_classes=2)
    right, wrong = torch.tensor([[[[9.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[9.0]]]])
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    loss(right, target)
    loss(wrong, target)
    assert loss.recall.value[0].item() == 0.75


def test_all_wrong_predictions_give_cross_entropy():
    logits, target = batch()
    wrong = logits.scatter(1, target[:, None], -50.0)
    loss = build_loss({"recall": {"ema_momentum": 0.0}}, num_classes=4)
    torch.testing.assert_close(loss(wrong, target), CE(wrong, target))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_in_eval_mode_recall_is_read_and_not_written(momentum):
    loss = build_loss({"recall": {"ema_momentum": momentum}}, num_classes=4)
    loss(*batch(seed=1))
    before = loss.recall.value.clone()
    logits, target = batch(seed=2)
    value = loss.eval()(logits, target)
    assert torch.equal(loss.recall.value, before)
    expected = ((1 - before)[target] * CE(logits, target, reduction="none")).mean()
    torch.testing.assert_close(value, expected)


def test_the_weight_normalizer_is_the_weighted_mean():
    logits, target = batch()
    weights = torch.tensor([0.2, 1.0, 5.0, 0.7], dtype=torch.float64)
    config = {
        "class_weights": {"scheme": "manual", "weights": weights.tolist()},
        "normalizer": "weight",
    }
    found = build_loss(config, num_classes=4)(logits, target)
    torch.testing.assert_close(found, CE(logits, target, weights))


def _rank(rank, path, queue):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    logits, target = batch(seed=5, shape=(2, 6, 5))
    loss = build_loss({"recall": {"ema_momentum": 0.9}}, num_classes=4)
    loss(logits[rank : rank + 1], target[rank : rank + 1])
    queue.put(loss.recall.value.tolist())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_see_the_recall_of_both_halves(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [context.Process(target=_rank, args=(r, tmp_path / "store", queue)) for r in range(2)]
    for rank in ranks:
        rank.start()
    found = [queue.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join()
    whole = build_loss({"recall": {"ema_momentum": 0.9}}, num_classes=4)
    whole(*batch(seed=5, shape=(2, 6, 5)))
    assert found == [whole.recall.value.tolist()] * 2


# --- OHEM ---------------------------------------------------------------------------------------


def ohem(threshold, min_kept, logits, target):
    pooling = {"kind": "ohem", "threshold": threshold, "min_kept": min_kept}
    loss = build_loss({"pooling": pooling}, num_classes=logits.shape[1])
    return loss(logits, target), loss.terms()["kept"].item()


def test_equal_pixels_are_all_kept():
    logits, target = torch.zeros(1, 2, 4, 5), torch.zeros(1, 4, 5, dtype=torch.int64)
    value, kept = ohem(0.3, 0.1, logits, target)
    assert kept == 1
    assert value.item() == pytest.approx(math.log(2))


def test_a_probability_at_the_threshold_is_not_below_it():
    logits = torch.zeros(1, 2, 1, 10)
    logits[0, 1, 0, 0] = 1.0  # one harder pixel; the others have probability 0.5 exactly
    assert ohem(0.5, 0.1, logits, torch.zeros(1, 1, 10, dtype=torch.int64))[1] == pytest.approx(0.1)


def test_the_kept_share_is_at_least_min_kept():
    logits, target = batch(shape=(2, 10, 10))
    easy = logits.scatter_add(1, target[:, None], torch.full_like(logits[:, :1], 20.0))
    value, kept = ohem(0.1, 0.25, easy, target)
    losses = CE(easy, target, reduction="none").flatten()
    assert kept == 0.25
    torch.testing.assert_close(value, losses.topk(50).values.mean())


def test_the_hardest_are_those_of_lowest_probability_whatever_the_weights():
    logits, target = batch(shape=(1, 10, 10))
    config = {
        "class_weights": {"scheme": "manual", "weights": [9.0, 0.1, 1.0, 1.0]},
        "pooling": {"kind": "ohem", "threshold": 0.0, "min_kept": 0.2},
    }
    losses = CE(logits, target, reduction="none").flatten()
    hardest = losses.topk(20).indices
    weights = torch.tensor([9.0, 0.1, 1.0, 1.0], dtype=torch.float64)[target.flatten()]
    found = build_loss(config, num_classes=4)(logits, target)
    torch.testing.assert_close(found, (weights * losses)[hardest].mean())


def test_probabilities_that_underflow_are_still_ordered():
    logits = torch.tensor([0.0, 0.0, 0.0, 0.0, 200.0, 300.0, 400.0, 500.0]).reshape(1, 2, 1, 4)
    assert ohem(0.0, 0.25, logits, torch.zeros(1, 1, 4, dtype=torch.int64))[0].item() == 500


# --- Jaccard ------------------------------------------------------------------------------------


def jaccard(logits, target, keep=None, **options):
    config = {"jaccard": {"mix": 1.0, "smooth": 0.0, **options}}
    return build_loss(config, num_classes=logits.shape[1])(logits, target, keep)


def test_on_certain_predictions_it_is_one_minus_iou():
    _, target = batch()
    pred = batch(seed=9)[1]
    certain = 1e3 * torch.nn.functional.one_hot(pred, 4).movedim(-1, 1).double()
    iou = [
        ((pred == c) & (target == c)).sum() / ((pred == c) | (target == c)).sum() for c in range(4)
    ]
    assert jaccard(certain, target).item() == pytest.approx(1 - np.mean(iou), rel=1e-6)


def test_dice_is_jaccard_over_two_minus_jaccard_for_one_class():
    logits, target = batch(classes=2)
    target = torch.where(target == 1, 255, target)  # class 0 alone is active
    j = jaccard(logits, target)
    torch.testing.assert_close(jaccard(logits, target, alpha=0.5, beta=0.5), j / (2 - j))


def test_a_soft_label_that_is_the_prediction_has_loss_zero():
    logits, _ = batch()
    assert jaccard(logits, torch.softmax(logits, 1)).abs() < 1e-12
    other = torch.softmax(logits.roll(1, 1), 1)
    assert jaccard(logits, other) > 0.05


def test_on_one_image_all_averages_agree():
    logits, target = batch(shape=(1, 6, 5))
    values = {round(jaccard(logits, target, average=a).item(), 12) for a in AVERAGES}
    assert len(values) == 1


AVERAGES = ["batch", "image", "class"]


@pytest.mark.parametrize("average", AVERAGES)
def test_absent_classes_count_only_where_all_are_asked_for(average):
    logits, target = batch()
    target = target.clamp(max=2)
    present = jaccard(logits, target, average=average)
    everything = jaccard(logits, target, average=average, classes="all")
    torch.testing.assert_close(everything, (3 * present + 1) / 4)


def test_labels_of_one_percent_are_not_active():
    logits, _ = batch(classes=2, shape=(1, 2, 2))
    for share, number in ((0.01, 1), (0.02, 2)):
        soft = torch.tensor([1 - share, share]).double().reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
        p = torch.softmax(logits, 1)
        tp = torch.minimum(p, soft).sum((0, 2, 3))
        union = torch.maximum(p, soft).sum((0, 2, 3))
        expected = (1 - tp / union)[:number].mean()
        torch.testing.assert_close(jaccard(logits, soft), expected)


def test_an_empty_denominator_is_a_perfect_score():
    logits, target = batch()
    logits.requires_grad_()
    value = jaccard(logits, target.clamp(max=2), alpha=0.0, beta=0.0, classes="all")
    assert value == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


# --- focal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_certain_pixel_has_no_focal_gradient(gamma, dtype):
    logits = torch.tensor([200.0, 0.0], dtype=dtype).reshape(1, 2, 1, 1).requires_grad_()
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    value = build_loss({"focal_gamma": gamma}, num_classes=2)(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert torch.isfinite(grad).all()
    assert grad.abs().max() < 1e-30


# --- presets, families, errors ------------------------------------------------------------------

FAMILIES = {
    "ce": "ce",
    "recall": "recall",
    "recall_normalized": "recall",
    "recall_ema": "recall",
    "inverse_sqrt": "class_weights",
    "median_frequency": "class_weights",
    "lmp": "max_pooling",
    "ohem": "ohem",
    "jml": "jaccard",
    "jml_soft": "label_smoothing+jaccard",
    "jml_bls": "boundary_smoothing+jaccard",
    "dice_ce": "jaccard",
    "dice_topk": "ohem+jaccard",
    "focal_tversky": "jaccard",
    "kd": "distillation",
    "jml_kd": "jaccard+distillation",
    "logit_adjusted": "logit_adjustment",
}


def test_every_preset_is_a_valid_config_of_its_family_with_a_source():
    found = {name: family(config_of(**preset.config)) for name, preset in PRESETS.items()}
    assert found == FAMILIES
    assert all(preset.source and preset.name == name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (AXES["everything"], "label_smoothing+focal+class_weights+recall+max_pooling+jaccard"),
        ({"class_weights": {"scheme": "inverse_frequency", "exponent": 0.0}}, "ce"),
        ({"pooling": {"kind": "max", "p": math.inf}}, "ce"),
        ({"pooling": {"kind": "max", "ratio": 1.0}}, "ce"),
        ({"pooling": {"kind": "ohem", "min_kept": 1.0}}, "ce"),
        ({"normalizer": "weight"}, "ce"),
        ({"jaccard": {"mix": 1.0}, "focal_gamma": 2.0}, "jaccard"),
    ],
)
def test_a_family_names_what_has_an_effect(tree, expected):
    assert family(config_of(**tree)) == expected


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"recall": {"ema_momentum": 1.0}}, r"^loss/recall/ema_momentum: .* \[0, 1\), got 1"),
        (
            {"focal": 2},
            r"^loss/focal: .*label_smoothing, smoothing_region, focal_gamma, class_weights",
        ),
        ({"pooling": {"kind": "max", "ratoi": 0.2}}, r"^loss/pooling/ratoi: .*kind, p, ratio"),
        ({"pooling": {"kind": "median"}}, "^loss/pooling/kind: unknown kind"),
        ({"jaccard": {"mix": "0.5"}}, "^loss/jaccard/mix: mix must be a number"),
        ({"jaccard": {"mix": math.nan}}, "^loss/jaccard/mix: "),
        ("jml_sotf", r"^loss: no preset is named 'jml_sotf'; did you mean 'jml_soft'\?"),
        ([1], r"^loss: loss must be a mapping, got \[1\]"),
    ],
)
def test_a_bad_config_is_one_line_that_names_the_key(tree, words):
    with pytest.raises(ValueError, match=words) as caught:
        build_loss(tree, num_classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("logits", "target", "keep", "words"),
    [
        ((2, 4, 3, 3), torch.zeros(2, 3, 3).long(), None, r"\(B, 5, H, W\).*\(2, 4, 3, 3\)"),
        ((2, 5), torch.zeros(2).long(), None, r"\(2, 5\)"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 4).long(), None, r"\(2, 5, 3, 3\).*\(2, 3, 4\)"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 3), None, r"soft target.*\(2, 3, 3\)"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 3).bool(), None, "torch.bool"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 3).long(), torch.ones(2, 3, 3), "keep .*float32"),
        ((2, 5, 3, 3), torch.full((2, 3, 3), 5), None, r"labels must be in \[0, 5\).* got 5"),
        ((2, 5, 3, 3), torch.full((2, 3, 3), -1), None, "got -1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_both_shapes(logits, target, keep, words):
    with pytest.raises(ValueError, match=words):
        build_loss(None, num_classes=5)(torch.zeros(logits), target, keep)


def test_small_integer_targets_are_labels_too():
    logits, target = batch()
    expected = build_loss({}, num_classes=4)(logits, target)
    assert build_loss({}, num_classes=4)(logits, target.to(torch.uint8)) == expected


def test_state_buffers_are_float64():
    config = {"recall": {"ema_momentum": 0.5}, "class_weights": {"scheme": "enet"}}
    state = build_loss(config, num_classes=2, class_counts=[1, 2]).state_dict()
    assert {key: str(value.dtype) for key, value in state.items()} == {
        "class_weights": "torch.float64",
        "recall.value": "torch.float64",
        "recall.seen": "torch.float64",
    }
