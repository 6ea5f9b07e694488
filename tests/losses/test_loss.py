from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.plain import plain_loss
from losses.variants import AXES, configs, every_axis

from study.losses import LossConfig, build_loss
from study.losses.class_weights import class_weights
from study.losses.cross_entropy import suits

COUNTS = torch.tensor([[400, 90, 10, 0], [300, 0, 150, 50], [480, 15, 4, 1]])  # (images, C)


def make(config, **options):
    return build_loss(config, num_classes=4, class_counts=COUNTS, **options)


def batch(seed=0, ignored=0.2, dtype=torch.float64, scale=3.0, shape=(2, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape[0], 4, *shape[1:], generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, shape, generator=generator)  # class 3 never occurs
    target[torch.rand(shape, generator=generator) < ignored] = 255
    return logits.to(dtype).requires_grad_(), target


def gradient(value, logits):
    return torch.autograd.grad(value, logits)[0]


def plain(config, loss, logits, target, keep=None):
    """The oracle with the module's own recall after its update."""
    return plain_loss(
        LossConfig.model_validate(config),
        logits,
        target,
        keep=keep,
        class_weights=class_weights(loss.config.class_weights, COUNTS, 4),
        recall=None if loss.recall is None else loss.recall.value,
        log_prior=loss.log_prior,
    )


def assert_equals_plain(config, logits, target, keep=None):
    loss = make(config)
    value = loss(logits, target, keep)
    expected = plain(config, loss, logits, target, keep)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        gradient(value, logits), gradient(expected, logits), rtol=1e-8, atol=1e-11
    )


@every_axis
def test_the_fused_form_equals_plain_autograd(config):
    assert_equals_plain(config, *batch())


@pytest.mark.slow
@settings(deadline=None, max_examples=80, derandomize=True)
@given(config=configs, seed=st.integers(0, 999), ignored=st.sampled_from([0.0, 0.3, 1.0]))
def test_any_combination_equals_plain_autograd(config, seed, ignored):
    assert_equals_plain(config, *batch(seed, ignored))


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(config=configs, seed=st.integers(0, 999), ignored=st.sampled_from([0.0, 0.3, 1.0]))
def test_any_combination_on_soft_targets_equals_plain_autograd(config, seed, ignored):
    logits, target = batch(seed, ignored)
    soft = torch.softmax(2 * torch.randn_like(logits), 1).detach()
    assert_equals_plain(config, logits, soft, target != 255)


@pytest.mark.slow
@every_axis
def test_gradcheck(config):
    """By finite differences, with recall and the pooling held where the batch puts them."""
    loss = make(config)
    logits, target = batch(seed=3, shape=(2, 3, 3), scale=1.0)
    loss(logits, target)
    assert torch.autograd.gradcheck(loss.eval(), (logits, target), eps=1e-6, atol=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=15, derandomize=True)
@given(config=configs, seed=st.integers(0, 99))
def test_gradcheck_of_combinations(config, seed):
    loss = make(config)
    logits, target = batch(seed, shape=(2, 3, 3), scale=1.0)
    loss(logits, target)
    assert torch.autograd.gradcheck(loss.eval(), (logits, target), eps=1e-6, atol=1e-6)


@every_axis
def test_the_gradient_sums_to_zero_over_classes(config):
    logits, target = batch()
    total = gradient(make(config)(logits, target), logits).sum(1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-14)


@every_axis
def test_ignored_pixels_change_nothing_even_where_they_are_nan(config):
    logits, target = batch()
    ignored = (target == 255)[:, None].expand_as(logits)
    value = make(config)(logits, target)
    expected = gradient(value, logits)
    for junk in (float("nan"), float("inf"), 1e6):
        other = logits.detach().masked_fill(ignored, junk).requires_grad_()
        again = make(config)(other, target)
        found = gradient(again, other)
        assert again == value
        assert torch.equal(found, expected)
        assert (found[ignored] == 0).all()


@every_axis
def test_a_nan_at_a_valid_pixel_gives_nan(config):
    logits, target = batch()
    image, row, column = (target == 0).nonzero()[0]
    broken = logits.detach().clone()
    broken[image, :, row, column] = float("nan")
    assert make(config)(broken, target).isnan()


@every_axis
def test_a_batch_without_a_valid_pixel_gives_zero_attached_to_the_graph(config):
    logits, target = batch(ignored=1.0)
    value = make(config)(logits, target)
    assert value == 0
    assert (gradient(value, logits) == 0).all()


