"""`python -m study.train CONFIG.yaml`: train one config, and compare an export to its numbers.

CONFIG.yaml holds `task` (a mapping, a file or a shipped name), `loss`, `optimizer` and `seed`. An
export also holds `provenance`. The run then uses the recorded number of CPU threads and the
recorded precision. On an equal machine it must reproduce the recorded metrics, also those at the
tuned decision rules. A function (factory) that an export names is code, and is imported only with
--trust.

With --out, the command writes config.yaml, which is an export too, and its weights beside it in
config.safetensors. `study.metrics.build_decision` reads the decision rule of config.yaml. For a
distilled loss the folder also holds the teacher's weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.console import Parser, run_command, show
from study.core.errors import InputError, deed
from study.core.files import append_line, is_free, made_folder, write_text
from study.core.names import VAL, VAL_TUNED_MIOU

if TYPE_CHECKING:
    from study.config.task import TrialConfig
    from study.data import SegmentationData
    from study.training.config_file import ConfigFile
    from study.training.trainer import EpochReport

EXIT_MISMATCH = 1
WEIGHTS_FILE = "config.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, which is 1 if an export's metrics are not met."""
    parser = Parser("train", __doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="a config or an export")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    parser.add_argument(
        "--ranks",
        type=int,
        default=1,
        metavar="N",
        help="number of processes that split each batch. Each gets its own GPU, or on the CPU as "
        "many threads as a single process would (default: 1)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="use this seed instead of the file's")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="new or empty folder for config.yaml with its decision rule, config.safetensors (the "
        "weights), metrics.jsonl and checkpoint.pt. A training of your own runs in this folder",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="teacher of a distilled loss: an export, or the weights of the teacher that the "
        "config names",
    )
    parser.add_argument("--no-weights", action="store_true", help="do not write config.safetensors")
    parser.add_argument(
        "--trust", action="store_true", help="import the functions (code) that the export names"
    )
    return run_command(parser, _train, argv)


def _train(options: argparse.Namespace) -> int:
    if options.seed is not None and not 0 <= options.seed < 2**63:
        raise InputError(f"seed must be in [0, 2**63), got {options.seed}", key="--seed")
    from study.config.own_training import OwnTrainingTask
    from study.training.config_file import read_config

    read = read_config(options.config, seed=options.seed, trust=options.trust)
    config, provenance, in_its_file = read.config, read.provenance, read.in_its_file
    if options.out is not None and not is_free(options.out):
        raise InputError(f"out must be a new or empty folder, got {options.out}", key="--out")

    if isinstance(config.task, OwnTrainingTask):
        return _train_own(options, read)

    from study.data import data_faults, open_data
    from study.losses import family
    from study.training.environment import environment, resolve_device, set_up_process
    from study.training.models import check_task, task_warnings
    from study.training.ranks import check_ranks, device_of
    from study.training.teachers import open_teacher, teacher_of, with_teacher
    from study.training.trainer import Diverged, loss_for, train

    device = resolve_device(options.device)
    if provenance is not None:
        config = provenance.restore(config)
    task = config.trained_here
    num_threads = provenance.environment.num_threads if provenance is not None else None
    set_up_process(num_threads or _threads())
    begun = provenance is not None
    try:
        loss = with_teacher(config.loss, options.teacher, trust=options.trust)
        config = config.model_copy(update={"loss": loss})
        teacher = teacher_of(loss)
        data = open_data(task.data, data_root=options.data_root, begun=begun)
        loss_for(config.loss, data)
        if teacher is not None:
            open_teacher(teacher, data)
        check_task(task, data.num_classes, data.train.images.shape[1:3], device)
        check_ranks(task, options.ranks, len(data.train.images))
        device_of(device, 0, options.ranks)
    except InputError as error:
        raise in_its_file(error) from error
    for fault in data_faults(data, task.data) if begun else ():
        show(f"warning: {fault}", flush=True)
    for line in task_warnings(task, len(data.train), data.train.images.shape[1:3]):
        show(f"warning: {line}", flush=True)
    written = config
    if options.out is not None:
        written = _with_teacher_in(made_folder(options.out, "--out"), config)
    here = environment(config, device, ranks=options.ranks)
    ranks = f" in {options.ranks} ranks" if options.ranks > 1 else ""
    show(
        f"training {options.config}: {family(config.loss)} on {data.name}, "
        f"{task.num_epochs} epochs, seed {config.seed}, on {here['device_name']}, "
        f"{here['precision']}, {here['num_threads']} CPU threads{ranks}",
        flush=True,
    )
    judged = provenance is not None and provenance.judged_on_test
    report: EpochReport | None = None
    try:
        for report in train(
            config,
            data=data,
            data_root=options.data_root,
            device=str(device),
            evaluate_test=judged,
            ranks=options.ranks,
        ):
            show(epoch_line(report), flush=True)
            if options.out is not None:
                _write_epoch(options.out, report, weights=not options.no_weights)
    except InputError as error:
        raise in_its_file(error) from error
    except SystemExit as error:
        message = f"the training's own code {deed(error)}"
        raise in_its_file(InputError(message, key="model")) from error
    except Diverged as error:
        show(f"diverged: {error}", file=sys.stderr)
        return EXIT_MISMATCH
    assert report is not None
    if options.out is not None:
        _write_config(options.out, written, report, here, data, read.tau)
    return _compared(read, config, report.metrics, here, data.fingerprint)


