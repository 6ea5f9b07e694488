"""Key strings that cross a border between packages: each is written here once."""

from __future__ import annotations

VAL, TEST, TRAIN = "val", "test", "train"
MIOU, MACC = "miou", "macc"
VAL_MIOU, VAL_MACC = f"{VAL}/{MIOU}", f"{VAL}/{MACC}"
TEST_MIOU, TEST_MACC = f"{TEST}/{MIOU}", f"{TEST}/{MACC}"
TRAIN_LOSS = f"{TRAIN}/loss"
LR_SCALE = "optimizer/lr_scale"

BASELINE, REFERENCE, SEARCH, CONFIRM = "baseline", "reference", "search", "confirm"
COMPLETED, STOPPED_EARLY, FAILED = "completed", "stopped_early", "failed"

# What every gain is taken to.
TUNED, STATED = "tuned cross entropy", "cross entropy as the task states it"

TPE, RANDOM, GRID = "tpe", "random", "grid"
