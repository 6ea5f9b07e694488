"""Decision rules: the class with the highest logit after a shift by the log of its prior.

    classes = argmax_c(z_c - tau log pi_c)

tau = 0 is the argmax, tau = 1 divides the prior out of a posterior; larger taus favour rare
classes. Menon et al., "Long-tail learning via logit adjustment", ICLR 2021 (arXiv
2007.07314); Tian et al., "Posterior Re-calibration for Imbalanced Datasets", NeurIPS 2020 (arXiv
2010.11820).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.metrics.counts import counts_of_confusion, metrics_from_counts

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
TAUS = tuple(step / 10 for step in range(-15, 16))
ARGMAX = TAUS.index(0.0)
MACC_TOLERANCE = 0.02  # of mIoU, within which tau_macc is chosen


def log_prior(class_counts: ArrayLike) -> Floats:
    """log pi_c (C,) of pixel counts (C,); a class without pixels has the rarest seen one's prior.

    >>> from study.metrics.decision import log_prior
    >>> log_prior([75, 25, 0]).round(3).tolist()
    [-0.288, -1.386, -1.386]
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    if not counts.any():
        return np.zeros_like(counts)
    seen = np.maximum(counts, counts[counts > 0].min())
    found: Floats = np.log(seen / counts.sum())
    return found


@dataclass(frozen=True)
class Taus:
    """The two rules of a training, chosen on val: see `study.metrics`."""

    miou: float
    macc: float


def choose_taus(curve: ArrayLike) -> Taus:
    """The two rules of a curve of confusion matrices (taus, C, C), rows the target.

    Among equals the first has the tau nearest to 0, the second the higher mIoU.
    """
    values = metrics_from_counts(counts_of_confusion(np.asarray(curve)))
    miou, macc = values["miou"], values["macc"]
    if not np.isfinite(miou).all():
        return Taus(0.0, 0.0)
    distance = np.abs(TAUS)
    best = np.lexsort((distance, -miou))[0]
    near = miou >= miou[best] - MACC_TOLERANCE
    order = np.lexsort((distance, -miou, -np.where(near, macc, -np.inf)))
    return Taus(TAUS[best], TAUS[order[0]])


@dataclass(frozen=True)
class Decision:
    """argmax_c(z_c - tau log pi_c): classes from logits.

    Args:
        log_prior: log pi_c of each class; may be empty where tau is 0.
        tau: strength of the shift; 0 is the argmax, and the same classes bit for bit.

    Examples:
        >>> import numpy as np
        >>> from study.metrics import Decision
        >>> logits = np.array([[1.0, 0.8]])  # one pixel: (N, C)
        >>> Decision((), 0.0)(logits), Decision((-0.1, -2.3), 0.5)(logits)
        (array([0]), array([1]))
    """

    log_prior: Sequence[float]
    tau: float

    @overload
    def __call__(self, logits: Tensor) -> Tensor: ...
    @overload
    def __call__(self, logits: NDArray[Any]) -> NDArray[Any]: ...
    def __call__(self, logits: Any) -> Any:
        """The classes of logits (B, C, ...) or (C, H, W): integers, without the class axis.

        Logits of one channel are those of the second of two classes; that of the first is 0.

        Raises:
            ValueError: if the logits have another number of classes than the rule.
        """
        axis = 0 if logits.ndim == 3 else 1
        if logits.shape[axis] == 1 and len(self.log_prior) in (0, 2):
            edge = self.tau * (self.log_prior[1] - self.log_prior[0]) if self.log_prior else 0.0
            above: Any = (logits > edge).squeeze(axis)
            return above.astype(np.int64) if isinstance(above, np.ndarray) else above.long()
        if self.log_prior and logits.shape[axis] != len(self.log_prior):
            raise ValueError(
                f"the rule is for {len(self.log_prior)} classes, got logits with "
                f"{logits.shape[axis]} at axis {axis}: {tuple(logits.shape)}"
            )
        if self.tau == 0:
            return logits.argmax(axis)
        shape = [-1 if each == axis else 1 for each in range(logits.ndim)]
        shift = self.tau * np.asarray(self.log_prior, dtype=np.float64).reshape(shape)
        if isinstance(logits, np.ndarray):
            return (logits - shift).argmax(axis)
        import torch

        dtype = torch.float32 if logits.device.type == "mps" else torch.float64
        return (logits - torch.as_tensor(shift, dtype=dtype, device=logits.device)).argmax(axis)
