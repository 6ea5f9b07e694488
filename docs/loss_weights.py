"""Draws docs/loss_weights.png: how much a pixel weighs in each loss, on a toy batch.

    python docs/loss_weights.py

Everything is asked of the losses themselves: a pixel's weight is the size of the loss's gradient by
its logits over that of cross entropy, so 1 is what cross entropy gives it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from study.losses import build_loss

NUM_PIXELS = 4000
CLASSES = {"road": 0.60, "building": 0.25, "car": 0.10, "person": 0.04, "sign": 0.01}
RECALL = (0.98, 0.92, 0.80, 0.50, 0.20)
# Okabe and Ito's colours, which stay apart for the colour-blind; a line style of its own for each.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = "osD^vP"

FOCAL = {f"$\\gamma$ = {gamma:g}": {"focal_gamma": gamma} for gamma in (0.5, 1.0, 2.0, 5.0)}
MAX_POOLING = {
    f"p = {p:g}, ratio {ratio:g}": {"pooling": {"kind": "max", "p": p, "ratio": ratio}}
    for p, ratio in ((1.0, 0.3), (1.05, 0.3), (1.3, 0.3), (1.7, 0.3), (4.0, 0.3), (1.3, 0.1))
}
OHEM = {
    f"threshold {threshold:g}, min_kept {kept:g}": {
        "pooling": {"kind": "ohem", "threshold": threshold, "min_kept": kept}
    }
    for threshold, kept in ((0.7, 0.1), (0.3, 0.1), (0.0, 0.5), (0.0, 0.25))
}


def main() -> None:
    plt.switch_backend("agg")
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True})
    plt.rcParams.update({"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    figure, ((by_class, focal), (pooled, mined)) = plt.subplots(2, 2, figsize=(10, 7.6))
    _draw_classes(by_class)
    for axes, title, configs in (
        (focal, "focal_gamma: easy pixels fade", FOCAL),
        (pooled, "pooling: max, hard pixels weigh up to a cap", MAX_POOLING),
        (mined, "pooling: ohem, easy pixels are left out", OHEM),
    ):
        _draw_probabilities(axes, title, configs)
    figure.tight_layout(h_pad=1.6, w_pad=1.6)
    path = Path(__file__).with_name("loss_weights.png")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)
    print(path, path.stat().st_size // 1024, "KiB")


def _draw_classes(axes: Axes) -> None:
    """Weight by class, as shares get smaller."""
    shares = torch.tensor(list(CLASSES.values()))
    pixels = (shares * NUM_PIXELS).round().long()
    # Half of the images know only the frequent classes: median frequency divides by images' pixels.
    rows = torch.stack([pixels * torch.tensor([1, 1, 1, 0, 0]), pixels])
    target = torch.repeat_interleave(torch.arange(len(CLASSES)), pixels)
    wrong = torch.cat(
        [torch.arange(n) >= round(r * int(n)) for n, r in zip(pixels, RECALL, strict=True)]
    )
    pred = torch.where(wrong, (target + 1) % len(CLASSES), target)
    logits = 4.0 * torch.nn.functional.one_hot(pred).T[None, :, None].float()
    schemes: dict[str, dict[str, Any]] = {
        "inverse_frequency": {"class_weights": {"scheme": "inverse_frequency"}},
        "inverse_frequency, exponent 0.5": {
            "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}
        },
        "median_frequency": {"class_weights": {"scheme": "median_frequency"}},
        "effective_number, kappa 0.05": {
            "class_weights": {"scheme": "effective_number", "kappa": 0.05}
        },
        "enet": {"class_weights": {"scheme": "enet"}},
        "recall, normalizer weight": {"recall": {"ema_momentum": 0.0}, "normalizer": "weight"},
    }
    for index, (name, config) in enumerate(schemes.items()):
        loss = build_loss(config, num_classes=len(CLASSES), class_counts=rows)
        loss(logits, target[None, None])
        weights = [value for key, value in loss.terms().items() if key.startswith("weight/")]
        axes.plot(range(len(weights)), weights, MARKERS[index], ls=STYLES[index], lw=1.4, ms=5,
                  color=COLOURS[index], label=name)  # fmt: skip
    axes.axhline(1, color="grey", lw=0.8)
    axes.set_yscale("log")
    axes.set_yticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    axes.set_ylim(0.2, 50)
    axes.minorticks_off()
    names = [
        f"{name}\n{share:.0%} of pixels\nrecall {recall:.2f}"
        for (name, share), recall in zip(CLASSES.items(), RECALL, strict=True)
    ]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("weight (cross entropy = 1)")
    axes.set_title("class_weights and recall: rare or missed classes weigh more", loc="left")
    axes.legend(fontsize=7.5, frameon=False)


def _draw_probabilities(axes: Axes, title: str, configs: dict[str, dict[str, Any]]) -> None:
    """Weight by the probability of a pixel's label; below it where the batch's pixels lie."""
    logits = _toy_logits()
    q = torch.softmax(logits, 1)[0, 0, 0].detach()
    plain = _pull({}, logits)
    for index, (name, config) in enumerate(configs.items()):
        weight = _pull(config, logits) / plain
        axes.plot(q, weight, ls=STYLES[index], lw=1.6, color=COLOURS[index], label=name)
    axes.axhline(1, color="grey", lw=0.8)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability q of the pixel's label (grey: the batch's pixels)")
    axes.set_ylabel("weight (cross entropy = 1)")
    axes.set_title(title, loc="left")
    axes.legend(fontsize=7.5, frameon=False, loc="upper right")
    density = axes.inset_axes((0, 0, 1, 0.25), zorder=0)
    density.hist(q, bins=40, range=(0, 1), color="silver")
    density.set_xlim(0, 1)
    density.axis("off")


def _toy_logits() -> Tensor:
    """Two classes, all labels 0, log odds normal with mean 2 and deviation 2.5: 21 % are wrong."""
    share = (torch.arange(NUM_PIXELS, dtype=torch.float64) + 0.5) / NUM_PIXELS
    odds = 2 + 2.5 * torch.special.ndtri(share)
    return torch.stack([odds, torch.zeros_like(odds)])[None, :, None].requires_grad_()


def _pull(config: dict[str, Any], logits: Tensor) -> Tensor:
    """Size of the gradient by each pixel's logits."""
    target = torch.zeros(1, 1, NUM_PIXELS, dtype=torch.int64)
    value = build_loss(config, num_classes=2)(logits, target)
    return torch.autograd.grad(value, logits)[0][0, 0, 0].abs()


if __name__ == "__main__":
    main()
