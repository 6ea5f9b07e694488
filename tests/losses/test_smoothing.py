"""Label smoothing at class boundaries: the reference's masks and labels, and what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import plain
from losses.variants import AXES

from study.losses import LossConfig, build_loss
from study.losses.label_smoothing import boundary

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN, INPUTS = np.load(FOLDER / "boundary_smoothing.npz"), np.load(FOLDER / "losses.npz")
RECORDS = sorted(key.removesuffix("__soft") for key in GOLDEN.files if key.endswith("__soft"))
CE = torch.nn.functional.cross_entropy


def at_boundaries(epsilon, width=3, **other):
    region = {"kind": "boundary", "width": width}
    return {"label_smoothing": epsilon, "smoothing_region": region, **other}


def blocks(seed=0, shape=(2, 9, 8), classes=4, ignored=0.05):
    """Logits, and a target of large rectangles with a few ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(shape, dtype=torch.int64)
    for image in target:
        for c in range(classes - 1):
            top, left = (int(torch.randint(size, (1,), generator=generator)) for size in shape[1:])
            image[top : top + 5, left : left + 4] = c
    target[torch.rand(shape, generator=generator) < ignored] = 255
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), target


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize(
    "jaccard", [{}, {"mix": 0.75, "target": "smoothed", "classes": "all"}], ids=["ce", "jml"]
)
def test_the_loss_is_that_on_the_reference_codes_soft_labels(record, jaccard):
    case, options = record.split("__")
    width, epsilon = (float(part[1:]) for part in options.split("_"))
    logits = torch.from_numpy(INPUTS[f"{case}_logits"]).requires_grad_()
    target = torch.from_numpy(INPUTS[f"{case}_target"])
    config = at_boundaries(epsilon, int(width))
    found = build_loss({**config, "jaccard": jaccard}, num_classes=logits.shape[1])(logits, target)
    soft = torch.from_numpy(GOLDEN[f"{record}__soft"])
    on_soft = build_loss({"jaccard": jaccard}, num_classes=logits.shape[1])
    expected = on_soft(logits, soft, keep=target != 255)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("record", [record for record in RECORDS if record.endswith("0.5")])
def test_the_boundary_is_the_reference_codes(record):
    case, width = record.split("__")[0], int(record.split("_k")[1][0])
    target = torch.from_numpy(INPUTS[f"{case}_target"])
    num_classes = INPUTS[f"{case}_logits"].shape[1]
    found = boundary(target.where(target != 255, num_classes), num_classes, width)
    np.testing.assert_array_equal(found, GOLDEN[f"{record}__boundary"].astype(bool))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    width=st.sampled_from([3, 5, 7, 25]),
    ignored=st.sampled_from([0.0, 0.03, 0.3]),
)
def test_the_boundary_is_found_pixel_by_pixel(seed, shape, width, ignored):
    _, target = blocks(seed, shape, ignored=ignored)
    valid = target != 255
    expected = plain.boundary(target.where(valid, 0), valid, width)
    assert torch.equal(boundary(target.where(valid, 4), 4, width), expected)


@pytest.mark.parametrize("name", ["boundary", "boundary_jaccard", "everything", "ohem", "jaccard"])
@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_with_other_axes_it_equals_plain_autograd(name, width, soft):
    config = {**AXES[name], **at_boundaries(0.4, width)}
    config.pop("class_weights", None)
    logits, target = blocks()
    keep = None
    if soft:
        keep = target != 255
        target = torch.nn.functional.one_hot(target.where(keep, 0), 4).movedim(-1, 1)
        target = 0.8 * target + 0.2 * torch.softmax(torch.ones_like(logits), 1).detach()
    loss = build_loss(config, num_classes=4)
    value = loss(logits, target, keep)
    recall = None if loss.recall is None else loss.recall.value
    parsed = LossConfig.model_validate(config)
    expected = plain.plain_loss(parsed, logits, target, keep=keep, recall=recall)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(each, logits)[0] for each in (value, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("jaccard", [{}, {"mix": 0.5, "target": "smoothed"}], ids=["ce", "jml"])
def test_gradcheck_at_boundaries(jaccard):
    logits, target = blocks(seed=1, shape=(1, 5, 4), ignored=0.0)
    loss = build_loss(at_boundaries(0.3, jaccard=jaccard), num_classes=4)
    assert torch.autograd.gradcheck(loss, (logits, target), eps=1e-6, atol=1e-6)


def test_an_edge_between_two_halves_is_two_pixels_wide_and_the_image_border_is_none():
    label = torch.zeros(1, 4, 6, dtype=torch.int64)
    label[:, :, 3:] = 1
    assert boundary(label, 2, 3)[0].sum(0).tolist() == [0, 0, 4, 4, 0, 0]
    assert boundary(label, 2, 5)[0].sum(0).tolist() == [0, 4, 4, 4, 4, 0]
    label[0, 0, 0] = 2  # ignored
    assert boundary(label, 2, 5)[0].sum(0).tolist() == [0, 1, 1, 4, 4, 0]


def test_without_a_boundary_it_is_cross_entropy_and_with_nothing_else_it_is_everywhere():
    logits, _ = blocks()
    one = torch.ones(2, 9, 8, dtype=torch.int64)
    loss = build_loss(at_boundaries(0.4), num_classes=4)
    torch.testing.assert_close(loss(logits, one), CE(logits, one))
    checkered = torch.arange(9)[:, None].add(torch.arange(8)).remainder(2).expand(2, 9, 8)
    expected = CE(logits, checkered, label_smoothing=0.4)
    torch.testing.assert_close(loss(logits, checkered), expected)


def test_a_pixel_that_is_not_kept_hides_the_boundary_like_an_ignored_one():
    logits, target = blocks()
    shown, keep = target.where(target != 255, 3), target != 255
    loss = build_loss(at_boundaries(0.4), num_classes=4)
    assert loss(logits, shown, keep) == loss(logits, target)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({"kind": "boundary", "width": 4}, "width: width must be odd, got 4"),
        ({"kind": "boundary", "width": 1}, "width: width must be in .3, 32768., got 1"),
        ({"kind": "everywhere", "width": 3}, r"unknown key 'width' \(allowed: kind\)"),
        ({"kind": "edges"}, "unknown kind 'edges' .*everywhere, boundary"),
    ],
)
def test_a_region_that_cannot_be_is_refused_by_its_key(region, words):
    with pytest.raises(ValueError, match=f"^loss/smoothing_region.*{words}"):
        build_loss({"label_smoothing": 0.1, "smoothing_region": region}, num_classes=3)
