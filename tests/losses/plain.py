"""The loss once more, independent of the package: what both of its forms are compared with."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from study.losses.config import Boundary, Jaccard, LossConfig, MaxPooling, Ohem


def plain_loss(
    config: LossConfig,
    logits: Tensor,
    target: Tensor,
    *,
    keep: Tensor | None = None,
    class_weights: Tensor | None = None,
    recall: Tensor | None = None,
    log_prior: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """`class_weights` a and `recall` R are (C,); None is neutral."""
    num_classes = logits.shape[1]
    if log_prior is not None:
        shift = config.logit_adjustment.tau * log_prior.view(-1, *([1] * (logits.ndim - 2)))
        logits = logits + shift.to(logits.dtype)
    if target.is_floating_point():
        valid = torch.ones_like(target[:, 0], dtype=torch.bool) if keep is None else keep
        sharp = torch.where(valid[:, None], target, 0).to(logits.dtype)
        label = sharp.argmax(1)
    else:
        valid = target != ignore_index
        label = torch.where(valid, target, 0)
        sharp = torch.nn.functional.one_hot(label, num_classes).movedim(-1, 1).to(logits.dtype)
        sharp = sharp * valid[:, None]
    n = int(valid.sum())
    logits = torch.where(valid[:, None], logits, 0)
    if n == 0:
        return (logits * 0).sum()
    log_p = torch.log_softmax(logits, 1)
    epsilon = config.label_smoothing * valid[:, None].to(logits.dtype)
    if isinstance(config.smoothing_region, Boundary):
        epsilon = epsilon * boundary(label, valid, config.smoothing_region.width)[:, None]
    smoothed = (1 - epsilon) * sharp + epsilon / num_classes
    log_q = log_p.gather(1, label[:, None])[:, 0]

    weight = torch.ones(num_classes, dtype=torch.float64)
    if class_weights is not None:
        weight = weight * class_weights
    if recall is not None:
        weight = weight * (1 - recall)
    pixel_weight = weight[label][valid]
    if config.normalizer == "weight" and pixel_weight.sum() > 0:
        pixel_weight = pixel_weight / pixel_weight.mean()
    ce = -(smoothed * log_p).sum(1)[valid]
    ell = pixel_weight.to(logits.dtype) * ce
    if config.focal_gamma > 0:
        miss = -torch.expm1(log_q[valid])
        away = miss > 0
        ell = ell * torch.where(away, torch.where(away, miss, 1) ** config.focal_gamma, 0)

    value = torch.zeros((), dtype=logits.dtype)
    if config.jaccard.mix < 1:
        pooled = _pool(config, ell, log_q[valid].detach(), n)
        value = value + (1 - config.jaccard.mix) * pooled
    if config.jaccard.mix > 0:
        labels = smoothed if config.jaccard.target == "smoothed" else sharp
        p = log_p.exp() * valid[:, None]
        value = value + config.jaccard.mix * _jaccard(config.jaccard, p, labels, sharp, valid)
    return value


def boundary(label: Tensor, valid: Tensor, width: int) -> Tensor:
    """Pixel by pixel: another class within reach, and no ignored pixel."""
    batch, height, width_of_image = label.shape
    found, reach = torch.zeros_like(valid), width // 2
    for b, i, j in itertools.product(range(batch), range(height), range(width_of_image)):
        rows = slice(max(i - reach, 0), i + reach + 1)
        columns = slice(max(j - reach, 0), j + reach + 1)
        others = label[b, rows, columns] != label[b, i, j]
        found[b, i, j] = others.any() and valid[b, rows, columns].all()
    return found


def _pool(config: LossConfig, ell: Tensor, log_q: Tensor, n: int) -> Tensor:
    pooling = config.pooling
    if isinstance(pooling, MaxPooling):
        m = max(1, int(pooling.ratio * n))
        return (water_filling(ell.detach(), pooling.p, m) * ell).sum()
    if isinstance(pooling, Ohem):
        k = min(max(1, int(pooling.min_kept * n)), n)
        kept = (log_q.exp() < pooling.threshold) | (log_q <= log_q.sort().values[k - 1])
        return ell[kept].mean()
    return ell.mean()


def water_filling(ell: Tensor, p: float, m: int) -> Tensor:
    """Optimal weights by sorting: try every number of capped pixels."""
    n = ell.numel()
    if p == float("inf"):
        return torch.full_like(ell, 1 / n)
    tau = n ** (1 / p - 1) * m ** (-1 / p)
    positive = ell > 0
    if m >= int(positive.sum()):
        return tau * positive.to(ell.dtype)
    if p == 1:
        edge = ell.sort(descending=True).values[m - 1]
        above, at = ell > edge, ell == edge
        share = (m - int(above.sum())) / int(at.sum())
        return tau * (above.to(ell.dtype) + share * at.to(ell.dtype))
    q = p / (p - 1)
    ratio = (q * (ell.log() - ell.max().log())).exp()
    order = ratio.sort(descending=True).values
    for capped in range(m):
        level = order[capped:].sum() / (m - capped)
        if order[capped] <= level:
            break
    return tau * (ratio / level).clamp(max=1) ** (1 / p)


def _jaccard(config: Jaccard, p: Tensor, t: Tensor, shown: Tensor, valid: Tensor) -> Tensor:
    """Each average by itself, as if it were the only one."""
    weights = {config.average: 1.0} if isinstance(config.average, str) else config.average
    parts = [
        weight * _averaged(config, average, p, t, shown, valid)
        for average, weight in weights.items()
    ]
    return torch.stack(parts).sum() / sum(weights.values())


def _averaged(
    config: Jaccard, average: str, p: Tensor, t: Tensor, shown: Tensor, valid: Tensor
) -> Tensor:
    """Per image and class first, then one loop per average: no cleverness."""
    p, t, shown = p.flatten(2), t.flatten(2), shown.flatten(2)
    batch, classes, _ = p.shape
    predicted, labelled, apart = p.sum(2), t.sum(2), (p - t).abs().sum(2)
    hit = (predicted + labelled - apart) / 2

    def loss(tp: Tensor, p_sum: Tensor, t_sum: Tensor) -> Tensor:
        below = tp + config.alpha * (p_sum - tp) + config.beta * (t_sum - tp) + config.smooth
        base = 1 - (tp + config.smooth) / below if below > 0 else tp * 0
        return base**config.power if base > 0 else base

    def active(image: int, c: int) -> bool:
        if config.classes == "all":
            return bool(valid[image].any())
        return bool(shown[image, c].max() > 0.01)

    if average == "batch":
        on = [c for c in range(classes) if any(active(b, c) for b in range(batch))]
        losses = [loss(hit[:, c].sum(), predicted[:, c].sum(), labelled[:, c].sum()) for c in on]
        return torch.stack(losses).mean()
    cell = {
        (b, c): loss(hit[b, c], predicted[b, c], labelled[b, c])
        for b in range(batch)
        for c in range(classes)
        if active(b, c)
    }
    axis = 0 if average == "image" else 1
    rows = [[v for k, v in cell.items() if k[axis] == r] for r in range((batch, classes)[axis])]
    means = [torch.stack(row).mean() for row in rows if row]
    return torch.stack(means).mean()
