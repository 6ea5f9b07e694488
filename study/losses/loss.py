"""The whole loss in readable form: pixel term and Jaccard term, mixed.

    ce_p  = -sum_c s_p[c] log softmax(z_p)[c]
    ell_p = a[y_p] * (1 - R[y_p]) * (1 - q_p)^gamma * ce_p
    L     = (1 - mix) * Pool_p(ell) + mix * Jaccard(softmax z, target)

over the valid pixels p; s is the one-hot, smoothed or soft label, q_p the softmax probability of
y_p. With every axis neutral L is exactly the mean cross entropy over valid pixels. Distillation
mixes L with the same two terms on a teacher's labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from study.core.names import CE
from study.losses.class_weights import Counts, class_weights
from study.losses.compiled import opaque_loss, register
from study.losses.config import LossConfig
from study.losses.cross_entropy import cross_entropy, suits
from study.losses.digest import echo, loss_digest
from study.losses.distillation import check_teacher, mixed, soft_part, with_norms
from study.losses.family import family, has_class_weights
from study.losses.kernel import WEIGHTS, evaluate
from study.losses.recall import RecallState
from study.losses.smoothing import smoothing
from study.losses.targets import Labels, check_shapes, compute_dtype, read_labels


class SegmentationLoss(nn.Module):
    """The loss as a module; `build_loss` makes one from the `loss:` tree.

        L = (1 - mix) * Pool_p(a[y_p] * (1 - R[y_p]) * (1 - q_p)^gamma * ce_p) + mix * Jaccard

    Args:
        config: the typed `loss:` tree.
        num_classes: C, at least 1.
        class_counts: pixels of each class, (C,) or (images, C); only class-weight schemes need
            them.
        ignore_index: label of the pixels that do not count.

    State: recall, updated once per forward in training mode and only read in eval mode, and the
    class weights. Both are buffers: they move with the module and are saved with it, but stay
    float64 when the module is cast. Gradients of micro-batches add up to those of the sum of their
    losses; each micro-batch updates recall, and every mean is over its own pixels.

    In a `torch.compile`d step the loss is one operator, without a graph break (compiled.py).

    measure_gradients: while True, `terms()` also gives the gradient norms of the two terms, at the
    cost of one more evaluation of each. While False it costs nothing.

    Normaliser: `valid` divides by the number of valid pixels; `weight` first scales the pixel
    weights a * (1 - R) to average 1 over the valid pixels of the batch.

    Example:
        >>> import torch
        >>> from study.losses import LossConfig, SegmentationLoss
        >>> loss = SegmentationLoss(LossConfig(), num_classes=4)  # cross entropy
        >>> value = loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
        >>> round(float(value), 4), sorted(loss.terms())  # log 4
        (1.3863, ['cross_entropy', 'pixel'])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        config: LossConfig,
        *,
        num_classes: int,
        class_counts: Counts | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        weights = class_weights(config.class_weights, class_counts, num_classes)
        self.register_buffer("class_weights", weights)
        self.recall = (
            RecallState(config.recall.ema_momentum, num_classes) if config.recall else None
        )
        self.measure_gradients = False
        self._is_neutral = family(config.model_copy(update={"distillation": None})) == CE
        self._is_used = False
        self._terms: dict[str, Tensor] = {}
        self._number = register(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = register(self)  # a copy is another loss

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Logits of ignored pixels are never read: their gradient is 0 even where they are NaN. A NaN
        at a valid pixel gives NaN. A batch without a valid pixel, or without any, gives 0, attached
        to the graph.

        Args:
            logits: (B, C, H, W) float. float64 is computed in float64, all others in float32, under
                autocast too.
            target: (B, H, W) integers in [0, C) or `ignore_index`; or a soft target (B, C, H, W)
                whose pixels sum to 1.
            keep: (B, H, W) bool, pixels that count (with hard labels, besides `ignore_index`); None
                keeps all.
            teacher: (B, C, H, W) float, the probabilities of a teacher, which sum to 1 over the
                classes; exactly where the config has `distillation`.

        Returns:
            The loss, a scalar tensor.

        Raises:
            ValueError: for shapes or dtypes that do not fit and, on the CPU, for a label out of
                range.
        """
        check_shapes(logits, target, keep, self.num_classes)
        check_teacher(logits, teacher, self.config.distillation)
        scores = logits.to(compute_dtype(logits))
        if torch.compiler.is_compiling():
            return opaque_loss(self._number, scores, target, keep, teacher)
        with torch.autocast(logits.device.type, enabled=False):
            return _Differentiable.apply(scores, target, keep, teacher, self)

    def evaluate(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None,
        teacher: Tensor | None,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """As forward, for float32 or float64 logits, but returns the gradient instead of a
        graph."""
        if not self._is_used:
            self._is_used = True
            echo(self.digest)
        hard = self._evaluate(logits, target, keep, wants_gradient)
        if teacher is None or target.numel() == 0:
            return hard
        valid = target.new_ones(logits[:, 0].shape, dtype=torch.bool)
        if not target.is_floating_point():
            valid = target != self.ignore_index
        if keep is not None:
            valid = valid & keep
        soft = soft_part(self.config, logits, teacher, valid, wants_gradient)
        assert self.config.distillation is not None
        self._terms = with_norms(self._terms, soft, self.config.distillation.mix)
        return mixed(self.config, hard, soft)

    def _evaluate(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As evaluate, on the true labels alone."""
        if target.numel() == 0:
            return self._without_pixels(logits), torch.zeros_like(logits)
        if self._is_neutral and suits(logits, target):
            return self._cross_entropy(logits, target, keep, wants_gradient)
        scores, labels = self._read(logits, target, keep)
        value, gradient, self._terms = evaluate(scores, labels, self, wants_gradient)
        if self.measure_gradients:
            self._terms |= self._gradient_norms(scores, labels)
        return value, None if gradient is None else gradient.view(logits.shape)

    @property
    def digest(self) -> str:
        """The digest of its config; see `loss_digest`."""
        return loss_digest(self.config)

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As evaluate, if no axis acts."""
        label = target.long()
        if keep is not None:
            label = label.masked_fill(~keep, self.ignore_index)
        measures = self.measure_gradients
        try:
            value, gradient = cross_entropy(
                logits, label, self.ignore_index, wants_gradient or measures
            )
        except IndexError:
            self._read(logits, target, keep)  # raises an error that names the label
            raise
        term = value.clone()  # a caller may change the value in place
        self._terms = {"cross_entropy": term, "pixel": term}
        if measures:
            self._terms["grad_norm/pixel"] = torch.linalg.vector_norm(gradient)
        return value, gradient

    def _read(self, logits: Tensor, target: Tensor, keep: Tensor | None) -> tuple[Tensor, Labels]:
        """Return scores (B, C, P) and labels; move the state to the input's device."""
        labels = read_labels(target, keep, self.num_classes, self.ignore_index, logits.dtype)
        if any(buffer.device != logits.device for buffer in self.buffers()):
            self.to(logits.device)
        scores = logits.flatten(2)
        if self.config.label_smoothing > 0:
            epsilon = smoothing(self.config, labels, logits.shape[2:], scores.dtype)
            labels = replace(labels, epsilon=epsilon)
        return scores, labels

    def _without_pixels(self, logits: Tensor) -> Tensor:
        """The value of one ignored pixel; other ranks may wait for this rank's recall counts."""
        pixel = logits.new_zeros(1, self.num_classes, 1, 1)
        ignored = torch.full((1, 1, 1), self.ignore_index, device=logits.device)
        return self._evaluate(pixel, ignored, None, wants_gradient=False)[0]

    def _gradient_norms(self, scores: Tensor, labels: Labels) -> dict[str, Tensor]:
        """L2 norm over all logits of the gradient of each term times its weight in the loss."""
        jaccard, norms = self.config.jaccard, {}
        for name, alone, factor in (("pixel", 0.0, 1 - jaccard.mix), ("jaccard", 1.0, jaccard.mix)):
            if factor == 0:
                continue
            term = copy.copy(self)
            term.training = False  # only read recall: the step has updated it
            only = jaccard.model_copy(update={"mix": alone})
            term.config = self.config.model_copy(update={"jaccard": only})
            _, gradient, _ = evaluate(scores.detach(), labels, term, wants_gradient=True)
            norms[f"grad_norm/{name}"] = factor * torch.linalg.vector_norm(gradient)
        return norms

    def weights(self) -> Tensor | None:
        """The present pixel weights by class, a * (1 - R), (C,) float64; None if all are 1."""
        weights = self.class_weights if has_class_weights(self.config) else None
        if self.recall is None:
            return weights
        return self.recall.weights() * (1 if weights is None else weights)

    def terms(self, class_names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The parts of the last step's value, as detached 0-dim tensors.

        Nothing waits for the device until one of them is read.

        cross_entropy, pixel   unweighted mean, and the pooled term; unless mix is 1
        jaccard                unless mix is 0
        recall                 the mean R of the classes seen
        kept, capped           fraction of valid pixels that OHEM keeps or max-pooling holds at its
        cap
        weight/<class>         a * (1 - R) with the normaliser applied, by index or `class_names`;
                               if class weights or recall act
        grad_norm/<term>       L2 norm of the gradient by the logits of (1 - mix) * pixel and of
                               mix * jaccard; if `measure_gradients` was set
        teacher_pixel,         T^2 KL and the Jaccard term on the teacher's labels, if
        teacher_jaccard        `distillation` acts; then the norms are those in the whole loss, and
                               grad_norm/teacher is that of the soft part
        """
        names = range(self.num_classes) if class_names is None else class_names
        return named_terms(self._terms, names)

    @property
    def step_terms(self) -> dict[str, Tensor]:
        """As `terms()`, but with all weights in one (C,) tensor, for `named_terms`.

        This is cheaper when the terms of many steps are averaged.
        """
        return self._terms

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the state where `fn` moves it, but never cast it."""

        def moved(state: Tensor) -> Tensor:
            found = fn(state)
            return found if found.dtype == state.dtype else state.to(found.device)

        return super()._apply(moved, recurse)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, ignore_index={self.ignore_index}, {self.config}"


def named_terms(terms: Mapping[str, Tensor], class_names: Iterable[Any]) -> dict[str, Tensor]:
    """Replace the weights in `step_terms` by one weight/<class> for each class."""
    named = {name: term for name, term in terms.items() if name != WEIGHTS}
    if WEIGHTS in terms:
        each = zip(class_names, terms[WEIGHTS].unbind(), strict=True)
        named |= {f"weight/{name}": weight for name, weight in each}
    return named


class _Differentiable(torch.autograd.Function):
    """logits (B, C, H, W) -> the loss; computes the gradient in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None,
        teacher: Tensor | None,
        loss: SegmentationLoss,
    ) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        value, gradient = loss.evaluate(logits.detach(), target, keep, teacher, wants_gradient)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        if upstream.device.type == "cpu" and float(upstream) == 1:
            return gradient, None, None, None, None
        return gradient * upstream, None, None, None, None
