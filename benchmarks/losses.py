"""What a loss costs: forward and backward, as a ratio to torch's cross entropy on the same tensors.

    python -m benchmarks.losses [--shape B C H W] [--ignored 0.05] [--runs 21] [--out FILE.md]

Prints Markdown: every axis alone and four at once, soft labels, then the losses of
segmentation-models-pytorch beside ours, on the CPU and on CUDA where there is a device. A run is
one loss and its gradient by the logits, float32, eager. Each round runs every loss once in an order
of its own, so that all see the same machine; best / best and median / median over the rounds.
Labels are uniform; logits are standard normal ("random"), or have 9 added at the label of 90 % of
the pixels ("trained-like").
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from study.losses import PRESETS, build_loss
from study.training.environment import environment, set_up_process

Loss = Callable[[Tensor, Tensor], Tensor]
Shape = tuple[int, int, int, int]
Times = Mapping[str, list[float]]

SHAPES: dict[str, list[Shape]] = {
    "cpu": [(4, 19, 256, 256)],
    "cuda": [(8, 19, 512, 512), (4, 150, 512, 512)],
}
IGNORE_INDEX = 255
LOGITS = ("random", "trained-like")
REFERENCE = "torch cross entropy"
COMPOSITE = "class weights + recall + max-pooling + Jaccard"
MEMORY_TARGET = 1.5
WARM_UP = 2


@dataclass(frozen=True)
class Axis:
    """A loss and what it may cost on one CPU thread, on random and on trained-like logits."""

    config: dict[str, Any]
    targets: tuple[float, float] | None  # None: shown for information


@dataclass(frozen=True)
class Peer:
    """Somebody else's loss, and ours that comes nearest to it."""

    loss: Loss
    ours: dict[str, Any]
    same_quantity: bool


INVERSE_FREQUENCY = {"scheme": "inverse_frequency", "exponent": 0.5}
AXES: dict[str, Axis] = {
    "neutral": Axis({}, (1.05, 1.05)),
    "class weights": Axis({"class_weights": INVERSE_FREQUENCY}, (1.15, 1.15)),
    "focal": Axis({"focal_gamma": 2.0}, (1.2, 1.2)),
    "label smoothing": Axis({"label_smoothing": 0.1}, (1.3, 1.3)),
    "OHEM": Axis({"pooling": {"kind": "ohem"}}, (1.4, 1.4)),
    "recall": Axis({"recall": {"ema_momentum": 0.9}}, (1.5, 1.5)),
    "Jaccard": Axis({"jaccard": {"mix": 0.5}}, (1.5, 1.5)),
    "loss max-pooling": Axis({"pooling": {"kind": "max"}}, (1.5, 1.8)),
    "loss max-pooling, p 1.05": Axis({"pooling": {"kind": "max", "p": 1.05}}, None),
    COMPOSITE: Axis(
        {
            "class_weights": INVERSE_FREQUENCY,
            "recall": {"ema_momentum": 0.9},
            "pooling": {"kind": "max"},
            "jaccard": {"mix": 0.5},
        },
        (2.25, 2.6),
    ),
}

