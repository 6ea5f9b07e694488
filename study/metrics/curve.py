"""The confusion matrices of all decision rules from one pass over the logits.

At one pixel the scores z_c - tau log pi_c are lines in tau. As tau rises from 0, the winner passes
from class to class, each rarer than the one before, at the taus where two lines cross; as tau
falls, to ever more frequent ones. So on a CPU the pixels whose argmax wins at both ends of the grid
are done, and of the others each crossing is computed in turn, in float64: equal to the argmax at
each tau. A device counts the argmax at each tau, in float32, and waits for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from study.losses.histogram import sum_by_label
from study.metrics.decision import ARGMAX, TAUS

NUM_TAUS = len(TAUS)
BEYOND = 1.01 * TAUS[-1]  # the ends are screened in float32, a little beyond the grid
CHUNK = 2**26  # logits that a device shifts at once


class CurveCounter:
    """Counts, per image, tau, target and decided class, the pixels of batches of logits.

    Args:
        log_prior: (C,) log pi, see `decision.log_prior`.
    """

    def __init__(self, log_prior: Tensor) -> None:
        self.log_prior = log_prior.double().cpu()
        differences = self.log_prior[:, None] - self.log_prior
        # [a, c]: factor from z_a - z_c to the tau at which c overtakes a; NaN where it never does.
        self._up = torch.where(differences > 0, 1 / differences, torch.nan)
        self._down = torch.where(differences < 0, -1 / differences, torch.nan)
        self._taus = torch.tensor(TAUS[ARGMAX:], dtype=torch.float64, device="cpu")
        self._prior_of_device = self.log_prior.float()[:, None]  # where the last batch was

    def count(self, logits: Tensor, target: Tensor, pred: Tensor, valid: Tensor) -> Tensor:
        """Count a batch.

        Args:
            logits: (B, C, ...) float.
            target: (B, P) int64, in [0, C) where valid.
            pred: (B, P) int64, the argmax of the logits.
            valid: (B, P) bool, the pixels that count.

        Returns:
            (B, taus, C, C) int64; rows are the target.
        """
        logits = logits.flatten(2)
        tables = torch.empty(
            (len(logits), NUM_TAUS, logits.shape[1], logits.shape[1]),
            dtype=torch.int64,
            device=logits.device,
        )
        tables[:, ARGMAX] = confusion_tables(pred, target, valid, logits.shape[1])
        if logits.device.type == "cpu":
            self._count_crossings(logits, target, pred, valid, tables)
        else:
            self._count_each(logits, target, valid, tables)
        return tables

    def _count_each(self, logits: Tensor, target: Tensor, valid: Tensor, tables: Tensor) -> None:
        if self._prior_of_device.device != logits.device:
            self._prior_of_device = self._prior_of_device.to(logits.device)
        prior = self._prior_of_device
        size = max(1, CHUNK // max(1, logits[0].numel()))
        for first in range(0, len(logits), size):
            images = slice(first, first + size)
            for index, tau in enumerate(TAUS):
                if index != ARGMAX:
                    pred = (logits[images] - tau * prior).argmax(1)
                    table = confusion_tables(pred, target[images], valid[images], len(prior))
                    tables[images, index] = table

    def _count_crossings(
        self, logits: Tensor, target: Tensor, pred: Tensor, valid: Tensor, tables: Tensor
    ) -> None:
        images, num_classes = logits.shape[:2]
        table_size = num_classes * num_classes
        logits = logits.float()
        planes, rows = logits.contiguous(), logits.transpose(1, 2).reshape(-1, num_classes)
        flat_pred, flat_target = pred.reshape(-1), target.reshape(-1)
        best = planes.gather(1, pred[:, None])[:, 0]
        changes = pred.new_zeros(images * NUM_TAUS * table_size)
        for sign, factors in ((1, self._up), (-1, self._down)):
            shift = (-sign * BEYOND * self.log_prior).float()
            moves = ((planes + shift[:, None]).amax(1) > best + shift[pred]) & valid
            pixel = moves.reshape(-1).nonzero()[:, 0]
            scores = rows.index_select(0, pixel).double()
            winner = flat_pred.index_select(0, pixel)
            image = pixel // max(1, pred.shape[1])
            cell = image * (NUM_TAUS * table_size)
            cell += flat_target.index_select(0, pixel) * num_classes
            while len(cell):
                lead = scores.gather(1, winner[:, None]) - scores
                lead.mul_(factors.index_select(0, winner)).nan_to_num_(nan=torch.inf)
                crossing, rival = lead.min(1)
                step = torch.searchsorted(self._taus, crossing, right=True)
                on = (step < len(self._taus)).nonzero()[:, 0]
                step, cell, scores = (x.index_select(0, on) for x in (step, cell, scores))
                before, winner = winner.index_select(0, on), rival.index_select(0, on)
                at = cell + (ARGMAX + sign * step) * table_size
                changes += torch.bincount(at + winner, minlength=len(changes))
                changes -= torch.bincount(at + before, minlength=len(changes))
        changes = changes.view(images, NUM_TAUS, num_classes, num_classes)
        middle = tables[:, ARGMAX, None]
        tables[:, ARGMAX + 1 :] = middle + changes[:, ARGMAX + 1 :].cumsum(1)
        tables[:, :ARGMAX] = middle + changes[:, :ARGMAX].flip(1).cumsum(1).flip(1)


def confusion_tables(pred: Tensor, target: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """The confusion matrices (B, C, C) of images, int64."""
    cells = num_classes * num_classes + 1  # the last is for ignored pixels
    cell = torch.where(valid, target * num_classes + pred.reshape(target.shape), cells - 1)
    cell = cell + torch.arange(len(cell), device=cell.device)[:, None] * cells
    table = sum_by_label(cell, len(cell) * cells).long().view(len(cell), cells)[:, :-1]
    return table.view(-1, num_classes, num_classes)
