"""What a loss costs where it is used: in a network's training step, and in a compiled one.

    python -m benchmarks.losses_in_training [--shape B C H W] [--runs 15]
    python -m benchmarks.losses_in_training --compile [--shape B C H W] [--runs 15]

The first is the training step of a DeepLabV3+ with a ResNet-18 (random weights, float32, SGD,
logits of the input's size) with four axes at once over the same step with torch's cross entropy.

The second is the loss and its gradient by the logits under `torch.compile` with its default
backend, over cross entropy compiled in the same way, and over cross entropy in eager mode; with the
seconds that the first call took. It needs a C++ compiler.

One CPU thread, or CUDA where there is a device; interleaved as in `benchmarks.losses`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Callable

import torch

from benchmarks.losses import (
    AXES,
    COMPOSITE,
    LOGITS,
    REFERENCE,
    Loss,
    Shape,
    cross_entropy,
    interleaved,
    make_batch,
    ratios,
)
from study.losses import build_loss
from study.training.environment import environment, set_up_process

SHAPE: Shape = (4, 19, 256, 256)
TARGET = 1.03
COMPILED = (REFERENCE, "neutral", "recall", "Jaccard", "loss max-pooling", COMPOSITE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=4, metavar=("B", "C", "H", "W"), default=SHAPE)
    parser.add_argument("--ignored", type=float, default=0.05, help="share of ignored pixels")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="measure compiled losses")
    options = parser.parse_args()
    set_up_process(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = environment(device=device, num_threads=1)
    print(
        f"{here['device_name']}, {tuple(options.shape)}, {datetime.date.today()}, commit "
        f"{here['commit']}, torch {here['versions']['torch']}; {options.runs} interleaved runs, "
        f"{options.ignored:.0%} ignored pixels, load {os.getloadavg()[0]:.1f} at the start.\n"
    )
    (_compiled if options.compile else _in_training)(options, device)


def _loss(name: str, num_classes: int) -> Loss:
    if name == REFERENCE:
        return cross_entropy
    counts = torch.arange(num_classes, 0, -1)
    return build_loss(AXES[name].config, num_classes=num_classes, class_counts=counts)


def _in_training(options: argparse.Namespace, device: torch.device) -> None:
    names = (REFERENCE, COMPOSITE)
    steps = {name: _training_step(name, options, device) for name in names}
    times = interleaved(steps, options.runs, device)
    best, median = ratios(times, COMPOSITE, REFERENCE)
    print(
        f"DeepLabV3+ ResNet-18, training step with {COMPOSITE} / with {REFERENCE}:\n"
        f"best {best:.3f}, median {median:.3f}, target {TARGET:g}"
    )


def _training_step(
    name: str, options: argparse.Namespace, device: torch.device
) -> Callable[[], None]:
    from segmentation_models_pytorch import DeepLabV3Plus

    torch.manual_seed(0)
    batch, classes, height, width = options.shape
    model = DeepLabV3Plus("resnet18", encoder_weights=None, classes=classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    images = torch.randn(batch, 3, height, width, device=device)
    target = make_batch(tuple(options.shape), LOGITS[0], options.ignored, device)[1]
    loss = _loss(name, classes)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(images), target).backward()
        optimizer.step()

    return step


def _compiled(options: argparse.Namespace, device: torch.device) -> None:
    print(
        f"| compiled loss | / compiled {REFERENCE}: best | median | / eager {REFERENCE}: best "
        "| median | first call, s |\n|---|---|---|---|---|---|"
    )
    shape: Shape = tuple(options.shape)
    logits, target = make_batch(shape, LOGITS[0], options.ignored, device)
    losses = {name: _loss(name, shape[1]) for name in COMPILED}
    eager = f"{REFERENCE}, eager"

    def gradient(loss: Loss) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(logits, target), logits)

    steps, first = {eager: gradient(cross_entropy)}, {}
    for name, loss in losses.items():
        steps[name] = gradient(torch.compile(loss, fullgraph=True))
        start = time.perf_counter()
        steps[name]()
        first[name] = time.perf_counter() - start
    times = interleaved(steps, options.runs, device)
    for name in losses:
        cells = [*ratios(times, name, REFERENCE), *ratios(times, name, eager)]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {first[name]:.1f} |")


if __name__ == "__main__":
    main()