TORCH_SOFT = "torch cross entropy of soft labels"
SOFT: dict[str, Axis] = {
    "soft labels": Axis({}, None),
    "soft labels, Jaccard": Axis({"jaccard": {"mix": 0.5}}, (2.5, 2.5)),
    "jml_soft": Axis(PRESETS["jml_soft"].config, (2.0, 2.0)),
    "jml_bls": Axis(PRESETS["jml_bls"].config, (2.0, 2.0)),
}
"""What is a distribution at each pixel; the presets smooth hard labels."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=4, metavar=("B", "C", "H", "W"))
    parser.add_argument("--ignored", type=float, default=0.0, help="share of ignored pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--out", type=Path, help="also write the Markdown there")
    options = parser.parse_args()
    set_up_process(options.threads)
    parts = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for shape in [tuple(options.shape)] if options.shape else SHAPES[device]:
            parts.append(_report(torch.device(device), shape, options))
            print(parts[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(parts), encoding="utf-8")


# --- what is measured ---------------------------------------------------------------------------


def _report(device: torch.device, shape: Shape, options: argparse.Namespace) -> str:
    load = os.getloadavg()[0]
    peers = _peers(shape, options.ignored)
    losses: dict[str, Loss] = ours(shape)
    for name, peer in peers.items():
        losses[name] = peer.loss
        losses[_beside(name)] = build_loss(peer.ours, num_classes=shape[1])
    soft = make_soft(shape, device)
    for name, axis in SOFT.items():
        loss = build_loss(axis.config, num_classes=shape[1])
        losses[name] = _on_soft(loss, soft) if name.startswith("soft") else loss
    losses[TORCH_SOFT] = _on_soft(functional.cross_entropy, soft)
    measured: list[Times] = []
    values: dict[str, float] = {}
    for kind in LOGITS:
        logits, target = make_batch(shape, kind, options.ignored, device)
        steps = {name: step(loss, logits, target) for name, loss in losses.items()}
        measured.append(interleaved(steps, options.runs, device))
        if kind == LOGITS[0]:
            values = {name: float(loss(logits.detach(), target)) for name, loss in losses.items()}
    targets = device.type == "cpu" and options.threads == 1
    lines = [
        *_heading(device, shape, options, load),
        *_axes_table(measured, AXES, with_targets=targets),
        "",
        *_axes_table(measured, {TORCH_SOFT: Axis({}, None), **SOFT}, with_targets=targets),
        "",
        *_peers_table(measured, peers, values),
        "",
        _memory_line(device, shape, options.ignored),
        "",
    ]
    return "\n".join(lines)


def _beside(peer: str) -> str:
    """Name of our loss that is compared with a peer."""
    return f"{peer}, ours"


def ours(shape: Shape) -> dict[str, Loss]:
    """Torch's cross entropy, and a loss for each axis, for logits of this shape."""
    counts = torch.arange(shape[1], 0, -1)
    return {
        REFERENCE: cross_entropy,
        **{
            name: build_loss(axis.config, num_classes=shape[1], class_counts=counts)
            for name, axis in AXES.items()
        },
    }


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, ignore_index=IGNORE_INDEX)


def _peers(shape: Shape, ignored: float) -> dict[str, Peer]:
    """Losses of segmentation-models-pytorch, with no smoothing in either of two that are compared.

    Its FocalLoss asks each class apart, with a sigmoid; the function of the same name with a
    softmax is ours, but knows no ignored pixels. Its Lovasz loss is another surrogate of the IoU.
    """
    from segmentation_models_pytorch import losses
    from segmentation_models_pytorch.losses import _functional

    jaccard = {"jaccard": {"mix": 1.0, "smooth": 0.0}}
    dice = {"jaccard": {"mix": 1.0, "smooth": 0.0, "alpha": 0.5, "beta": 0.5}}
    focal = {"focal_gamma": 2.0}
    known = {"mode": "multiclass", "ignore_index": IGNORE_INDEX}
    peers = {
        "JaccardLoss": Peer(losses.JaccardLoss(**known), jaccard, True),
        "DiceLoss": Peer(losses.DiceLoss(**known), dice, True),
        "LovaszLoss": Peer(losses.LovaszLoss(**known), jaccard, False),
        "FocalLoss": Peer(losses.FocalLoss(gamma=2.0, **known), focal, False),
    }
    if ignored == 0:
        softmax_focal = _functional.softmax_focal_loss_with_logits
        peers["softmax_focal_loss_with_logits"] = Peer(softmax_focal, focal, True)
    return peers


