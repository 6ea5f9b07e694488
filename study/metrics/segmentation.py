"""Accumulates the counts of a split over batches, at the argmax and at every decision rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.core.names import TAU_MACC, TAU_MIOU, TUNED, TUNED_MACC
from study.losses.ignored import as_given, class_number, ignored_labels
from study.metrics.counts import named_metrics, present_classes
from study.metrics.decision import ARGMAX, TAUS, Taus, choose_taus, log_prior

if TYPE_CHECKING:
    from torch import Tensor

    from study.metrics.curve import CurveCounter

__all__ = ["SegmentationMetrics"]

CALIBRATION_BINS = 15
SUMS = ("_confusion", "_diverged", "_curve", "_bins", "_nll")
BY_IMAGE = ("_image_counts", "_rule_counts")
SAME = "classes, ignore_index, groups, class_counts and calibration"


class SegmentationMetrics:
    """Accumulates pixel counts over batches, and computes the metrics of this package at the end.

        iou = tp / (tp + fp + fn),   recall = tp / (tp + fn),   precision = tp / (tp + fp)

    Counts stay on the predictions' device; nothing is copied to the host before the end.

    Args:
        num_classes: C. 1 means two classes with logits of one channel (B, 1, H, W): those of the
            second class; the first has logit 0. Names and counts are those of both classes.
        ignore_index: label of the ignored pixels, or several; None ignores none.
        class_names: names of the per-class metrics, one per class, all different; default the class
            indices.
        class_counts: (C,) pixels of each class in training. They switch on the metrics of the
            decision rules; each batch must then be logits.
        groups: classes of each named group, by their names.
        calibration: also measure nll and calibration_error; each batch must then be logits.

    Raises:
        ValueError: if num_classes, ignore_index, class_names, class_counts or groups do not fit.

    Examples:
        >>> import torch
        >>> from study.metrics import SegmentationMetrics
        >>> metrics = SegmentationMetrics(num_classes=2, class_names=["road", "pole"])
        >>> metrics.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> values = metrics.compute()
        >>> values["miou"], values["iou/pole"], values["recall/road"]
        (0.5, 0.5, 1.0)
        >>> metrics.confusion.tolist()
        [[1, 0], [1, 1]]
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = 255,
        class_names: Sequence[str] | None = None,
        *,
        class_counts: ArrayLike | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        calibration: bool = False,
    ) -> None:
        self._channels = class_number(num_classes)
        num_classes = max(2, self._channels)
        names = [str(c) for c in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes:
            raise ValueError(
                f"class_names must have one name per class ({num_classes}), got {len(names)}"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"class_names must be unique, got {names}")
        self.num_classes = num_classes
        self._ignored = ignored_labels(ignore_index, num_classes)
        self.class_names = tuple(names)
        self.groups = {
            group: self._classes(group, names) for group, names in (groups or {}).items()
        }
        self._counter = None if class_counts is None else self._curve_counter(class_counts)
        self._calibration = calibration
        self.reset()

    @property
    def ignore_index(self) -> int | tuple[int, ...] | None:
        """The labels of the pixels that do not count."""
        return as_given(self._ignored)

    def reset(self) -> None:
        """Forget all batches."""
        self._confusion: Tensor | None = None
        self._diverged: Tensor | None = None
        self._image_counts: list[Tensor] = []
        self._rule_counts: list[Tensor] = []  # (images, taus, 2, C) hits and decided pixels
        self._curve: Tensor | None = None
        self._bins: Tensor | None = None
        self._nll: Tensor | None = None
        self._copies: dict[str, NDArray[Any]] = {}
        self._is_synced = False

    def _classes(self, group: str, names: Sequence[str]) -> list[int]:
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise ValueError(f"group {group!r} names no class: {unknown[0]!r}")
        return [self.class_names.index(name) for name in names]

    def _curve_counter(self, class_counts: ArrayLike) -> CurveCounter:
        import torch

        from study.metrics.curve import CurveCounter

        counts = np.asarray(class_counts)
        if counts.shape != (self.num_classes,):
            hint = "; sum those of images over axis 0" if counts.ndim == 2 else ""
            raise ValueError(
                f"class_counts must have one count per class ({self.num_classes}), "
                f"got shape {counts.shape}{hint}"
            )
        if not (np.isfinite(counts).all() and (counts >= 0).all()):
            raise ValueError("class_counts must be finite and >= 0 for every class")
        return CurveCounter(torch.from_numpy(log_prior(counts)))

    def update(self, pred_or_logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            pred_or_logits: logits (B, C, H, W) float, or predicted classes (B, H, W) integer.
            target: (B, H, W) or (B, 1, H, W) integers in [0, C) or `ignore_index`.

        Raises:
            ValueError: for shapes or dtypes that do not fit and, on the CPU, for a class out of
                range.
        """
        import torch

        from study.losses.targets import check_tensors, refuse_probabilities
        from study.metrics.curve import confusion_tables

        self._refuse_after_sync()
        check_tensors(pred_or_logits=pred_or_logits, target=target)
        logits = pred_or_logits.detach()
        given = (
            f"{logits.dtype} of {tuple(logits.shape)} and {target.dtype} of {tuple(target.shape)}"
        )
        if self._channels == 1:
            logits, target = _two_classes(logits), _labels(target)
        elif target.ndim == 4 and target.shape[1] == 1:
            target = target[:, 0]
        pred, target = self._checked(logits, target, given)
        if not logits.is_floating_point() and (self._counter is not None or self._calibration):
            raise ValueError("decision rules and calibration need logits, got classes")
        if self._confusion is None and (self._counter is not None or self._calibration):
            refuse_probabilities(logits, "SegmentationMetrics")
        self._copies.clear()
        valid = self._valid(target)
        if self._counter is not None:
            tables = self._counter.count(logits, target, pred, valid)
            hits, decided = tables.diagonal(dim1=2, dim2=3), tables.sum(2)
            _keep(self._rule_counts, torch.stack([hits, decided], 2).int())
            self._curve = _added(self._curve, tables.sum(0))
            table = tables[:, ARGMAX]
        else:
            table = confusion_tables(pred, target, valid, self.num_classes)
        if self._calibration:
            for image in range(len(target)):  # one at a time: this takes several times the logits
                one = slice(image, image + 1)
                self._judge_probabilities(logits[one], target[one], valid[one])
        hits = table.diagonal(dim1=1, dim2=2)
        _keep(self._image_counts, torch.stack([hits, table.sum(1) - hits, table.sum(2) - hits], 1))
        self._confusion = _added(self._confusion, table.sum(0))

    def _judge_probabilities(self, logits: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add up -log p of the true class, and p_c - [true class is c] by class and bin of p_c."""
        import torch

        from study.losses.histogram import sum_by_label

        log_p = logits.flatten(2).float().log_softmax(1)
        true = torch.where(valid, target, 0)[:, None]
        chosen = log_p.gather(1, true)[:, 0]
        self._nll = _added(self._nll, -torch.where(valid, chosen, 0.0).double().sum())
        p = log_p.exp_()
        label = (p * CALIBRATION_BINS).long().clamp_(0, CALIBRATION_BINS - 1)
        label += torch.arange(self.num_classes, device=p.device)[:, None] * CALIBRATION_BINS
        p.scatter_add_(1, true, torch.full_like(chosen, -1.0)[:, None])
        p.masked_fill_(~valid[:, None], 0.0)
        gaps = sum_by_label(label, self.num_classes * CALIBRATION_BINS, p)
        self._bins = _added(self._bins, gaps)

    def _checked(self, pred: Tensor, target: Tensor, given: str) -> tuple[Tensor, Tensor]:
        """Check both and return them as (B, P) int64. given: what they were, in words."""
        import torch

        from study.losses.targets import check_device

        check_device(pred, target=target)
        if pred.is_floating_point() and pred.ndim == 4 and pred.shape[1] == self.num_classes:
            logits, pred = pred, pred.argmax(1)
            if target.shape == pred.shape:
                self._watch(logits, pred, target)
        integer = not pred.is_floating_point() and not target.is_floating_point()
        if not integer or pred.ndim != 3 or pred.shape != target.shape:
            raise ValueError(
                f"update takes logits (B, {self._channels}, H, W) or integer classes (B, H, W), "
                f"and an integer target (B, H, W), got {given}"
            )
        pred, target = pred.flatten(1).long(), target.flatten(1).long()
        valid = self._valid(target)
        for name, classes in (("pred", pred), ("target", target)):
            inside = ((classes >= 0) & (classes < self.num_classes)) | ~valid
            if classes.device.type != "cpu":
                torch._assert_async(inside.all())
            elif not bool(inside.all()):
                raise ValueError(
                    f"{name} must be in [0, {self.num_classes}) where target is not "
                    f"{self.ignore_index}, got {int(classes[~inside][0])}"
                )
        return pred, target

    def _valid(self, target: Tensor) -> Tensor:
        """Where int64 labels are not ignored."""
        import torch

        if not self._ignored:
            return torch.ones_like(target, dtype=torch.bool)
        valid = target != self._ignored[0]
        for index in self._ignored[1:]:
            valid = valid & (target != index)
        return valid

    def _watch(self, logits: Tensor, pred: Tensor, target: Tensor) -> None:
        """Remember a NaN at a valid pixel; argmax selects a NaN wherever there is one."""
        top = logits.gather(1, pred[:, None])[:, 0]
        found = (top.isnan() & self._valid(target.long())).any()
        self._diverged = found if self._diverged is None else self._diverged | found

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the batches of another object with the same settings: N = N_self + N_other for every
        count. The metrics are then those of one object that has seen both, its own images first.

        Raises:
            ValueError: if the other has other classes, groups or rules.

        Examples:
            >>> import torch
            >>> from study.metrics import SegmentationMetrics
            >>> one, two = SegmentationMetrics(2), SegmentationMetrics(2)
            >>> one.update(torch.tensor([[[0, 0]]]), torch.tensor([[[0, 1]]]))
            >>> two.update(torch.tensor([[[1, 1]]]), torch.tensor([[[1, 1]]]))
            >>> one.merge(two)
            >>> one.confusion.tolist()
            [[1, 0], [1, 2]]
        """
        if self._measured() != other._measured():
            raise ValueError(f"both must have the same {SAME}")
        self._refuse_after_sync()
        self._add(other._totals())

    def sync(self, group: Any = None) -> None:
        """Add up the batches of all processes of `torch.distributed`, on each of them.

        It works as `merge`, in the order of the ranks, if each process has seen a part of a split.
        Every process must call it once, after its last batch, and `reset` before the next split.
        Give the metrics each image once. Some samplers repeat images so that every process gets
        the same number (torch's DistributedSampler unless `drop_last`); repeated images would count
        twice. Without a process group the call changes nothing.

        Args:
            group: the process group; default all.
        """
        from torch import distributed

        self._refuse_after_sync()
        if not distributed.is_available() or not distributed.is_initialized():
            return
        parts: list[Any] = [None] * distributed.get_world_size(group)
        mine = {name: part.cpu() for name, part in self._totals().items()}
        distributed.all_gather_object(parts, (self._measured(), mine), group)
        if any(measured != self._measured() for measured, _ in parts):
            raise ValueError(f"all processes must have the same {SAME}")
        self.reset()
        for _, totals in parts:
            self._add(totals)
        self._is_synced = True

    def _refuse_after_sync(self) -> None:
        if self._is_synced:
            raise ValueError("the processes' batches are added up already; reset() comes first")

    def _measured(self) -> tuple[Any, ...]:
        prior = None if self._counter is None else tuple(self._counter.log_prior.tolist())
        return (self.class_names, self.ignore_index, self.groups, prior, self._calibration)

    def _totals(self) -> dict[str, Tensor]:
        """Everything that the batches have left, by attribute."""
        import torch

        sums = {name: part for name in SUMS if (part := getattr(self, name)) is not None}
        return sums | {
            name: torch.cat(pieces) for name in BY_IMAGE if (pieces := getattr(self, name))
        }

    def _add(self, totals: Mapping[str, Tensor]) -> None:
        """Add what the batches of another have left, on the device of this one's."""
        self._copies.clear()
        for name, given in totals.items():
            part = given if self._confusion is None else given.to(self._confusion.device)
            if name in BY_IMAGE:
                _keep(getattr(self, name), part)
            else:
                setattr(self, name, _added(getattr(self, name), part))

    @property
    def confusion(self) -> Tensor:
        """The (C, C) int64 pixel counts; rows are the target, columns the prediction."""
        import torch

        if self._confusion is None:
            shape = (self.num_classes, self.num_classes)
            return torch.zeros(shape, dtype=torch.int64, device="cpu")
        return self._confusion

    def image_counts(self) -> Tensor:
        """The true positives, false positives and misses of each image, (images, 3, C) int64."""
        import torch

        if not self._image_counts:
            return torch.zeros((0, 3, self.num_classes), dtype=torch.int64, device="cpu")
        return torch.cat(self._image_counts)

    @property
    def curve(self) -> NDArray[np.int64] | None:
        """The confusion matrices (taus, C, C) of all decision rules; None if not measured."""
        curve = self._curve
        return None if curve is None else self._copy("curve", lambda: curve)

    def _copy(self, name: str, make: Callable[[], Tensor]) -> NDArray[Any]:
        """A total on the host, where it is copied once, until the next batch."""
        if name not in self._copies:
            self._copies[name] = make().cpu().numpy()
        return self._copies[name]

    def rule_counts(self, tau: float) -> NDArray[np.int64]:
        """The counts of `image_counts` at the rule `tau`, one of `TAUS`, (images, 3, C)."""
        import torch

        counts = self._copy("counts", self.image_counts)
        if not self._rule_counts:
            return counts[:0]
        rules = self._copy("rules", lambda: torch.cat(self._rule_counts))
        hits, decided = np.moveaxis(rules[:, TAUS.index(tau)].astype(np.int64), 1, 0)
        total = counts[:, 0] + counts[:, 2]
        return np.stack([hits, decided - hits, total - hits], axis=1)

    def taus(self) -> Taus | None:
        """The two rules that are best on these counts; None if the rules are not measured."""
        curve = self.curve
        return None if curve is None else choose_taus(curve)

    def compute(self, taus: Taus | None = None) -> dict[str, float]:
        """Compute all metrics of the batches so far.

        Args:
            taus: the rules of the tuned metrics; default those that are best on these counts. For
                a test split give the rules of val.

        Returns:
            Each metric by its name, in 0..1 or NaN; `iou/<name>`, `recall/<name>` and
            `precision/<name>` for the classes with ground truth, and their number,
            `num_classes_present`. Where the rules are measured, all these again as
            `tuned/<metric>` and `tuned_macc/<metric>`; and `tau_miou` and `tau_macc`, if they were
            chosen here.
        """
        counts = self._copy("counts", self.image_counts)
        values = named_metrics(counts, self.class_names, self.groups)
        present = float(present_classes(counts.sum(0)).sum())
        chosen = taus or self.taus()
        if chosen is not None and self._curve is not None:
            for rule, tau in ((TUNED, chosen.miou), (TUNED_MACC, chosen.macc)):
                tuned = named_metrics(self.rule_counts(tau), self.class_names, self.groups)
                values |= {f"{rule}/{key}": value for key, value in tuned.items()}
        if self._bins is not None and self._nll is not None:
            pixels = int(counts[:, [0, 2]].sum())
            gaps = self._bins.view(self.num_classes, -1).abs().sum(1).mean()
            values["nll"] = float(self._nll) / pixels if pixels else float("nan")
            values["calibration_error"] = float(gaps) / pixels if pixels else float("nan")
        if self._diverged is not None and bool(self._diverged):
            values = dict.fromkeys(values, float("nan"))
        if chosen is not None and taus is None:
            values |= {TAU_MIOU: chosen.miou, TAU_MACC: chosen.macc}
        return {**values, "num_classes_present": present}


def _two_classes(pred: Tensor) -> Tensor:
    """The logits of both classes of one channel, the first 0; classes as integers (B, H, W)."""
    from study.losses.targets import two_classes

    if pred.is_floating_point() and pred.ndim == 4 and pred.shape[1] == 1:
        return two_classes(pred)
    return _labels(pred)


def _labels(given: Tensor) -> Tensor:
    """Labels (B, 1, H, W) or of bool as integers (B, H, W)."""
    if given.ndim == 4 and given.shape[1] == 1:
        given = given[:, 0]
    return given if given.is_floating_point() else given.long()


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _keep(pieces: list[Tensor], piece: Tensor) -> None:
    """Append, in few tensors that double in size: many small ones that stay between the large
    tensors of a model fragment the memory."""
    import torch

    pieces.append(piece)
    while len(pieces) > 1 and len(pieces[-2]) <= len(pieces[-1]):
        pieces[-2:] = [torch.cat(pieces[-2:])]
