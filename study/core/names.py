"""Key strings that several rooms use, each defined once."""

from __future__ import annotations

VAL, TEST, TRAIN = "val", "test", "train"
MIOU, MACC = "miou", "macc"
VAL_MIOU, VAL_MACC = f"{VAL}/{MIOU}", f"{VAL}/{MACC}"
TEST_MIOU, TEST_MACC = f"{TEST}/{MIOU}", f"{TEST}/{MACC}"
# A metric at the rule that is best by mIoU, and at that best by mean accuracy: study.metrics.
TUNED, TUNED_MACC = "tuned", "tuned_macc"
TAU_MIOU, TAU_MACC = "tau_miou", "tau_macc"
VAL_TUNED_MIOU, VAL_TUNED_MACC = f"{VAL}/{TUNED}/{MIOU}", f"{VAL}/{TUNED_MACC}/{MACC}"
TEST_TUNED_MIOU, TEST_TUNED_MACC = f"{TEST}/{TUNED}/{MIOU}", f"{TEST}/{TUNED_MACC}/{MACC}"
TEST_NLL, TEST_CALIBRATION = f"{TEST}/nll", f"{TEST}/calibration_error"
TRAIN_LOSS = f"{TRAIN}/loss"
ANSWER = "answer.json"
IN_BATCHES = f"{TRAIN}/in_batches"
EPOCH_SECONDS = "time/epoch_s"
AGAIN_SECONDS = "time/again_s"  # of epochs before it that were trained again
IN_EPOCH = "training or evaluating"  # what a trial does between two reports

BASELINE, REFERENCE, SEARCH, CONFIRM = "baseline", "reference", "search", "confirm"
TEACHER = "teacher"  # the stage before them, where losses are distilled
COMPLETED, STOPPED_EARLY, FAILED = "completed", "stopped_early", "failed"

CE = "ce"  # the family of the neutral loss, and the name of its preset

# Gains are relative to tuned cross entropy; the default one has the task's own optimiser.
TUNED_CE, DEFAULT_CE = "tuned cross entropy", "default cross entropy"

CHECKPOINTS = "checkpoints"  # the folder of checkpoints in a study's folder
TRIALS = "trials"  # that of what trainings of the user's own write
WEIGHTS = "weights"  # that of confirmed trainings' weights
EXPORTS = "exports"  # that of the best configs

RANDOM, GRID = "random", "grid"

MOST_RANKS = 64  # processes that share a trial's batches
FRACTIONS = ("miou", "macc", "acc", "iou", "recall", "precision", "dice", "mdice", "mprec", "fwiou")


def is_fraction(name: str) -> bool:
    """Whether a metric of this name is a fraction of pixels, in 0..1."""
    split, *parts = name.split("/")
    return split in (VAL, TEST) and any(part in FRACTIONS for part in parts)
