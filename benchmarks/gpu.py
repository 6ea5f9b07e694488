"""Everything that waits for an NVIDIA GPU, in one command of at most ten minutes.

    python -m benchmarks.gpu [--device cuda|cpu] [--only LINE ...]

Prints a line for each check: pass, fail or skipped, its seconds and its figures. Exit code 1 if a
line fails. Each runs in a process of its own with a limit of time, so that a fault, a crash or a
hang of one ends no other. `--device cpu` is a dry form of the command with tiny sizes: lines that
need CUDA are skipped, with the reason.

Limits that a line can miss, and why they are where they are:

    precision    The same trained weights, evaluated in bf16 or fp16, have fp32's pixel accuracy
                 within 1 point: bf16 keeps 8 bits of a number, so only pixels can change whose two
                 best logits are about a hundredth apart. Trained in it, the loss is finite and
                 falls, and accuracy is no more than 5 points and twice the difference of two
                 fp32 seeds below fp32's: rounding changes a training as another seed does.
    determinism  `deterministic: true` twice: all numbers and weights equal to the last bit.
    prefetch     Between an epoch's first step and its last, nothing makes the host wait
                 (`torch.cuda.set_sync_debug_mode`); with the copy stream and without, all equal.
    resume       As determinism, with a checkpoint in between.
    losses       Values and gradients are finite. No speed on a GPU is promised.
    rules        None: what counting the decision rules takes of an evaluation.
    memory       Two processes with half of the memory each get an out-of-memory fault before they
                 reserve more than that, as a trial's process reports it.
    sharing      One training at least is measured.
    ranks        The mean training loss of the first epoch within 2 % of one process: on CamVid's
                 first 71 steps float32 rounding alone made 0.6 % (docs/log.md).
"""

from __future__ import annotations

import argparse
import importlib
import math
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import losses
from study.config.task import TrialConfig
from study.core.names import TRAIN_LOSS, VAL
from study.data import SegmentationData, open_data
from study.metrics.curve import NUM_TAUS, CurveCounter
from study.scheduler.retries import GPU_MEMORY
from study.training import trainer
from study.training.batches import Batches
from study.training.environment import set_up_process
from study.training.sharing import LOSS
from study.training.trainer import _Training, train

ROOT = Path(__file__).parents[1]
PASS, FAIL, SKIPPED = "pass", "fail", "skipped"
NEEDS_CUDA = "it needs CUDA"
# Imported once, before the lines' processes: what their trainings need.
PRELOADED = ("segmentation_models_pytorch", "timm")
TESTS = (
    "tests/losses/test_device.py",
    "tests/training/test_batches.py",
    "tests/training/test_trainer.py",
)
OF_CUDA = "cuda or on_a_gpu"  # the tests there that are skipped without CUDA
SAME_WEIGHTS, TRAINED = 0.01, 0.05  # of pixel accuracy
OF_RANKS = 0.02  # of the loss


class Skip(Exception):
    """A line cannot be run here; its text says why."""


class Miss(Exception):
    """A line has missed its limit; its text says by what figures."""


@dataclass(frozen=True)
class Setting:
    """Where the lines run, and on how much.

    Attributes:
        device: "cuda" or "cpu".
        task: of the trainings.
        epochs: of each.
        shape: (B, C, H, W), of the losses' logits.
        rounds: of what is interleaved.
    """

    device: str
    task: Mapping[str, Any]
    epochs: int
    shape: losses.Shape
    rounds: int

    @property
    def is_cuda(self) -> bool:
        """Whether it runs on the device that the lines are for."""
        return self.device == "cuda"

    def config(self, *, loss: Any = LOSS, seed: int = 0, **task: Any) -> TrialConfig:
        """A trial, with parts of its task replaced."""
        budget = {"epochs": self.epochs}
        changed = {**self.task, "budget": budget, **task}
        return TrialConfig.model_validate({"task": changed, "loss": loss, "seed": seed})

    def data(self) -> SegmentationData:
        """The data of its trials."""
        return open_data(self.config().trained_here.data)

    def training(
        self, config: TrialConfig, on_step: Callable[[], object] | None = None
    ) -> _Training:
        """A training that has not begun."""
        beat = on_step or (lambda: None)
        return _Training(config, self.data(), torch.device(self.device), beat)


