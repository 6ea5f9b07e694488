from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from study.config.task import Augment
from study.training.augment import augment, draw_views, padding

MEAN = torch.tensor([0.2, 0.4, 0.6])


def batch(num_images=64, height=12, width=16):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(num_images, 3, height, width, generator=generator)
    return images, torch.randint(0, 5, (num_images, height, width), generator=generator)


def run(config, images, target, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return augment(images, target, config, mean=MEAN, ignore_index=255, generator=generator)


def test_neutral_augmentation_changes_nothing_and_draws_nothing():
    images, target = batch()
    generator = torch.Generator().manual_seed(0)
    out = augment(images, target, Augment(), mean=MEAN, ignore_index=255, generator=generator)
    assert out[0] is images
    assert out[1] is target
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize("crop", [(12, 16), (24, 8), (24, 20), None])
@pytest.mark.parametrize("scale", [None, (0.5, 1.5)])
def test_padding_is_what_a_window_has_of_it_at_least(crop, scale):
    images, target = batch()
    config = Augment(crop=crop, scale=scale)
    beyond = (run(config, images, target)[1] == 255).float().mean(dim=(1, 2))
    least = padding(config, (12, 16))
    if scale is None:
        assert beyond.tolist() == pytest.approx([least] * len(beyond))
    else:
        assert float(beyond.min()) >= least - 0.03  # a row of pixels of 24
        assert (least > 0) == (crop is not None and (crop[0] > 18 or crop[1] > 24))


def test_flip_mirrors_image_and_target_together_as_often_as_asked():
    images, target = batch(400)
    flipped, moved = run(Augment(flip=0.25), images, target)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert 70 < int(mirrored.sum()) < 130
    for index, mirror in enumerate(mirrored.tolist()):
        expected = (
            (images[index].flip(-1), target[index].flip(-1))
            if mirror
            else (images[index], target[index])
        )
        assert torch.equal(flipped[index], expected[0])
        assert torch.equal(moved[index], expected[1])


def test_certain_flip_mirrors_all():
    images, target = batch()
    flipped, moved = run(Augment(flip=1.0), images, target)
    assert torch.equal(flipped, images.flip(-1))
    assert torch.equal(moved, target.flip(-1))


def test_zoom_by_one_is_the_identity():
    images, target = batch()
    zoomed, moved = run(Augment(scale=(1.0, 1.0)), images, target)
    assert torch.allclose(zoomed, images, atol=1e-5)
    assert torch.equal(moved, target)


def test_zooming_in_shows_a_window_and_ignores_nothing():
    images, target = batch()
    target = torch.zeros_like(target)
    target[:, :, 8:] = 1
    images = target[:, None].expand(-1, 3, -1, -1).float()
    zoomed, moved = run(Augment(scale=(2.0, 2.0)), images, target)
    assert not (moved == 255).any()
    assert ((zoomed[:, 0] > 0.5) == (moved == 1)).float().mean() > 0.97
    share = (moved == 1).float().mean(dim=(1, 2))
    assert share.min() < 0.3
    assert share.max() > 0.7


def test_zooming_out_pads_with_the_mean_colour_and_ignored_pixels():
    images, target = batch()
    zoomed, moved = run(Augment(scale=(0.5, 0.5)), images, target)
    empty = moved == 255
    assert torch.allclose(empty.float().mean(dim=(1, 2)), torch.tensor(0.75), atol=0.08)
    assert torch.equal(zoomed.permute(0, 2, 3, 1)[empty], MEAN.expand(int(empty.sum()), 3))
    corners = {tuple(torch.nonzero(~one)[0].tolist()) for one in empty}
    assert len(corners) > 20


def test_scale_draws_the_range():
    images, target = batch(300)
    _, moved = run(Augment(scale=(0.5, 2.0)), images, target)
    padded = (moved == 255).any(dim=2).any(dim=1)
    assert 110 < int(padded.sum()) < 190


def test_jitter_moves_colours_within_its_strength_and_leaves_the_target():
    images, target = batch()
    grey = torch.full_like(images, 0.4)
    jittered, same = run(Augment(jitter=0.2), grey, target)
    assert same is target
    levels = jittered.amax(dim=(1, 2, 3))
    assert levels.min() >= 0.4 * 0.8 - 1e-5
    assert levels.max() <= 0.4 * 1.2 + 1e-5
    assert levels.std() > 0.02
    coloured, _ = run(Augment(jitter=0.9), images, target)
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    contrast = coloured.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert contrast.min() < 0.5
    saturation = coloured.std(dim=1).mean(dim=(1, 2)) / coloured.std(dim=(1, 2, 3))
    assert saturation.std() > 0.1


def test_one_seed_augments_alike_and_another_does_not():
    images, target = batch()
    config = Augment(flip=0.5, scale=(0.5, 2.0), jitter=0.3)
    first, again, other = (run(config, images, target, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_crop_is_a_window_of_the_image_at_every_position():
    images, target = batch(400)
    cropped, moved = run(Augment(crop=(8, 10)), images, target)
    assert cropped.shape == (400, 3, 8, 10)
    positions = set()
    for image, label, window, part in zip(images, target, cropped, moved, strict=True):
        (found,) = [
            (top, left)
            for top in range(5)
            for left in range(7)
            if torch.equal(image[:, top : top + 8, left : left + 10], window)
        ]
        top, left = found
        assert torch.equal(label[top : top + 8, left : left + 10], part)
        positions.add(found)
    assert len(positions) == 5 * 7


def test_a_crop_larger_than_the_image_holds_it_whole_and_ignores_the_rest():
    images, target = batch(100)
    cropped, moved = run(Augment(crop=(14, 8)), images, target)
    assert cropped.shape == (100, 3, 14, 8)
    empty = moved == 255
    assert (empty.sum(dim=(1, 2)) == 2 * 8).all()
    assert torch.equal(cropped.permute(0, 2, 3, 1)[empty], MEAN.expand(int(empty.sum()), 3))
    assert {int(one[:, 0].int().argmin()) for one in empty} == {0, 1, 2}


def test_a_zoom_and_a_crop_show_the_zoomed_image_at_the_size_of_the_crop():
    # a ramp along each axis: its slope in the window is the zoom
    rows = torch.linspace(0, 1, 33)[:, None].expand(33, 65)
    columns = torch.linspace(0, 1, 65).expand(33, 65)
    images = torch.stack([rows, columns, rows])[None].repeat(50, 1, 1, 1)
    target = torch.zeros(50, 33, 65, dtype=torch.int64)
    zoomed, moved = run(Augment(scale=(2.0, 2.0), crop=(16, 24)), images, target)
    assert zoomed.shape == (50, 3, 16, 24)
    assert not (moved == 255).any()
    slopes = zoomed.diff(dim=2)[:, 0, 2:-2].mean(), zoomed.diff(dim=3)[:, 1, :, 2:-2].mean()
    torch.testing.assert_close(torch.stack(slopes), torch.tensor([1 / 32, 1 / 64]) / 2)
    corners = zoomed[:, :2, 0, 0]
    assert corners.amin(0).max() < 0.1
    assert corners.amax(0).min() > 0.55


@pytest.mark.parametrize("flip", [0.0, 0.5])
@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.3, 0.4), (1.5, 3.0)])
def test_a_zoomed_crop_is_the_same_whether_all_of_the_image_is_read_or_what_is_seen(flip, scale):
    images, target = batch(200, 40, 72)
    config = Augment(flip=flip, scale=scale, crop=(9, 13))
    views = draw_views(config, 200, (40, 72), torch.Generator().manual_seed(0))
    whole = replace(views, extent=views.full, corners=None)
    pixels, labels = views.mirror(images.permute(0, 2, 3, 1), target)
    expected = whole.show(pixels.permute(0, 3, 1, 2), labels, mean=MEAN, ignore_index=255)
    shown = run(config, images, target)
    torch.testing.assert_close(shown[0], expected[0], atol=1e-5, rtol=0)
    assert torch.equal(shown[1], expected[1])


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (Augment(crop=(8, 10)), (8, 10)),
        (Augment(crop=(8, 100), flip=0.5), (8, 72)),
        (Augment(scale=(0.5, 2.0), crop=(8, 10)), (8 / 0.5 + 4, 10 / 0.5 + 4)),
        (Augment(scale=(2.0, 4.0), crop=(8, 10), flip=0.5), (8 / 2 + 4, 10 / 2 + 4)),
    ],
)
def test_of_images_that_are_cropped_no_more_is_read_than_is_seen(config, most):
    views = draw_views(config, 50, (40, 72), torch.Generator().manual_seed(0))
    sizes = {(y.stop - y.start, x.stop - x.start) for y, x in views.parts()}
    assert sizes == {views.extent}
    assert views.extent[0] <= most[0]
    assert views.extent[1] <= most[1]
    for part in views.parts():
        for seen, pixels in zip(part, (40, 72), strict=True):
            assert 0 <= seen.start < seen.stop <= pixels


def test_images_that_are_not_cropped_are_read_whole():
    for config in (Augment(), Augment(flip=0.5, scale=(0.5, 2.0)), Augment(crop=(50, 80))):
        views = draw_views(config, 4, (40, 72), torch.Generator().manual_seed(0))
        assert views.parts() is None
