"""A training script that somebody has written, run as a command by the tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

mode, loss_file, folder, stop_file, test, epochs = sys.argv[1:]
tree = yaml.safe_load(Path(loss_file).read_text())
if mode == "ignores":
    tree = {}
if mode == "crashes":
    raise KeyError("no such thing")
if mode == "memory":
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", flush=True)
    sys.exit(1)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

if mode == "plain":
    import torch

    from study.losses import build_loss

    loss = build_loss(tree, num_classes=2)
    loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
elif mode != "silent":  # as the loss does, without the seconds that torch takes to be imported
    from study.losses.config import LossConfig
    from study.losses.digest import echo, loss_digest

    echo(loss_digest(LossConfig.model_validate(tree)))
if mode == "removes":
    shutil.rmtree(folder)
    time.sleep(60)
print("epoch 1 begins, and this is { no report }")
rows = ["epoch, seg(mIoU), other"]
for epoch in range(1, int(epochs) + 1):
    report: dict[str, object] = {"epoch": epoch, "val/miou": epoch / 10}
    if mode == "tuned":
        report["val/miou"] = (tree["jaccard"]["mix"] + epoch) / 10
    if test == "1":
        report["test/miou"] = epoch / 10
    if mode == "nan":
        report["val/miou"] = float("nan")
    if mode == "words":
        report["val/miou"] = "high"
    if mode == "percent":
        report["val/miou"] = 10.0 * epoch
    if mode == "zero":
        report["epoch"] = epoch - 1
    if mode == "lines":
        with open("metrics.jsonl", "a") as file:
            file.write(json.dumps(report) + "\n")
    elif mode == "csv":
        rows.append(f"{epoch}, {epoch / 10}, 1")
        Path("results.csv").write_text("\n".join(rows) + "\n")
    else:
        print(json.dumps(report))
    if mode == "saves" and epoch == int(epochs):
        time.sleep(1)  # longer than the grace
        Path("saved").touch()
    if mode == "early" and epoch == 2:
        sys.exit(0)
    if mode == "exit" and epoch == 2:
        print("bye", file=sys.stderr)
        sys.exit(3)
    if mode == "child" and epoch == 2:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path("child.pid").write_text(str(child.pid))
    if mode in ("waits", "deaf") and epoch == 2:
        Path("script.pid").write_text(str(os.getpid()))
        while mode == "deaf" or not Path(stop_file).exists():
            time.sleep(0.02)
        Path("stopped").touch()
        sys.exit(0)