def _task(size: tuple[int, int], images: int, batch_size: int, model: Any) -> dict[str, Any]:
    data = {"num_train": images, "num_val": images // 3, "num_test": 4}
    return {
        "data": {"format": "synthetic", "size": list(size), **data},
        "augment": {"flip": 0.5, "scale": [0.8, 1.25], "jitter": 0.1},
        "model": model,
        "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-4},
        "batch_size": batch_size,
    }


SMALL_MODEL = {
    "arch": "unet",
    "encoder": "tu-mobilenetv3_small_050",
    "kwargs": {"encoder_depth": 3, "decoder_channels": [24, 16, 16]},
}
SETTINGS = {
    "cuda": Setting(
        "cuda",
        _task((256, 512), 120, 8, {"arch": "unet", "encoder": "resnet18"}),
        epochs=6,
        shape=(8, 19, 512, 512),
        rounds=11,
    ),
    "cpu": Setting(
        "cpu", _task((32, 48), 24, 4, SMALL_MODEL), epochs=2, shape=(1, 4, 24, 32), rounds=1
    ),
}


# --- the lines ----------------------------------------------------------------------------------


def device(setting: Setting) -> str:
    """What the figures are of."""
    if not setting.is_cuda:
        return f"cpu, torch {torch.__version__}: a dry form, whose figures say nothing"
    if not torch.cuda.is_available():
        raise Miss("torch finds no CUDA device")
    count = torch.cuda.device_count()
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    return (
        f"{count} x {torch.cuda.get_device_name(0)}, {total:.0f} GiB, torch {torch.__version__}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


def tests(setting: Setting) -> str:
    """The tests that are skipped without CUDA."""
    _needs_cuda(setting)
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*pytest, "-k", OF_CUDA, *TESTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = (run.stdout.strip().splitlines() or [run.stderr[-200:]])[-1]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped)", last)}
    if run.returncode or counts.get("skipped") or not counts.get("passed"):
        failed = re.findall(r"^FAILED (\S+)", run.stdout, re.MULTILINE)
        raise Miss(f"{last} {' '.join(failed[:5])}")
    return last


def precision(setting: Setting) -> str:
    """Trainings in each precision, and one network evaluated in each."""
    if setting.is_cuda:
        in_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        others = ["bf16"] * in_bf16 + ["fp16"]
    else:
        others = ["bf16"]
    fp32, other_seed = (
        _trained(setting, setting.config(loss={}, precision="fp32", seed=seed)) for seed in (0, 1)
    )
    spread = abs(fp32.accuracy - other_seed.accuracy)
    figures = [f"fp32 {fp32.text}, another seed {other_seed.accuracy:.3f}"]
    missed = [] if fp32.learns else ["fp32 does not learn"]
    for name in others:
        config = setting.config(loss={}, precision=name)
        there = setting.training(config)
        there.model.load_state_dict(fp32.training.model.state_dict())
        same = there.evaluate([VAL], last=False)[0]["val/acc"]
        trained = _trained(setting, config)
        figures.append(f"{name} {trained.text}, fp32's weights {same:.4f}")
        if abs(same - fp32.accuracy) > SAME_WEIGHTS:
            missed.append(f"{name} evaluates otherwise")
        if not trained.learns or trained.accuracy < fp32.accuracy - TRAINED - 2 * spread:
            missed.append(f"{name} learns less")
    return _judged("; ".join(figures), missed)


@dataclass(frozen=True)
class _Trained:
    training: _Training
    losses: list[float]
    accuracy: float

    @property
    def learns(self) -> bool:
        return all(map(math.isfinite, self.losses)) and self.losses[-1] < self.losses[0]

    @property
    def text(self) -> str:
        return f"loss {self.losses[0]:.3f} to {self.losses[-1]:.3f}, accuracy {self.accuracy:.4f}"


def _trained(setting: Setting, config: TrialConfig) -> _Trained:
    training = setting.training(config)
    means = [training.train_epoch()[TRAIN_LOSS] for _ in range(setting.epochs)]
    measured, _ = training.evaluate([VAL], last=False)
    return _Trained(training, means, measured["val/acc"])


def determinism(setting: Setting) -> str:
    """Two trainings with `deterministic: true`, and two without, one after another in turns."""
    found: dict[bool, list[Any]] = {True: [], False: []}
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for only in (True, False) * 2:
        training = setting.training(setting.config(deterministic=only))
        reports = []
        for _ in range(setting.epochs):
            metrics = training.train_epoch()
            speeds[only].append(metrics.pop("time/images_per_s"))
            reports.append(metrics | training.evaluate([VAL], last=False)[0])
            if len(reports) == 1:
                speeds[only].pop()  # of the first epoch
        found[only].append((reports, _weights(training)))
    equal = {only: _equal(*both) for only, both in found.items()}
    cost = statistics.median(speeds[False]) / statistics.median(speeds[True])
    without = "equal, too" if equal[False] else "not equal"
    figures = (
        f"with: {'equal' if equal[True] else 'NOT equal'}; without: {without}; images/s without / "
        f"with {cost:.3f} (medians of {len(speeds[True])} epochs each)"
    )
    return _judged(figures, [] if equal[True] else ["two trainings differ"])


def _weights(training: _Training) -> list[torch.Tensor]:
    return [each.detach().cpu().clone() for each in training.model.state_dict().values()]


def _equal(one: Any, other: Any) -> bool:
    """Whether reports and weights are equal; a NaN is equal to itself."""
    return repr(one[0]) == repr(other[0]) and all(map(torch.equal, one[1], other[1]))


def prefetch(setting: Setting) -> str:
    """An epoch that may not wait for the device, and one without the stream of copies."""
    _needs_cuda(setting)
    config = setting.config(deterministic=True)
    calls = 0

    def on_step() -> None:
        nonlocal calls
        calls += 1
        if calls == steps + 3:  # a call before each epoch, then one after each step
            torch.cuda.set_sync_debug_mode("error")
        elif calls == 2 * steps + 2:
            torch.cuda.set_sync_debug_mode("default")

    training = setting.training(config, on_step)
    steps = training.order.steps_per_pass
    reports = [training.train_epoch() for _ in range(2)]
    ahead = (reports, _weights(training))

    class WithoutStream(Batches):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.reads_ahead, self._copies = False, None

    with mock.patch.object(trainer, "Batches", WithoutStream):
        plain = setting.training(config)
    without = [plain.train_epoch() for _ in range(2)]
    speeds = [each[-1]["time/images_per_s"] for each in (reports, without)]
    for each in (*reports, *without):
        del each["time/images_per_s"]
    figures = (
        f"{steps - 1} steps without a wait; images/s with the stream / without "
        f"{speeds[0] / speeds[1]:.2f}"
    )
    same = _equal(ahead, (without, _weights(plain)))
    return _judged(figures, [] if same else ["other numbers without the stream of copies"])


def resume(setting: Setting) -> str:
    """A training that goes on from its first epoch."""
    config, data = setting.config(deterministic=True, budget={"epochs": 3}), setting.data()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        whole = []
        for report in train(config, data=data, device=setting.device):
            whole.append(_timeless(report.metrics))
            if report.epoch == 1:
                report.save(file)
        rest = [
            _timeless(report.metrics)
            for report in train(config, data=data, device=setting.device, resume_from=file)
        ]
    differ = [
        key
        for one, other in zip(rest, whole[1:], strict=True)
        for key in other
        if repr(one.get(key)) != repr(other[key])
    ]
    figures = f"{len(rest)} epochs, {len(rest[0])} numbers each"
    return _judged(figures, [f"they differ: {', '.join(differ[:5])}"] if differ else [])


def _timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def loss_speeds(setting: Setting) -> str:
    """Every axis beside torch's cross entropy, in one run."""
    where = torch.device(setting.device)
    ours = losses.ours(setting.shape)
    figures: list[str] = []
    missed: list[str] = []
    for kind in losses.LOGITS:
        logits, target = losses.make_batch(setting.shape, kind, 0.05, where)
        steps = {name: losses.step(loss, logits, target) for name, loss in ours.items()}
        times = losses.interleaved(steps, setting.rounds, where)
        ratios = [
            f"{name} {losses.ratios(times, name, losses.REFERENCE)[1]:.2f}"
            for name in ours
            if name != losses.REFERENCE
        ]
        figures.append(f"{kind}: {', '.join(ratios)}")
        for name, loss in ours.items():
            (gradient,) = torch.autograd.grad(loss(logits, target), logits)
            if not bool(torch.isfinite(gradient).all()):
                missed.append(f"{name} is not finite on {kind} logits")
    return _judged(f"median / cross entropy's, {setting.shape}, {'; '.join(figures)}", missed)


def rules(setting: Setting) -> str:
    """Evaluations with and without the count at the decision rules, in turns."""
    training = setting.training(setting.config())
    seconds: dict[bool, list[float]] = {True: [], False: []}

    def nothing(_: CurveCounter, logits: torch.Tensor, *__: Any) -> torch.Tensor:
        classes = logits.shape[1]
        return torch.zeros(
            (len(logits), NUM_TAUS, classes, classes), dtype=torch.int64, device=logits.device
        )

    counts = {True: CurveCounter.count, False: nothing}
    for kept in (True, False) * (setting.rounds + 1):
        with mock.patch.object(CurveCounter, "count", counts[kept]):
            begun = time.perf_counter()
            training.evaluate([VAL], last=False)
            seconds[kept].append(time.perf_counter() - begun)
    whole, rest = (statistics.median(seconds[kept][1:]) for kept in (True, False))
    return f"{100 * (1 - rest / whole):.1f} % of an evaluation, by {setting.rounds} rounds"


def memory(setting: Setting) -> str:
    """Two trials with half a GPU each, which fill it."""
    _needs_cuda(setting)
    fork = multiprocessing.get_context("fork")
    both = fork.Barrier(2)
    pipes = [fork.Pipe(duplex=False) for _ in range(2)]
    config = setting.config(budget={"epochs": 1}).model_dump(mode="json")
    for _, there in pipes:
        fork.Process(target=_fill, args=[config, both, there], daemon=True).start()
    found = [here.recv() for here, _ in pipes]
    figures = ", ".join(f"{used:.3f} of the memory: {cause}" for used, cause, _ in found)
    missed = [
        reason for used, cause, reason in found if not 0.4 <= used <= 0.5 or cause != GPU_MEMORY
    ]
    return _judged(figures, missed)


def _fill(config: Mapping[str, Any], both: Any, there: Connection) -> None:
    """A trial's process as the engine runs it, whose training asks for all of the GPU."""
    from study.engine import spot, worker
    from study.engine.messages import FaultMessage, TrialOrder, WorkerSettings

    said: list[Any] = []
    used = 0.0

    def training(*_: Any) -> None:
        nonlocal used
        total = torch.cuda.get_device_properties(0).total_memory
        held = [torch.empty(int(0.4 * total), dtype=torch.uint8, device="cuda")]
        both.wait()
        try:
            while True:
                held.append(torch.empty(total // 100, dtype=torch.uint8, device="cuda"))
        finally:
            used = torch.cuda.max_memory_reserved() / total
            both.wait()

    settings = WorkerSettings("", None, 1, (), False, False, beat_s=60.0)
    with (
        mock.patch.multiple(worker, _send=said.append, _train=training),
        mock.patch.object(spot, "leave_if_drained"),
    ):
        worker._run(TrialOrder("trial", config, "search", 0.5, 0, 0, settings))
    last = said[-1]
    cause = last.cause if isinstance(last, FaultMessage) else type(last).__name__
    there.send((used, cause, str(getattr(last, "reason", last))[:200]))


def sharing(setting: Setting) -> str:
    """What `--gpus-per-trial auto` measures and decides on this device."""
    from study.engine.sharing import found_here
    from study.scheduler.sharing import Room, find_share
    from study.training.sharing import NotMeasured, Reading, measure

    task = setting.config().trained_here
    if setting.is_cuda:
        cpus = len(os.sched_getaffinity(0)) / torch.cuda.device_count()
        share = found_here(task, Room(max(2, int(cpus))), cpus, None, 80.0, "cuda")
    else:

        def one(trainings: int) -> Reading:
            if trainings > 1:
                raise NotMeasured("the dry form measures one")
            until = time.monotonic() + 400.0
            return measure(task, 1, device="cpu", num_threads=1, until=until, seconds=0.1, steps=1)

        share = find_share(one, Room(3))
    measured = "images/s for one trial" in share.text
    return _judged(share.text, [] if measured else ["nothing was measured"])


def ranks(setting: Setting) -> str:
    """Two ranks against one process."""
    if setting.is_cuda and torch.cuda.device_count() < 2:
        raise Skip(f"it needs two GPUs, and there is {torch.cuda.device_count()}")
    data, config = setting.data(), setting.config(budget={"epochs": 2})
    one, two = (
        [report.metrics for report in train(config, data=data, device=setting.device, ranks=count)]
        for count in (1, 2)
    )
    first = two[0][TRAIN_LOSS] / one[0][TRAIN_LOSS] - 1
    accuracies = " and ".join(f"{each[-1]['val/acc']:.4f}" for each in (one, two))
    speed = two[-1]["time/images_per_s"] / one[-1]["time/images_per_s"]
    figures = (
        f"loss of the first epoch {100 * first:+.3f} %, accuracy {accuracies}, images/s of two / "
        f"one {speed:.2f}, by {'NCCL' if setting.is_cuda else 'Gloo'}"
    )
    return _judged(figures, [] if abs(first) <= OF_RANKS else ["two ranks learn otherwise"])


def _needs_cuda(setting: Setting) -> None:
    if not setting.is_cuda:
        raise Skip(NEEDS_CUDA)


def _judged(figures: str, missed: Sequence[str]) -> str:
    if missed:
        raise Miss(f"{'; '.join(missed)} ({figures})")
    return figures


@dataclass(frozen=True)
class Line:
    """A check and the seconds that it may take."""

    run: Callable[[Setting], str]
    limit: float


LINES: dict[str, Line] = {
    "device": Line(device, 20),
    "tests": Line(tests, 140),
    "precision": Line(precision, 60),
    "determinism": Line(determinism, 60),
    "prefetch": Line(prefetch, 40),
    "resume": Line(resume, 30),
    "losses": Line(loss_speeds, 40),
    "rules": Line(rules, 30),
    "memory": Line(memory, 30),
    "sharing": Line(sharing, 90),
    "ranks": Line(ranks, 40),
}
DRY_PATIENCE = 10.0  # times as long, where only the command itself is tried


# --- the command --------------------------------------------------------------------------------


def _work(run: Callable[[], str], there: Connection) -> None:
    """In the line's process: run it, and send how it has ended."""
    os.setsid()
    os.dup2(2, 1)  # what it prints is no line
    try:
        set_up_process(1)
        there.send((PASS, run()))
    except Skip as why:
        there.send((SKIPPED, str(why)))
    except BaseException as error:
        kind = "" if isinstance(error, Miss) else f"{type(error).__name__}: "
        there.send((FAIL, f"{kind}{error}"))
    finally:
        there.close()
        os._exit(0)


def outcome(line: Line, setting: Setting, limit: float) -> tuple[str, str]:
    """Run a line in a process of its own: how it has ended, and its figures."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=[partial(line.run, setting), there])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks while threads sleep
        process.start()
    there.close()
    try:
        if not here.poll(limit):
            return FAIL, f"it took more than {limit:g} s"
        found: tuple[str, str] = here.recv()
        return found
    except EOFError:
        process.join()
        return FAIL, f"its process ended with exit code {process.exitcode}"
    finally:
        assert process.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lines; returns 1 if one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=SETTINGS, default="cuda")
    parser.add_argument("--only", nargs="+", choices=LINES, metavar="LINE", default=[*LINES])
    options = parser.parse_args(argv)
    setting = SETTINGS[options.device]
    for module in PRELOADED:
        importlib.import_module(module)
    counts = {PASS: 0, FAIL: 0, SKIPPED: 0}
    there = True
    for name in options.only:
        begun = time.monotonic()
        limit = LINES[name].limit * (1.0 if setting.is_cuda else DRY_PATIENCE)
        status, text = SKIPPED, "there is no device"
        if there:
            status, text = outcome(LINES[name], setting, limit)
        there = there and (name != "device" or status == PASS)
        counts[status] += 1
        seconds = time.monotonic() - begun
        shown = " ".join(text.split())
        print(f"{status:<8}{name:<12}{seconds:5.0f} s  {shown}", flush=True)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts[FAIL] else 0


if __name__ == "__main__":
    sys.exit(main())