def make_batch(
    shape: Shape, kind: str, ignored: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits that want a gradient and labels, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    batch, classes, height, width = shape
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(classes, (batch, height, width), generator=generator)
    if kind == "trained-like":
        right = torch.rand(target.shape, generator=generator) < 0.9
        logits.scatter_add_(1, target[:, None], 9.0 * right[:, None])
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits.to(device).requires_grad_(), target.to(device)


def make_soft(shape: Shape, device: torch.device) -> Tensor:
    """Label distributions, as a teacher gives them; no pixel is left out."""
    generator = torch.Generator().manual_seed(1)
    return torch.softmax(3 * torch.randn(shape, generator=generator), 1).to(device)


def _on_soft(loss: Loss, soft: Tensor) -> Loss:
    return lambda logits, target: loss(logits, soft)


def step(loss: Loss, logits: Tensor, target: Tensor) -> Callable[[], object]:
    """A run: the loss and its gradient."""
    # As inside a network, where logits are no leaf: nothing is accumulated into `.grad`.
    return lambda: torch.autograd.grad(loss(logits, target), logits)


def interleaved(
    steps: Mapping[str, Callable[[], object]], runs: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each run of each step."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in steps}
    names, shuffle = list(steps), random.Random(0).shuffle
    for round_ in range(WARM_UP + runs):
        shuffle(names)
        for name in names:
            synchronize()
            start = time.perf_counter()
            steps[name]()
            synchronize()
            if round_ >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


# --- memory -------------------------------------------------------------------------------------


def _memory_line(device: torch.device, shape: Shape, ignored: float) -> str:
    """Peak of one step beyond what it starts from, on random logits.

    CUDA: the allocator's own peak. CPU: the largest resident size of a fresh process (VmHWM), since
    Python's own tracing does not see torch's memory.
    """
    peak = _cuda_peak if device.type == "cuda" else _resident_peak
    composite, reference = (peak(name, shape, ignored) for name in (COMPOSITE, REFERENCE))
    if reference == 0:
        return "Peak extra memory: too small to see at this shape."
    ratio, inputs = composite / reference, 4 * torch.Size(shape).numel()
    how = "the allocator's" if device.type == "cuda" else "resident size of a fresh process"
    return (
        f"Bold: above the target. Peak extra memory of the four at once ({how}, random logits): "
        f"{_bold(ratio, MEMORY_TARGET)} x cross entropy's, target {MEMORY_TARGET:g}; "
        f"{composite / inputs:.2f} and {reference / inputs:.2f} times the logits."
    )


def _cuda_peak(name: str, shape: Shape, ignored: float) -> int:
    logits, target = make_batch(shape, LOGITS[0], ignored, torch.device("cuda"))
    run = step(ours(shape)[name], logits, target)
    run()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def _resident_peak(name: str, shape: Shape, ignored: float) -> int:
    # Every tensor of 64 KiB or more is then given back to the system when it is freed (glibc).
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_resident_peak_here, name, shape, ignored).result()


def _resident_peak_here(name: str, shape: Shape, ignored: float) -> int:
    torch.set_num_threads(1)
    small = (1, shape[1], 8, 8)
    step(ours(shape)[name], *make_batch(small, LOGITS[0], ignored, torch.device("cpu")))()
    run = step(ours(shape)[name], *make_batch(shape, LOGITS[0], ignored, torch.device("cpu")))
    # Lifts the resident size above whatever peak the imports left behind.
    ballast = torch.ones(1 << 27)
    before = _largest_resident_size()
    run()
    extra = _largest_resident_size() - before
    del ballast
    return extra


def _largest_resident_size() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no line VmHWM")


# --- Markdown -----------------------------------------------------------------------------------


def _heading(
    device: torch.device, shape: Shape, options: argparse.Namespace, load: float
) -> list[str]:
    here = environment(device=device, num_threads=options.threads)
    versions = here["versions"]
    threads = f", {options.threads} thread(s)" if device.type == "cpu" else ""
    return [
        f"### {here['device_name']}{threads}, {shape}",
        "",
        f"{datetime.date.today()}, commit {here['commit']}, torch {versions['torch']}, "
        f"segmentation-models-pytorch {versions['segmentation-models-pytorch']}; {options.runs} "
        f"interleaved runs, {options.ignored:.0%} ignored pixels, load {load:.1f} at the start.",
        "",
    ]


def _axes_table(
    measured: list[Times], axes: Mapping[str, Axis], *, with_targets: bool
) -> list[str]:
    lines = [
        f"| time / {REFERENCE} "
        + "".join(f"| {kind}: best | median | target " for kind in LOGITS)
        + "|",
        "|---" * (1 + 3 * len(LOGITS)) + "|",
    ]
    for name, axis in axes.items():
        cells = [name]
        for index, times in enumerate(measured):
            best, median = ratios(times, name, REFERENCE)
            target = axis.targets[index] if with_targets and axis.targets else None
            shown = f"{best:.2f}" if target is None else _bold(best, target)
            cells += [shown, f"{median:.2f}", "" if target is None else f"{target:g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _peers_table(
    measured: list[Times], peers: Mapping[str, Peer], values: Mapping[str, float]
) -> list[str]:
    lines = [
        "| time of theirs / ours | same quantity | value of theirs, ours "
        + "".join(f"| {kind}: best | median " for kind in LOGITS)
        + "|",
        "|---" * (3 + 2 * len(LOGITS)) + "|",
    ]
    for name, peer in peers.items():
        ours = _beside(name)
        value = f"{values[name]:.5f}, {values[ours]:.5f}"
        cells = [name, "yes" if peer.same_quantity else "no", value]
        for times in measured:
            cells += [f"{ratio:.1f}" for ratio in ratios(times, name, ours)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios(times: Times, name: str, other: str) -> tuple[float, float]:
    """Best over best, median over median."""
    return (
        min(times[name]) / min(times[other]),
        statistics.median(times[name]) / statistics.median(times[other]),
    )


def _bold(ratio: float, target: float) -> str:
    """Bold where it is above the target."""
    return f"**{ratio:.2f}**" if round(ratio, 2) > target else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
