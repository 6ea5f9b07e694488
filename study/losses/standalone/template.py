"""The whole loss in plain autograd: what the files of `study.export --format python` are made of.

`specialise` makes such a file for one config. It decides every `if` that reads a flag below, puts
numbers in for constants and for defaults of parameters, and leaves out what nothing uses any more.
So a part of the loss is written once, here, for reading: the name of a flag in an `if`, what the
part does in comments inside of it, one parameter of `Loss` in a line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PIXEL_TERM: bool = True
SMOOTHING: bool = True
BOUNDARY: bool = True
FOCAL: bool = True
WEIGHTS: bool = True
RECALL: bool = True
WEIGHT_NORMALIZER: bool = True
MAX_POOLING: bool = True
HARDEST: bool = True
OHEM: bool = True
JACCARD: bool = True
SMOOTHED_TARGET: bool = True
ALL_CLASSES: bool = True
SHOWN_CLASSES: bool = True
BY_IMAGE: bool = True
BY_CLASS: bool = True
OVERLAP_POWER: bool = True
NAMES: bool = True
ADJUSTMENT: bool = True
ECHO: bool = True

DIGEST = "0123456789abcdef"
CLASS_NAMES = ("road", "car")
CLASS_WEIGHTS = (1.0, 1.0)
CLASS_LOG_PRIOR = (0.0, 0.0)
POWER = 1.0
TAU = 0.0
LOG_PRIOR = (0.0, 0.0)


class Loss(nn.Module):
    """The loss of logits (B, C, H, W) and labels (B, H, W): integers below C, or ignore_index.

    Only pixels count whose label is not ignore_index. float64 logits are computed in float64, all
    others in float32. Call train() and eval() with the network's, and move it to its device.
    """

    digest = DIGEST
    if NAMES:
        class_names = CLASS_NAMES
    if WEIGHTS:
        class_weights: Tensor
    if ADJUSTMENT:
        log_prior: Tensor
    if RECALL:
        recall: Tensor
        seen: Tensor

    def __init__(
        self,
        *,
        num_classes: int = 2,
        class_weights: Sequence[float] = CLASS_WEIGHTS,  # of each class
        recall_momentum: float = 0.9,  # weight of the past in the running recall, 0: none
        label_smoothing: float = 0.1,  # the part of a label that is spread over all classes
        boundary_width: int = 3,  # of the window that must hold another class
        focal_gamma: float = 2.0,
        pooling_p: float = 1.7,  # of the norm that bounds the weights of the pixels
        pooling_ratio: float = 0.3,  # the least fraction of pixels with a weight
        threshold: float = 0.7,  # pixels below this probability are hard
        min_kept: float = 0.1,  # the least fraction of pixels that is kept
        mix: float = 0.5,  # weight of the Jaccard term
        alpha: float = 1.0,  # of false positives
        beta: float = 1.0,  # of misses
        smooth: float = 1e-3,
        adjustment_tau: float = 1.0,  # how much of the log prior the logits get
        log_prior: Sequence[float] = CLASS_LOG_PRIOR,  # of each class among training pixels
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        if WEIGHTS:
            weights = torch.tensor(class_weights, dtype=torch.float64)
            if weights.shape != (num_classes,):
                raise ValueError(f"{len(weights)} class weights for {num_classes} classes")
            self.register_buffer("class_weights", weights)
        if ADJUSTMENT:
            self.adjustment_tau = adjustment_tau
            prior = torch.tensor(log_prior, dtype=torch.float64)
            if prior.shape != (num_classes,):
                raise ValueError(f"{len(prior)} log priors for {num_classes} classes")
            self.register_buffer("log_prior", prior)
        if RECALL:
            self.recall_momentum = recall_momentum
            self.register_buffer("recall", torch.zeros(num_classes, dtype=torch.float64))
            self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.float64))
        if SMOOTHING:
            self.label_smoothing = label_smoothing
        if BOUNDARY:
            self.boundary_width = boundary_width
        if FOCAL:
            self.focal_gamma = focal_gamma
        if MAX_POOLING:
            self.pooling_p = pooling_p
            self.pooling_ratio = pooling_ratio
        if OHEM:
            self.threshold = threshold
            self.min_kept = min_kept
        if ECHO:
            self.is_used = False
        if JACCARD:
            self.mix = mix
            self.alpha, self.beta, self.smooth = alpha, beta, smooth

    def tell(self, logits: Tensor) -> None:
        """Tell the study that runs this training, if one does, that its loss is used."""
        file = os.environ.get("STUDY_LOSS_ECHO")
        if file and not self.is_used:
            with open(file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"loss_digest": DIGEST}) + "\n")
            values = logits.detach().float()
            if logits.numel() and (values > 0).all() and ((values.sum(1) - 1).abs() < 0.01).all():
                raise ValueError("the loss was given probabilities: leave out the softmax")
        self.is_used = True

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar; 0 where every pixel is ignored."""
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            shape = f"(B, {self.num_classes}, H, W)"
            raise ValueError(f"logits must be {shape}, got {tuple(logits.shape)}")
        if labels.ndim == 4 and labels.shape[1] == 1:
            labels = labels[:, 0]
        fits = (len(logits), *logits.shape[2:])
        if labels.shape != fits or labels.is_floating_point() or labels.dtype == torch.bool:
            got = f"{labels.dtype} of {tuple(labels.shape)}"
            raise ValueError(f"labels must be integers of shape {fits}, got {got}")
        if ECHO:
            self.tell(logits)
        logits = logits.double() if logits.dtype == torch.float64 else logits.float()
        labels = labels.long()  # small integers wrap where they are compared
        valid = labels != self.ignore_index
        labels = labels.masked_fill(~valid, 0)
        if RECALL:
            self.update_recall(logits, labels, valid)
        if ADJUSTMENT:
            # The network learns logits from which the prior is gone.
            shift = (self.adjustment_tau * self.log_prior).to(logits.dtype)
            logits = logits + shift[:, None, None]
        log_p = logits.masked_fill(~valid[:, None], 0).log_softmax(1)
        log_q = log_p.gather(1, labels[:, None])[:, 0]  # of each pixel's class
        num_valid = valid.sum().clamp(min=1)
        if SMOOTHING and BOUNDARY:
            # Only labels at boundaries between classes are smoothed.
            near = near_boundary(labels, valid, self.num_classes, self.boundary_width)
            epsilon = self.label_smoothing * near.to(log_q.dtype)
        elif SMOOTHING:
            epsilon = torch.full_like(log_q, self.label_smoothing)

        if PIXEL_TERM:
            losses = -log_q  # cross entropy
            if SMOOTHING:
                losses = (1 - epsilon) * losses - epsilon * log_p.mean(1)
            if WEIGHTS and RECALL:
                weights = self.class_weights * (1 - self.recall)
            elif WEIGHTS:
                weights = self.class_weights
            elif RECALL:
                weights = 1 - self.recall
            if WEIGHT_NORMALIZER:
                # The weights of the batch's pixels average 1.
                support = torch.bincount(labels[valid], minlength=self.num_classes)
                total = (weights * support).sum()
                weights = torch.where(total > 0, weights * num_valid / total, 0)
            if WEIGHTS or RECALL:
                losses = losses * weights.to(losses.dtype)[labels]
            if FOCAL:
                miss = -torch.expm1(log_q)  # 1 - q
                away = miss > 0
                losses = losses * torch.where(away, miss.where(away, 1) ** self.focal_gamma, 0)
            losses = losses.masked_fill(~valid, 0)
            if MAX_POOLING:
                pixels = max_pooling(losses.detach(), num_valid, self.pooling_p, self.pooling_ratio)
                pixel_term = (pixels.to(losses.dtype) * losses).sum()
            elif OHEM:
                kept = hard_pixels(log_p.detach(), labels, valid, self.threshold, self.min_kept)
                pixel_term = losses.where(kept, 0).sum() / kept.sum().clamp(min=1)
            else:
                pixel_term = losses.sum() / num_valid

        if JACCARD:
            p = (log_p.exp() * valid[:, None]).flatten(2)
            target = nn.functional.one_hot(labels, self.num_classes).movedim(-1, 1)
            if ALL_CLASSES:
                active = valid.flatten(1).any(1, keepdim=True).expand(-1, self.num_classes)
            elif SHOWN_CLASSES:
                active = (target * valid[:, None]).flatten(2).amax(2) > 0
            if SMOOTHED_TARGET:
                e = epsilon[:, None]
                target = (1 - e) * target + e / self.num_classes
            target = (target * valid[:, None]).flatten(2).to(p.dtype)
            jaccard = jaccard_term(p, target, active, self.alpha, self.beta, self.smooth)

        if PIXEL_TERM and JACCARD:
            return (1 - self.mix) * pixel_term + self.mix * jaccard
        elif PIXEL_TERM:
            return pixel_term
        else:
            return self.mix * jaccard

    @torch.no_grad()
    def update_recall(self, logits: Tensor, labels: Tensor, valid: Tensor) -> None:
        """In training, R <- m R + (1 - m) R_batch for the classes that the batch has.

        R, the fraction of a class's pixels whose argmax is right, weighs that class by 1 - R. Its
        first observation sets it; before, the weight is 1. It is updated once in each forward, also
        of micro-batches whose gradients are accumulated, and saved in the state_dict.

        Distributed training: leave the loss outside of DistributedDataParallel. The counts of all
        ranks are summed here, so that all have the same R; every rank must call the loss equally
        often. The loss itself is a mean over the pixels of its rank.
        """
        if not self.training:
            return
        at_label = logits.gather(1, labels[:, None])[:, 0]
        right = (logits.argmax(1) == labels) & at_label.isfinite()  # no NaN predicts
        support = torch.bincount(labels[valid], minlength=self.num_classes).double()
        hits = torch.bincount(labels[valid & right], minlength=self.num_classes).double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(support)
            torch.distributed.all_reduce(hits)
        present = support > 0
        batch = hits / support.clamp(min=1)
        mixed = torch.lerp(batch, self.recall.double(), self.recall_momentum)
        updated = torch.where(self.seen > 0, mixed, batch)
        self.recall.copy_(torch.where(present, updated, self.recall))
        self.seen.copy_(torch.where(present, 1.0, self.seen))


