"""Losses of the user's own, by factory: they train beside the others, and what is none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import run, timeless, tiny, tiny_data
from torch import Tensor, nn

from study.core.errors import InputError
from study.data import SegmentationData
from study.losses import family
from study.losses.config import FactoryLoss
from study.losses.own import own_loss
from study.training.trainer import loss_for, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


def cross_entropy(ignore_index: int) -> nn.Module:
    return nn.CrossEntropyLoss(ignore_index=ignore_index)


def weighted(num_classes: int, class_counts: Tensor, **others: Any) -> nn.Module:
    counts = class_counts.sum(0)
    assert counts.shape == (num_classes,) and set(others) == {"ignore_index"}
    weight = (counts.sum() / counts.clamp(min=1)).float()
    return nn.CrossEntropyLoss(weight=weight, **others)


class Stateful(nn.Module):
    """Its weight grows with the steps, so that a resumed training must have its buffer."""

    steps: Tensor

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.plain = nn.CrossEntropyLoss(ignore_index=ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.plain(logits, target) * (1 + self.steps)


def of_images(ignore_index: int) -> nn.Module:
    return nn.CrossEntropyLoss(ignore_index=ignore_index, reduction="none")


def without_gradient() -> object:
    return lambda logits, target: torch.tensor(1.0)


def learned() -> nn.Module:
    module = cross_entropy(255)
    module.temperature = nn.Parameter(torch.ones(()))
    return module


def no_loss() -> int:
    return 3


def named(name: str, **kwargs: object) -> FactoryLoss:
    return FactoryLoss(factory=f"{__name__}:{name}", kwargs=kwargs)


def test_torchs_cross_entropy_trains_as_this_packages(data: SegmentationData) -> None:
    own = run(tiny({"factory": f"{__name__}:cross_entropy"}), data)
    ours = run(tiny(), data)
    for one, other in zip(own, ours, strict=True):
        for key in ("train/loss", "val/miou", "val/macc"):
            assert one.metrics[key] == pytest.approx(other.metrics[key], abs=1e-3)


def test_a_factory_gets_what_its_signature_names(data: SegmentationData) -> None:
    loss = loss_for(named("weighted"), data)
    assert loss.function.weight.shape == (data.num_classes,)  # type: ignore[union-attr]
    assert loss_for(
        FactoryLoss(factory="torch.nn:CrossEntropyLoss"), data
    ).function.ignore_index == (  # type: ignore[union-attr]
        data.ignore_index
    )
    assert family(named("weighted")) == "factory"


def test_it_has_seen_no_batch_before_the_first() -> None:
    loss = own_loss(named("Stateful"), num_classes=4, class_counts=None, ignore_index=255)
    assert float(loss.function.steps) == 0


def test_it_has_a_value_without_gradients_as_in_a_validation() -> None:
    loss = own_loss(named("cross_entropy"), num_classes=4, class_counts=None, ignore_index=255)
    logits, target = torch.randn(1, 4, 2, 2, requires_grad=True), torch.zeros(1, 2, 2).long()
    with torch.no_grad():
        validated = loss(logits, target)
    assert torch.equal(validated, loss(logits, target).detach())
    assert torch.equal(validated, loss(logits.detach(), target))


def test_its_state_is_resumed(data: SegmentationData, tmp_path: Path) -> None:
    config = tiny({"factory": f"{__name__}:Stateful"})
    whole = []
    for report in train(config, data=data, device="cpu"):
        whole.append(timeless(report))
        if report.epoch == 1:
            report.save(tmp_path / "one.pt")
    (rest,) = run(config, data, resume_from=tmp_path / "one.pt")
    assert timeless(rest) == whole[1]


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("of_images", {}, r"must give a scalar tensor with a gradient, got shape \(2, 8, 8\)"),
        ("without_gradient", {}, r"must give a scalar tensor with a gradient, got shape \(\)"),
        ("learned", {}, "has parameters of its own, which nothing would train; register them as"),
        ("no_loss", {}, "must return a loss, got int"),
        ("cross_entropy", {"gamma": 1}, r"cross_entropy\(ignore_index, gamma\) raised TypeError"),
        ("absent", {}, "no 'absent' in"),
    ],
)
def test_what_is_no_loss_is_named(name: str, kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^factory: .*{said}"):
        own_loss(named(name, **kwargs), num_classes=4, class_counts=None, ignore_index=255)