def _train_own(options: argparse.Namespace, read: ConfigFile) -> int:
    """Run a training of the user's own once, and compare it to an export's numbers."""
    from study.config.own_training import OwnTrainingTask
    from study.training.environment import environment, set_up_process
    from study.trials.context import Stopped
    from study.trials.local import Terminal, context_of
    from study.trials.run import run_trial

    if options.teacher is not None:
        raise InputError("a training of your own has no teacher", key="--teacher")
    config, provenance = read.config, read.provenance
    assert isinstance(config.task, OwnTrainingTask)
    if options.ranks != 1:
        message = "a training of your own starts its ranks itself"
        raise InputError(message, hint="leave it out", key="--ranks")
    if options.data_root is not None:
        raise InputError("the task reads no data folder", hint="leave it out", key="--data-root")
    num_threads = provenance.environment.num_threads if provenance is not None else None
    set_up_process(num_threads or _threads())
    folder = None if options.out is None else made_folder(options.out, "--out")
    terminal = Terminal(config.task.num_epochs, partial(show, flush=True))
    judged = provenance is not None and provenance.judged_on_test
    context = context_of(config, terminal, judged, options.device, folder)
    show(f"training {options.config} by {config.task.trained_by} in {context.folder}", flush=True)
    try:
        run_trial(context)
    except InputError as error:
        raise read.in_its_file(error) from error
    except Stopped:
        pass
    except (Exception, SystemExit) as error:
        place = f" ({error.__notes__[-1]})" if getattr(error, "__notes__", None) else ""
        message = f"{config.task.trained_by} {deed(error)}{place}"
        raise read.in_its_file(InputError(message, key="trial")) from error
    here = environment(config, options.device)
    return _compared(read, config, terminal.metrics, here, config.task.fingerprint)


def _compared(
    read: ConfigFile,
    config: TrialConfig,
    metrics: Mapping[str, float],
    here: dict[str, Any],
    fingerprint: str,
) -> int:
    """Compare a training's numbers to those of its export, if it is one; return the exit code."""
    provenance = read.provenance
    if provenance is None:
        return 0
    if provenance.seed != config.seed:
        print(f"another seed than the export's {provenance.seed}: no numbers to compare")
        return 0
    verdict = provenance.compare(metrics, here, fingerprint)
    show(*verdict.lines)
    return 0 if verdict.accepted else EXIT_MISMATCH


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def epoch_line(report: EpochReport) -> str:
    """`epoch 3/8  train/loss 0.512  val/miou 0.4321  ...  1.2 s`."""
    shown = [
        "train/loss",
        "val/miou",
        "val/macc",
        "val/acc",
        VAL_TUNED_MIOU,
        "test/miou",
        "test/macc",
    ]
    width = len(str(report.num_epochs))
    parts = [f"epoch {report.epoch:{width}d}/{report.num_epochs}"]
    parts += [f"{key} {report.metrics[key]:.4f}" for key in shown if key in report.metrics]
    return "  ".join([*parts, f"{report.metrics['time/epoch_s']:.1f} s"])


def _write_epoch(folder: Path, report: EpochReport, *, weights: bool) -> None:
    import json

    append_line(folder / "metrics.jsonl", json.dumps({"epoch": report.epoch, **report.metrics}))
    if report.epoch == report.num_epochs:
        from study.training.checkpoint import CHECKPOINT

        report.save(folder / CHECKPOINT)
        if weights:
            try:
                report.save_weights(folder / WEIGHTS_FILE)
            except ValueError as error:
                print(f"no {WEIGHTS_FILE}: {error}", file=sys.stderr)


def _with_teacher_in(folder: Path, config: TrialConfig) -> TrialConfig:
    """The config with its teacher's weights copied into the folder, for training it again."""
    from study.losses.config import LossConfig, WeightsTeacher
    from study.storage.weights import copy_file, teacher_file

    loss = config.loss
    if not isinstance(loss, LossConfig) or not isinstance(loss.teacher, WeightsTeacher):
        return config
    name = teacher_file(loss.teacher.sha256)
    copy_file(Path(loss.teacher.weights), folder / name)
    beside = loss.teacher.model_copy(update={"weights": name})
    return config.model_copy(update={"loss": loss.taught_by(beside)})


def _write_config(
    folder: Path,
    config: TrialConfig,
    report: EpochReport,
    here: dict[str, Any],
    data: SegmentationData,
    tau: str,
) -> None:
    import yaml

    from study.metrics.exported import decision_block
    from study.storage.weights import weights_block

    origin = {
        "seed": config.seed,
        "metrics": report.metrics,
        "environment": here,
        "data": {"fingerprint": data.fingerprint},
    }
    chosen, weights = report.metrics.get(f"{VAL}/{tau}"), folder / WEIGHTS_FILE
    content = config.model_dump(mode="json")
    if chosen is not None:
        content |= decision_block(chosen, data.train.class_counts.sum(0))
    if weights.is_file():
        content |= weights_block(weights)
    content["provenance"] = origin
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)


if __name__ == "__main__":
    sys.exit(main())