def near_boundary(labels: Tensor, valid: Tensor, num_classes: int, width: int) -> Tensor:
    """Where the width x width window holds another class and no ignored pixel, (B, H, W) bool."""
    apart = labels.masked_fill(~valid, num_classes).float()[:, None]
    highest = nn.functional.max_pool2d(apart, width, 1, width // 2)[:, 0]
    lowest = -nn.functional.max_pool2d(-apart, width, 1, width // 2)[:, 0]
    return (highest != lowest) & (highest < num_classes)


def max_pooling(losses: Tensor, num_valid: Tensor, p: float, ratio: float) -> Tensor:
    """Loss max-pooling: the weights w (B, H, W) that make sum(w * losses) as large as possible.

    They are bounded by |w|_p <= n^(1/p - 1) and by a cap, which m = ratio * n pixels reach at most.
    losses: >= 0, and 0 at ignored pixels.
    """
    n = float(num_valid)
    m = max(1, int(ratio * n))
    cap = math.pow(n, 1 / p - 1) * math.pow(m, -1 / p)
    losses = losses.double()
    positive = losses > 0
    if int(positive.sum()) <= m:
        return cap * positive.double()
    if HARDEST:
        # The mean of the m largest losses; equal ones at the edge divide what is left.
        edge = losses.flatten().sort(descending=True).values[m - 1]
        above, at = (losses > edge).double(), (losses == edge).double()
        return cap * (above + at * (m - above.sum()) / at.sum())
    else:
        # w = cap * min(1, (loss / a)^(q - 1)). With the k largest at the cap, a^q is the sum of the
        # others' loss^q over m - k; the first k fits at which the next is not above a.
        q = p / (p - 1)
        log_powers = q * losses.flatten().sort(descending=True).values.log()
        log_sums = log_powers.flip(0).logcumsumexp(0).flip(0)[:m]
        room = torch.arange(m, 0, -1, device=losses.device).log()
        k = min(int((log_powers[:m] > log_sums - room).sum()), m - 1)
        log_a = (float(log_sums[k]) - math.log(m - k)) / q
        return cap * ((q - 1) * (losses.log() - log_a)).clamp(max=0).exp()


def hard_pixels(
    log_p: Tensor, labels: Tensor, valid: Tensor, threshold: float, min_kept: float
) -> Tensor:
    """Where q is below the threshold, or among the lowest fraction min_kept, (B, H, W) bool.

    Pixels are ordered by log q - log(1 - q), which single precision knows where q is near 1, too.
    """
    log_q = log_p.gather(1, labels[:, None])[:, 0]
    others = log_p.scatter(1, labels[:, None], -math.inf).logsumexp(1)
    order = (log_q - others).masked_fill(~valid, math.inf)
    k = max(1, int(min_kept * int(valid.sum())))
    kth = order.flatten().kthvalue(k).values
    return valid & ~((log_q.exp() >= threshold) & (order > kth))


def jaccard_term(
    p: Tensor, target: Tensor, active: Tensor, alpha: float, beta: float, smooth: float
) -> Tensor:
    """1 - the soft Jaccard index, a mean over classes.

    p, target: (B, C, pixels), 0 at ignored pixels; active: (B, C), the classes that count. An index
    is hit / (hit + alpha * false positives + beta * misses), Jaccard's at 1 and 1, Dice's at 1/2.
    """
    predicted, labelled = p.sum(2), target.sum(2)
    hit = torch.minimum(p, target).sum(2)
    if BY_IMAGE:
        axis = 1  # the mean over an image's classes, then over images
    elif BY_CLASS:
        axis = 0  # the mean over a class's images, then over classes
    else:
        axis = 1  # the mean over classes, of which all images are one
        predicted, labelled = predicted.sum(0, keepdim=True), labelled.sum(0, keepdim=True)
        hit, active = hit.sum(0, keepdim=True), active.any(0, keepdim=True)
    wrong = alpha * (predicted - hit) + beta * (labelled - hit)
    empty = hit + wrong + smooth <= 0
    index = (hit + smooth) / torch.where(empty, 1, hit + wrong + smooth)
    losses = torch.where(active & ~empty, 1 - index, 0)
    if OVERLAP_POWER:
        away = ~(losses <= 0)  # NaN stays NaN
        losses = torch.where(away, torch.where(away, losses, 1) ** POWER, 0)
    counts = active.sum(axis)
    means = losses.sum(axis) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def decide(logits: Tensor) -> Tensor:
    """The classes (B, H, W) of logits (B, C, H, W) by the rule that the study found on val.

    argmax of logits - TAU * LOG_PRIOR, the log fractions of the training pixels; at TAU 0 the plain
    argmax. A network of your own has its own best TAU: choose it on your validation images.
    """
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    prior = torch.tensor(LOG_PRIOR, dtype=dtype, device=logits.device)
    return (logits - TAU * prior[:, None, None]).argmax(1)
