from __future__ import annotations

import torch

from study.augment import augment
from study.config import Augment

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
