"""Online hard example mining: only the hardest pixels count.

    k    = max(1, int(min_kept * n)), at most n              n valid pixels in the batch
    kept = {q < threshold} together with {q <= the k-th smallest q}, ties included
    L    = mean of ell over the kept pixels

q is the softmax probability of the pixel's class, whatever its weight. threshold in [0, 1): 0 is
plain top-k; min_kept in (0, 1].

Neutral: `{kind: mean}`, or min_kept 1, which keeps all.

Normaliser: number of kept pixels. The selection carries no gradient.

Source: Shrivastava et al., CVPR 2016, arXiv 1604.03540, in the segmentation form of PIDNet and
mmsegmentation.

Differs: those take min_kept as a pixel count and keep nothing (a NaN) if all q are equal and above
the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ohem_kept(
    log_q: Tensor, q: Tensor, num_valid: Tensor, threshold: float, min_kept: float
) -> Tensor:
    """Return the mask of the kept pixels.

    log_q and q: same shape, +inf at ignored pixels (never kept). Pixels are ordered by log q, which
    neither underflows nor rounds to 1, and compared with the threshold by q. A NaN is kept, so that
    it shows in the loss.
    """
    below = ~(q >= threshold)
    if log_q.device.type == "cpu":
        count = int(num_valid)
        k = min(max(1, int(min_kept * count)), max(count, 1))
        if int(below.sum()) >= k:
            return below
        kth = torch.kthvalue(log_q.reshape(-1), k).values
    else:
        index = torch.floor(num_valid.double() * min_kept).long().clamp(min=1) - 1
        kth = log_q.reshape(-1).sort().values.gather(0, index.reshape(1))[0]
    return below | ~((log_q > kth) | torch.isposinf(log_q))
