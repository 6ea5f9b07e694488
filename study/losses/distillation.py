"""Distillation: a teacher's probabilities as soft labels beside the true ones.

    L      = (1 - mix) * L_hard + mix * L_soft
    L_soft = (1 - j) * T^2 * mean_p KL(t_T || s_T) + j * Jaccard(softmax z, t)

over the valid pixels p, with z the student's logits, t (B, C, H, W) the teacher's probabilities,
s_T = softmax(z / T), t_T proportional to t^(1/T), and j the Jaccard term's own mix. L_hard is the
whole loss of the other axes on the true labels; label smoothing, focal factor, class weights,
recall and pooling act there alone. The Jaccard term of L_soft has the alpha, beta, smooth, average
and classes of that of L_hard, and compares the probabilities themselves, at temperature 1. Pixels
that the true labels ignore are ignored by both parts.

mix in (0, 1]; temperature T > 0. T^2 keeps the size of the gradient as T grows: the derivative of
the KL divergence by z shrinks with 1 / T^2. No gradient reaches the teacher.

Neutral: `distillation: null`.

Normaliser: n valid pixels (KL); active classes (Jaccard).

Sources: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv
1503.02531 (T^2 KL); Wang, Ning, Blaschko, NeurIPS 2023, arXiv 2302.05666 (the Jaccard term on soft
labels; both halves with weight 1/2, T = 1).

Differs: the paper's code lets the cross entropy part weigh 0.25 and the Jaccard term 0.75 in both
halves, as the preset `jml_kd` does; here each is free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.losses.config import Distillation, Jaccard, LossConfig
from study.losses.kernel import evaluate
from study.losses.recall import RecallState
from study.losses.targets import Labels, read_labels

PIXEL, JACCARD = "teacher_pixel", "teacher_jaccard"
Part = tuple[Tensor, Tensor | None, dict[str, Tensor]]


@dataclass
class _Plain:
    """A loss without class weights and state, as the kernel takes it."""

    config: LossConfig
    num_classes: int
    recall: RecallState | None = None
    training: bool = False

    def weights(self) -> Tensor | None:
        """None: all classes weigh 1."""
        return None


def check_teacher(logits: Tensor, teacher: Tensor | None, config: Distillation | None) -> None:
    """Raise ValueError unless there are a teacher's labels exactly where a loss takes them, of the
    logits' shape."""
    if config is None and teacher is not None:
        raise ValueError("a loss without distillation takes no teacher's labels")
    if config is not None and teacher is None:
        raise ValueError("a distilled loss needs the teacher's probabilities: teacher=...")
    if teacher is not None and (teacher.shape != logits.shape or not teacher.is_floating_point()):
        raise ValueError(
            f"teacher must be floating-point of shape {tuple(logits.shape)}, "
            f"got {teacher.dtype} of {tuple(teacher.shape)}"
        )


def soft_part(
    config: LossConfig, logits: Tensor, teacher: Tensor, valid: Tensor, wants_gradient: bool
) -> Part:
    """L_soft, its gradient by the logits if wanted, and its terms; no autograd.

    logits: (B, C, H, W) float32 or float64. teacher: likewise, the teacher's probabilities. valid:
    (B, H, W) bool.
    """
    assert config.distillation is not None
    jaccard, temperature = config.jaccard, config.distillation.temperature
    if temperature == 1:  # both terms from one softmax
        return _terms(jaccard, logits, teacher, valid, wants_gradient)
    value, gradient, terms = logits.new_zeros(()), None, {}
    if jaccard.mix < 1:
        alone = jaccard.model_copy(update={"mix": 0.0})
        labels = softened(teacher, temperature)
        found = _terms(alone, logits / temperature, labels, valid, wants_gradient)
        weight = (1 - jaccard.mix) * temperature**2
        value, terms = weight * found[0], {PIXEL: temperature**2 * found[2][PIXEL]}
        gradient = None if found[1] is None else found[1].mul_(weight / temperature)
    if jaccard.mix > 0:
        alone = jaccard.model_copy(update={"mix": 1.0})
        term, by_logits, of_term = _terms(alone, logits, teacher, valid, wants_gradient)
        value, terms = value + jaccard.mix * term, terms | of_term
        if by_logits is not None:
            by_logits = by_logits.mul_(jaccard.mix)
            gradient = by_logits if gradient is None else gradient.add_(by_logits)
    return value, gradient, terms


def _terms(
    jaccard: Jaccard, logits: Tensor, soft: Tensor, valid: Tensor, wants_gradient: bool
) -> Part:
    """(1 - j) * KL(soft || softmax logits) + j * Jaccard, its gradient and its terms."""
    num_classes = logits.shape[1]
    labels = read_labels(soft, valid, num_classes, -1, logits.dtype)
    config = LossConfig(jaccard=jaccard.model_copy(update={"target": "hard"}))
    plain = _Plain(config, num_classes)
    value, gradient, found = evaluate(logits.flatten(2), labels, plain, wants_gradient)
    terms = {}
    if jaccard.mix < 1:
        entropy = mean_entropy(labels)
        terms[PIXEL] = found["pixel"] - entropy
        value = value - (1 - jaccard.mix) * entropy
    if jaccard.mix > 0:
        terms[JACCARD] = found["jaccard"]
    return value, None if gradient is None else gradient.view(logits.shape), terms


def softened(probability: Tensor, temperature: float) -> Tensor:
    """t^(1/T), normalised over the classes: softmax(z / T) of the logits z of softmax(z) = t.

    probability: (B, C, H, W) float in [0, 1]; a 0 counts as the smallest normal number.
    """
    if temperature == 1:
        return probability
    tiny = torch.finfo(probability.dtype).tiny
    return (probability.clamp(min=tiny).log() / temperature).softmax(1)


def mean_entropy(labels: Labels) -> Tensor:
    """mean_p sum_c -t_p[c] log t_p[c] over the valid pixels, 0-dim; 0 if there is none: by so much
    the cross entropy of soft labels t exceeds KL(t || s)."""
    assert labels.soft is not None
    return -torch.xlogy(labels.soft, labels.soft).sum() / labels.num_valid.clamp(min=1)


def mixed(
    config: LossConfig, hard: tuple[Tensor, Tensor | None], soft: Part
) -> tuple[Tensor, Tensor | None]:
    """(1 - mix) * L_hard + mix * L_soft: the value and its gradient."""
    assert config.distillation is not None
    mix = config.distillation.mix
    (value, gradient), (of_soft, by_soft, _) = hard, soft
    whole = mix * of_soft if mix == 1 else (1 - mix) * value + mix * of_soft
    if gradient is None or by_soft is None:
        return whole, None
    by_soft = by_soft.mul_(mix)
    return whole, by_soft if mix == 1 else by_soft.add_(gradient, alpha=1 - mix)


def with_norms(terms: dict[str, Tensor], soft: Part, mix: float) -> dict[str, Tensor]:
    """The terms of both parts; the gradient norms of those of L_hard weighed by its share, and that
    of L_soft by its own."""
    _, gradient, of_soft = soft
    found = {
        name: (1 - mix) * term if name.startswith("grad_norm/") else term
        for name, term in terms.items()
    }
    if gradient is not None and any(name.startswith("grad_norm/") for name in found):
        found["grad_norm/teacher"] = mix * torch.linalg.vector_norm(gradient)
    return found | of_soft
