"""Segmentation metrics at the argmax and at tuned decision rules, and the rules themselves.

With tp, fp, fn summed over the whole split, per class c with ground truth:

    iou = tp / (tp + fp + fn),   recall = tp / (tp + fn),   precision = tp / (tp + fp)

miou, macc (mean recall) and mprec are their means over the classes with ground truth, mdice that of
2 tp / (2 tp + fp + fn); a class that is never predicted has precision 0. acc = sum tp / pixels,
fwiou = sum_c frequency_c * iou_c. A group of classes has miou/<group>, recall/<group> and
dice/<group>, the means over its classes with ground truth.

The image-wise metrics (Wang et al., "Revisiting Evaluation Metrics for Semantic Segmentation",
NeurIPS 2023) use each image's own counts; a class counts in the images whose ground truth has it:

    miou_image    mean over images of the image's mean IoU over its present classes
    miou_class    mean over classes of the class's mean IoU over the images that have it
    miou_worst5   mean over the lowest max(1, floor(5 n / 100)) of the n image-wise means

All of them are those of the argmax. A network is also measured at the decision rules
argmax_c(z_c - tau log pi_c), tau in -1.5, -1.4, ..., 1.5, pi the fractions of the training pixels
(see `decision`). Two are chosen on val: tau_miou has the highest mIoU, tau_macc the highest
mean accuracy among those within 2 points of that mIoU. `tuned/<metric>` is a metric at the first,
`tuned_macc/<metric>` at the second.

Two metrics judge the probabilities p, not a decision: nll, the mean of -log p of the true class,
and calibration_error, the class-wise calibration error (Kull et al., NeurIPS 2019): over 15 equal
bins of p_c, the mean over classes of sum_bins |sum (p_c - [true class is c])| / pixels.

Ignored pixels do not count, nor do images without any other pixel. Every metric but nll and the
taus is in 0..1. A metric is NaN if it is undefined (no valid pixel at all), and all are if a logit
at a valid pixel was NaN: a model that has diverged predicts nothing.
"""

from study.metrics.decision import TAUS, Decision
from study.metrics.exported import build_decision
from study.metrics.segmentation import SegmentationMetrics

__all__ = ["TAUS", "Decision", "SegmentationMetrics", "build_decision"]