@every_axis
def test_an_ignored_image_more_changes_nothing(config):
    logits, target = batch()
    more = torch.cat([logits, logits[:1] + 1])
    padded = torch.cat([target, torch.full_like(target[:1], 255)])
    torch.testing.assert_close(make(config)(more, padded), make(config)(logits, target))


@every_axis
def test_a_batch_twice_is_the_batch_once(config):
    if "jaccard" in config:  # a smoothing that is added to the counts does not double with them
        config = {**config, "jaccard": {**config["jaccard"], "smooth": 0.0}}
    logits, target = batch(ignored=0.0, shape=(2, 5, 4))  # 40 pixels: int(share * n) doubles, too
    twice = make(config)(torch.cat([logits, logits]), torch.cat([target, target]))
    torch.testing.assert_close(twice, make(config)(logits, target))


@every_axis
def test_classes_have_no_order(config):
    logits, target = batch()
    order = torch.tensor([2, 0, 3, 1])
    place = torch.argsort(order)
    renamed = torch.where(target == 255, 255, place[target.clamp(max=3)])
    other = build_loss(config, num_classes=4, class_counts=COUNTS[:, order])
    torch.testing.assert_close(other(logits[:, order], renamed), make(config)(logits, target))


@every_axis
def test_float32_and_autocast_agree_with_float64(config):
    logits, target = batch(shape=(2, 24, 20))
    exact = make(config)(logits, target)
    single = logits.detach().float().requires_grad_()
    value = make(config)(single, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = make(config)(single, target)
    assert value.dtype == torch.float32
    assert under_autocast == value
    assert torch.equal(
        gradient(under_autocast, single), gradient(make(config)(single, target), single)
    )
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=0)
    norms = gradient(value, single).double().norm(), gradient(exact, logits).norm()
    torch.testing.assert_close(*norms, rtol=1e-4, atol=0)


@every_axis
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(config, dtype):
    logits, target = batch(dtype=dtype)
    value = make(config)(logits, target)
    assert value.dtype == torch.float32
    assert value == make(config)(logits.detach().float(), target)
    assert gradient(value, logits).dtype == dtype


@every_axis
@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(2, 4, 3, 3),
        torch.full((2, 4, 3, 3), 1e4),
        1e4 * torch.eye(4)[torch.arange(18) % 4].T.reshape(1, 4, 6, 3).reshape(1, 4, 6, 3),
        -1e4 * torch.eye(4)[torch.arange(18) % 3].T.reshape(1, 4, 6, 3),
        torch.linspace(-1e4, 1e4, 72).reshape(2, 4, 3, 3),
    ],
    ids=["constant", "large-constant", "one-hot", "all-wrong", "ramp"],
)
@pytest.mark.parametrize("labels", ["all", "one-class", "one-pixel"])
def test_extreme_inputs_stay_finite_and_equal_plain_autograd(config, logits, labels):
    logits = logits.double().requires_grad_()
    target = torch.arange(logits[:, 0].numel()).reshape(logits[:, 0].shape) % 3
    if labels == "one-class":
        target = torch.zeros_like(target)
    if labels == "one-pixel":
        target = torch.full_like(target, 255)
        target[0, 1, 2] = 1
    assert_equals_plain(config, logits, target)
    single = logits.detach().float().requires_grad_()
    value = make(config)(single, target)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient(value, single)).all()


@every_axis
def test_memory_layout_does_not_matter(config):
    logits, target = batch(shape=(2, 6, 8))
    other = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    value, again = make(config)(logits, target), make(config)(other, target)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(gradient(again, other), gradient(value, logits))


@every_axis
def test_the_target_is_not_written_to(config):
    logits, target = batch()
    before, scores = target.clone(), logits.detach().clone()
    make(config)(logits, target).backward()
    assert torch.equal(target, before)
    assert torch.equal(logits, scores)


@every_axis
def test_a_scaled_loss_has_a_scaled_gradient(config):
    logits, target = batch()
    once = gradient(make(config)(logits, target), logits)
    torch.testing.assert_close(gradient(8 * make(config)(logits, target), logits), 8 * once)


@every_axis
def test_without_a_gradient_the_value_is_the_same(config):
    logits, target = batch()
    expected = make(config)(logits, target)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = make(config)(logits, target)
        assert not value.requires_grad
        assert value == expected


