"""Key strings that cross a border between packages: each is written here once."""

from __future__ import annotations

VAL, TEST, TRAIN = "val", "test", "train"
MIOU, MACC = "miou", "macc"
VAL_MIOU, VAL_MACC = f"{VAL}/{MIOU}", f"{VAL}/{MACC}"
TEST_MIOU, TEST_MACC = f"{TEST}/{MIOU}", f"{TEST}/{MACC}"
TRAIN_LOSS = f"{TRAIN}/loss"

BASELINE, REFERENCE, SEARCH, CONFIRM = "baseline", "reference", "search", "confirm"
COMPLETED, STOPPED_EARLY, FAILED = "completed", "stopped_early", "failed"

CE = "ce"  # the family of the neutral loss, and the name of its preset

# What every gain is taken to; the default is at the task's own optimiser settings.
TUNED_CE, DEFAULT_CE = "tuned cross entropy", "default cross entropy"

CHECKPOINTS = "checkpoints"  # the folder, below a study's, of what its trials go on from

RANDOM, GRID = "random", "grid"
