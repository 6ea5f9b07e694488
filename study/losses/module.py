"""The loss as a module: its inputs, its state, and which form computes a step.

`kernel` computes value and gradient at once for the configs that it knows. All else takes the plain
form, `loss`: a config that the kernel does not know, derivatives of the gradient, the transforms of
`torch.func`, a target that wants a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from study.losses import dense, kernel
from study.losses.class_weights import Counts, class_weights, has_class_weights
from study.losses.compiled import opaque_loss, register
from study.losses.config import LossConfig
from study.losses.cross_entropy import cross_entropy, suits
from study.losses.digest import echo, loss_digest
from study.losses.family import active
from study.losses.ignored import as_given, class_number, ignored_labels
from study.losses.jaccard import Overlap, by_class
from study.losses.label_smoothing import amount
from study.losses.logit_adjustment import adjusted, log_prior
from study.losses.looking import (
    exactly,
    has_tangent,
    inside_backward,
    savable,
    transforms_active,
)
from study.losses.loss import WEIGHTS, Terms, plain_loss
from study.losses.recall_state import ObserveUnderTransforms, RecallState, forgets
from study.losses.targets import (
    Labels,
    compute_dtype,
    in_shape,
    read_labels,
    read_weight,
    refuse_probabilities,
)

NO_INDEX = -(2**63)  # no label has it


class SegmentationLoss(nn.Module):
    """The loss as a module; `build_loss` makes one from the `loss:` tree.

        L = (1 - mix) * Pool_p(a[y_p] * (1 - R[y_p]) * (1 - q_p)^gamma * ce_p) + mix * Jaccard

    Args:
        config: the typed `loss:` tree.
        num_classes: C, at least 2; or 1 for a binary loss of one channel.
        class_counts: pixels of each class, (C,) or (images, C); only class-weight schemes and
            logit adjustment need them.
        ignore_index: label of the ignored pixels, or several; None ignores none.
        validate: refuse soft targets that are no distributions, where this check does not make the
            host wait for a device.

    State: recall, updated once per forward in training mode and only read in eval mode, and the
    class weights. Both are buffers: they move with the module and are saved with it, but stay
    float64 when the module is cast. Gradients of micro-batches add up to those of the sum of their
    losses; each micro-batch updates recall, and every mean is over its own pixels.

    In a `torch.compile`d step the loss is one operator, without a graph break (compiled.py).

    measure_gradients: if True, `terms()` also gives the gradient norms of the two terms, at the
    cost of one more evaluation of each. False costs nothing.

    Normaliser: `valid` divides by the number of valid pixels; `weight` first scales the pixel
    weights a * (1 - R) to average 1 over the valid pixels of the batch.

    Examples:
        >>> import torch
        >>> from study.losses import LossConfig, SegmentationLoss
        >>> loss = SegmentationLoss(LossConfig(), num_classes=4)  # cross entropy
        >>> value = loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
        >>> round(float(value), 4), sorted(loss.terms())  # log 4
        (1.3863, ['cross_entropy', 'pixel'])
    """

    class_weights: Tensor | None
    log_prior: Tensor | None

    def __init__(
        self,
        config: LossConfig,
        *,
        num_classes: int,
        class_counts: Counts | None = None,
        ignore_index: int | Sequence[int] | None = 255,
        validate: bool = True,
    ) -> None:
        super().__init__()
        self._num_classes = class_number(num_classes)
        self._config = config
        self._classes = max(2, self._num_classes)
        self._ignored = ignored_labels(ignore_index, self._classes)
        self._validate = validate
        with torch.inference_mode(False), torch.device("cpu"):  # whatever is set around
            weights = class_weights(config.class_weights, class_counts, self._classes)
            self.register_buffer("class_weights", weights)
            tau = config.logit_adjustment.tau
            prior = log_prior(class_counts, self._classes) if tau > 0 else None
            self.register_buffer("log_prior", prior)
            self._configured = {name: value.clone() for name, value in self.named_buffers()}
            self.recall = (
                RecallState(config.recall.ema_momentum, self._classes) if config.recall else None
            )
        self.measure_gradients = False
        self._is_neutral = not active(config)
        self._is_used = False
        self._terms: Terms = {}
        self._overlap: Overlap | None = None
        self._number = register(self)

    @property
    def config(self) -> LossConfig:
        """The config; another one needs another loss."""
        return self._config

    @property
    def num_classes(self) -> int:
        """C as it was given: 1 for a binary loss of one channel."""
        return self._num_classes

    @property
    def ignore_index(self) -> int | tuple[int, ...] | None:
        """The labels of the pixels that do not count."""
        return as_given(self._ignored)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = register(self)  # a copy is another loss

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Logits of ignored pixels are never read: their gradient is 0 even where they are NaN. A NaN
        at a valid pixel gives NaN. A batch without a valid pixel, or without any, gives 0, attached
        to the graph.

        Args:
            logits: (B, C, H, W) float; volumes (B, C, D, H, W) and sequences (B, C, N) too, but for
                smoothing at boundaries. float64 is computed in float64, all others in float32,
                under autocast too. With num_classes 1, (B, 1, H, W): the logit of class 1, that of
                class 0 is 0.
            target: (B, H, W) or (B, 1, H, W) integers in [0, C) or `ignore_index`; or a soft target
                (B, C, H, W) whose pixels sum to 1. With num_classes 1 also 0 and 1 as bool, and the
                probability of class 1 as floats (B, H, W) or (B, 1, H, W).
            keep: (B, H, W) bool, pixels that count (with hard labels, besides `ignore_index`); None
                keeps all.
            weight: (B, H, W) or (B, 1, H, W) float, finite and >= 0, multiplies the loss of each
                pixel beside the class weights, before pooling; with `normalizer: weight` it is
                scaled with them. The Jaccard term has none. None is 1 everywhere, and faster.

        Returns:
            The loss, a scalar tensor. It has derivatives of any order, by a soft target too.

        Raises:
            ValueError: for shapes or dtypes that do not fit and, on the CPU, for a label out of
                range or a soft label that is no distribution (see `validate`).
        """
        logits, target, keep = in_shape(logits, target, keep, self._num_classes)
        if torch.compiler.is_compiling():
            if not kernel.knows(self._config) or target.requires_grad or weight is not None:
                return self._outside_of_the_graph(logits, target, keep, weight)
            scores = logits.to(compute_dtype(logits))
            return opaque_loss(self._number, scores, target, keep, self.recall)
        logits, target = savable(logits), savable(target)
        keep = None if keep is None else savable(keep)
        if weight is not None or self._asks_for_more(logits, target):
            with exactly(logits):
                return self._plain_step(logits, target, keep, weight)
        return _Differentiable.apply(logits, target, keep, self)

    @torch.compiler.disable
    def _outside_of_the_graph(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        """The plain form in a compiled step, which it breaks in two."""
        keep = None if keep is None else savable(keep)
        with exactly(logits):
            return self._plain_step(savable(logits), savable(target), keep, weight)

    def _asks_for_more(self, logits: Tensor, target: Tensor) -> bool:
        """Whether the kernel cannot give what is asked for."""
        return (
            not kernel.knows(self._config)
            or transforms_active()
            or has_tangent(logits)
            or (target.is_floating_point() and (target.requires_grad or has_tangent(target)))
        )

    # --- one step -------------------------------------------------------------------------------

    def evaluate(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The value of float32 or float64 logits, their gradient instead of a graph, and the class
        factors a * (1 - R) that were used."""
        self._tell(logits)
        if target.numel() == 0:
            return self._without_pixels(logits), torch.zeros_like(logits), self.weights()
        if self._is_neutral and suits(logits, target):
            value, gradient = self._cross_entropy(logits, target, keep, wants_gradient)
            return value, gradient, None
        scores, labels = self._read(logits, target, keep)
        if self.recall is None and dense.suits(self._config, scores, labels):
            pixels = dense.DenseStep(self._config, self._adjusted(scores), labels, wants_gradient)
            value, self._terms = pixels.run()
            self._overlap = pixels.overlap
            if self.measure_gradients:
                self._terms |= self._gradient_norms(scores, labels, None)
            return value, pixels.probability.view(logits.shape) if wants_gradient else None, None
        step = kernel.Step(self._config, self._adjusted(scores), labels, wants_gradient)
        if self.recall is not None:
            if self._observes and self.log_prior is None:
                self.recall.observe(step.hits(), step.support.sum(0))
            elif self._observes:
                self.recall.observe(*_hits_and_support(scores, labels))
            step.terms["recall"] = self.recall.mean()
        factors = self.weights()
        value, self._terms = step.run(factors), step.terms
        self._overlap = step.overlap
        if self.measure_gradients:
            self._terms |= self._gradient_norms(scores, labels, factors)
        return value, step.probability.view(logits.shape) if wants_gradient else None, factors

    def _plain_step(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, weight: Tensor | None = None
    ) -> Tensor:
        """As evaluate, in the plain form: a value with a graph."""
        self._tell(logits)
        logits = logits.to(compute_dtype(logits))
        if target.numel() == 0:
            return self._without_pixels(logits) + logits.sum()
        scores, labels = self._read(logits, target, keep)
        if weight is not None:
            of_pixels = read_weight(
                savable(weight), logits, labels.valid, scores.dtype, validate=self._validate
            )
            labels = replace(labels, weight=of_pixels)
        terms: Terms = {}
        factors = self.weights()
        if self.recall is not None:
            mean = self.recall.mean()
            if self._observes:
                factors, mean = self._observed(scores, labels)
            terms["recall"] = mean
        found = plain_loss(self._config, scores, labels, factors, self.log_prior)
        if not transforms_active():  # whose tensors are gone when it returns
            terms |= found.terms
            self._terms = {name: term.detach() for name, term in terms.items()}
            self._overlap = None if found.overlap is None else found.overlap.detached()
            if self.measure_gradients:
                self._terms |= self._gradient_norms(scores, labels, factors)
        return found.value

    def again(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, factors: Tensor | None
    ) -> Tensor:
        """The value of a step with a graph, from the class factors that it used; changes no
        state."""
        scores, labels = self._read(logits.to(compute_dtype(logits)), target, keep)
        return plain_loss(self._config, scores, labels, factors, self.log_prior).value

    @property
    def _observes(self) -> bool:
        """Whether this step updates recall: in training, but not where gradient checkpointing
        computes it once more."""
        return self.training and not inside_backward()

    def _observed(self, scores: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Update recall; the class factors and the mean recall after it."""
        assert self.recall is not None
        hits, support = _hits_and_support(scores, labels)
        if not transforms_active():
            self.recall.observe(hits, support)
            return self._factors(self.recall.value), self.recall.mean()
        recall = ObserveUnderTransforms.apply(hits, support, self.recall)
        return self._factors(recall), recall

    def _tell(self, logits: Tensor) -> None:
        if not self._is_used:
            self._is_used = True
            echo(self.digest)
            if self._validate:
                refuse_probabilities(logits, "the loss")

    @property
    def digest(self) -> str:
        """The digest of its config; see `loss_digest`."""
        return loss_digest(self._config)

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, keep: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As evaluate, if no axis acts."""
        ignored = self._ignored[0] if self._ignored else NO_INDEX
        label = target.long()
        for index in self._ignored[1:]:
            label = label.masked_fill(label == index, ignored)
        if keep is not None:
            label = label.masked_fill(~keep, ignored)
        if label.ndim != 3:
            shape = (len(label), 1, -1)
            found = self._cross_entropy(
                logits.flatten(2).unsqueeze(2), label.reshape(shape), None, wants_gradient
            )
            return found[0], None if found[1] is None else found[1].view(logits.shape)
        measures = self.measure_gradients
        try:
            value, gradient = cross_entropy(logits, label, ignored, wants_gradient or measures)
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
        labels = read_labels(
            target, keep, self._classes, self._ignored, logits.dtype, validate=self._validate
        )
        if any(buffer.device != logits.device for buffer in self.buffers()):
            self.to(logits.device)
        scores, config = logits.flatten(2), self._config
        if config.label_smoothing > 0:
            epsilon = amount(
                config.label_smoothing,
                config.smoothing_region,
                labels.apart,
                self._classes,
                logits.shape[2:],
                scores.dtype,
            )
            labels = replace(labels, epsilon=epsilon)
        return scores, labels

    def _without_pixels(self, logits: Tensor) -> Tensor:
        """The value of one ignored pixel; other ranks may wait for this rank's recall counts."""
        pixel = logits.new_zeros(1, self._classes, *(1 for _ in logits.shape[2:]))
        target, keep = pixel[:, 0].long(), torch.zeros_like(pixel[:, 0], dtype=torch.bool)
        if kernel.knows(self._config):
            return self.evaluate(pixel, target, keep, wants_gradient=False)[0]
        return self._plain_step(pixel, target, keep)

    def _gradient_norms(
        self, scores: Tensor, labels: Labels, factors: Tensor | None
    ) -> dict[str, Tensor]:
        """L2 norm over all logits of the gradient of each term times its weight in the loss."""
        jaccard, norms = self._config.jaccard, {}
        for name, alone, factor in (("pixel", 0.0, 1 - jaccard.mix), ("jaccard", 1.0, jaccard.mix)):
            if factor == 0:
                continue
            only = jaccard.model_copy(update={"mix": alone})
            config = self._config.model_copy(update={"jaccard": only})
            gradient = self._gradient(config, scores.detach(), labels, factors)
            norms[f"grad_norm/{name}"] = factor * torch.linalg.vector_norm(gradient)
        return norms

    def _gradient(
        self, config: LossConfig, scores: Tensor, labels: Labels, factors: Tensor | None
    ) -> Tensor:
        """The gradient of a loss by scores without a graph."""
        if kernel.knows(config) and labels.weight is None:
            step = kernel.Step(config, self._adjusted(scores), labels, wants_gradient=True)
            step.run(factors)
            return step.probability
        with torch.enable_grad():
            leaf = scores.clone().requires_grad_()
            value = plain_loss(config, leaf, labels, factors, self.log_prior).value
            return torch.autograd.grad(value, leaf)[0]

    def _adjusted(self, scores: Tensor) -> Tensor:
        if self.log_prior is None:
            return scores
        return adjusted(scores, self.log_prior, self._config.logit_adjustment.tau)

    # --- what is known afterwards ---------------------------------------------------------------

    def weights(self) -> Tensor | None:
        """The present pixel weights by class, a * (1 - R), (C,) float64; None if all are 1."""
        return self._factors(None if self.recall is None else self.recall.value)

    def _factors(self, recall: Tensor | None) -> Any:
        weights = self.class_weights if has_class_weights(self._config.class_weights) else None
        if recall is None:
            return weights
        return (1 - recall) * (1 if weights is None else weights)

    def terms(self, class_names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The parts of the last step's value, as detached 0-dim tensors.

        Nothing waits for the device until one of them is read.

        cross_entropy, pixel   unweighted mean, and the pooled term; unless mix is 1
        jaccard                unless mix is 0
        jaccard/<class>        that of the class: its mean over the images where it is present (once
                               for the batch, where that is averaged), NaN where it is in none
        recall                 the mean R of the classes seen
        kept, capped           fraction of valid pixels that OHEM keeps or max-pooling holds at its
        cap
        weight/<class>         a * (1 - R) with the normaliser applied, by index or `class_names`;
                               if class weights or recall act
        grad_norm/<term>       L2 norm of the gradient by the logits of (1 - mix) * pixel and of
                               mix * jaccard; if `measure_gradients` was set
        """
        names = [*(range(self._classes) if class_names is None else class_names)]
        terms = named_terms(self.step_terms, names)
        if self._overlap is None:
            return terms
        losses = by_class(self._config.jaccard, self._overlap)
        return terms | {f"jaccard/{c}": one for c, one in zip(names, losses.unbind(), strict=True)}

    @property
    def step_terms(self) -> dict[str, Tensor]:
        """As `terms()`, but with all weights in one (C,) tensor, for `named_terms`.

        This is cheaper when the terms of many steps are averaged.
        """
        return self._terms

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        errors: list[str] = args[-1]
        for name, mine in self._configured.items():
            given = state_dict.get(prefix + name)
            if not isinstance(given, Tensor) or given.is_meta or given.shape != mine.shape:
                continue
            rounding = torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
            given = given.detach().double()
            loaded = given if rounding < 1e-6 else mine.clone()
            if not torch.allclose(given.cpu(), mine, rtol=max(1e-6, rounding), atol=0):
                errors.append(
                    f"{prefix}{name} are {given.tolist()} in the state and {mine.tolist()} by the "
                    "config and its class_counts: build the loss with those of the state, or leave "
                    f"{prefix}{name} out of the state"
                )
                loaded = mine.clone()
            state_dict = {**state_dict, prefix + name: loaded}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the state where `fn` moves it, but never cast it."""

        def moved(state: Tensor) -> Tensor:
            found = fn(state)
            return found if found.dtype == state.dtype else state.to(found.device)

        with torch.inference_mode(False):  # a state that was made there could not be trained on
            super()._apply(moved, recurse)
        if forgets(fn):
            for name, value in self._configured.items():
                getattr(self, name).copy_(value)
        return self

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
    """logits (B, C, ...) -> the loss; computes the gradient in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, keep: Tensor | None, loss: SegmentationLoss
    ) -> Tensor:
        with exactly(logits):
            scores = logits.detach().to(compute_dtype(logits))
            value, gradient, factors = loss.evaluate(scores, target, keep, ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient, logits, target, keep, factors)
        ctx.loss = loss
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, logits, target, keep, factors = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            gradient = gradient_with_graph(ctx.loss, logits, target, keep, factors)
        elif upstream.device.type == "cpu" and float(upstream) == 1:
            return gradient.to(logits.dtype), None, None, None
        return (gradient * upstream).to(logits.dtype), None, None, None


def gradient_with_graph(
    loss: SegmentationLoss,
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    factors: Tensor | None,
) -> Tensor:
    """The gradient of a step by its logits, attached to their graph."""
    if target.numel() == 0:
        return torch.zeros_like(logits)
    with exactly(logits):
        value = loss.again(logits, target, keep, factors)
        (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    return gradient


def _hits_and_support(scores: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Valid pixels of each class whose label is the argmax of scores (B, C, P), and all of them,
    (C,) float64 each."""
    classes = torch.arange(labels.num_classes, device=scores.device)[:, None]
    mine = (labels.label[:, None] == classes) & labels.valid[:, None]  # (B, C, P)
    at_label = scores.detach().gather(1, labels.label[:, None])[:, 0]
    hit = (scores.detach().argmax(1) == labels.label) & at_label.isfinite()  # no NaN predicts
    return (mine & hit[:, None]).sum((0, 2)).double(), mine.sum((0, 2)).double()