@every_axis
def test_terms_add_up_to_the_value(config):
    logits, target = batch()
    loss = make(config)
    value = loss(logits, target)
    terms, mix = loss.terms(), loss.config.jaccard.mix
    assert ("pixel" in terms, "jaccard" in terms) == (mix < 1, mix > 0)
    total = (1 - mix) * terms.get("pixel", 0) + mix * terms.get("jaccard", 0)
    torch.testing.assert_close(torch.as_tensor(total), value.detach())
    assert all(term.ndim == 0 and not term.requires_grad for term in terms.values())
    before = {name: term.clone() for name, term in terms.items()}
    value.detach().add_(1)
    torch.testing.assert_close(loss.terms(), before, rtol=0, atol=0, equal_nan=True)


@every_axis
def test_state_survives_a_copy_and_a_state_dict(config):
    logits, target = batch()
    loss = make(config)
    loss(logits, target).backward()
    copied, loaded = copy.deepcopy(loss), make(config)
    loaded.load_state_dict(loss.state_dict())
    other, labels = batch(seed=1)
    values = {each(other, labels).item() for each in (loss, copied, loaded)}
    assert len(values) == 1


def test_the_neutral_loss_is_cross_entropy():
    logits, target = batch()
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    for config in (None, {}, {"normalizer": "weight"}, {"jaccard": {"smooth": 1.0}}):
        torch.testing.assert_close(make(config)(logits, target), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_neutral_gradient_has_the_bits_of_torchs_cross_entropy(dtype, ignored):
    logits, target = batch(ignored=ignored, dtype=dtype)
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    value = make({})(logits, target)
    assert value == expected
    assert torch.equal(gradient(value, logits), gradient(expected, logits))


@pytest.mark.parametrize("rows", [1 << 12, 1 + (1 << 12)])
def test_torchs_kernels_are_left_alone_where_they_cannot_count_the_pixels(rows):
    """Beyond 2^24, the whole numbers of float32."""
    scores = torch.zeros(()).expand(1, 2, rows, 1 << 12)
    target = torch.zeros((), dtype=torch.int64).expand(1, rows, 1 << 12)
    assert suits(scores, target) == (target.numel() <= 1 << 24)


def test_soft_one_hot_labels_are_hard_labels():
    logits, target = batch()
    keep = target != 255
    soft = torch.nn.functional.one_hot(target.where(keep, 0), 4).movedim(-1, 1).double()
    for config in AXES.values():
        hard = make(config)(logits, target)
        torch.testing.assert_close(make(config)(logits, soft, keep), hard, rtol=1e-12, atol=1e-14)


@every_axis
def test_keep_and_ignore_index_are_the_same_mask(config):
    logits, target = batch()
    shown = target.where(target != 255, 0)
    found = make(config)(logits, shown, target != 255)
    expected = make(config)(logits, target)
    assert found == expected
    assert torch.equal(gradient(found, logits), gradient(expected, logits))


@pytest.mark.parametrize("ignore_index", [-100, 0, 254])
def test_any_index_can_be_the_ignored_one(ignore_index):
    logits, target = batch(ignored=0.0)
    target[0] = ignore_index
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=ignore_index)
    torch.testing.assert_close(make({}, ignore_index=ignore_index)(logits, target), expected)


def test_max_pooling_sees_weighted_losses_and_mix_one_leaves_the_pixel_term_out():
    logits, target = batch()
    config = {"jaccard": {"mix": 1.0}, "recall": {"ema_momentum": 0.5}}
    loss = make(config)
    value = loss(logits, target)
    assert value == make({"jaccard": {"mix": 1.0}})(logits, target)
    assert loss.recall.seen.tolist() == [True, True, True, False]  # still observed


def test_a_factor_of_zero_hides_an_infinite_term():
    """Not 0 * inf: a term that is mixed away is not added."""
    logits, target = batch(ignored=0.0)
    impossible = logits.detach().clone()
    impossible[0, :, 0, 0] = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    target[0, 0, 0] = 1
    assert make({})(impossible, target).isinf()
    assert make({"jaccard": {"mix": 1.0}})(impossible, target).isfinite()


def test_weights_all_zero_under_the_weight_normalizer_give_zero():
    _, target = batch()
    sure = 100 * torch.nn.functional.one_hot(target.where(target != 255, 0), 4).movedim(-1, 1)
    sure = sure.double().requires_grad_()
    loss = make({"recall": {"ema_momentum": 0.0}, "normalizer": "weight"})
    value = loss(sure, target)
    assert value == 0
    assert (gradient(value, sure) == 0).all()
