"""`python -m study.evaluate EXPORT DATA`: score an exported network on labelled pictures.

DATA is a task, of which `data:` is used, or a folder of images and labels in a form that
docs/own_data.md describes. Without a classes.yaml the labels must hold the network's own class ids.
Pictures and labels are resized to the size of the training, as in the study. So on the study's own
data you get the metrics of the study.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from study.core.console import Parser, run_command, show
from study.core.errors import InputError

SHOWN = ("miou", "macc", "mprec", "acc", "miou_image", "miou_worst5")
CHOICES = ("train", "val", "test", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("evaluate", __doc__)
    parser.add_argument(
        "export", type=Path, metavar="EXPORT", help="an export, such as exports/best_miou.yaml"
    )
    parser.add_argument("data", metavar="DATA", help="a folder, a task file, or a shipped task")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the task's data")
    parser.add_argument(
        "--split", default="test", choices=CHOICES, help="the split that is scored (default: test)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.csv", help="also write the metrics of each picture"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    parser.add_argument(
        "--trust", action="store_true", help="import the functions (code) that the export names"
    )
    return run_command(parser, _evaluate, argv)


def _evaluate(options: argparse.Namespace) -> None:
    from study.config.task import load_task
    from study.inference.loading import load
    from study.inference.scoring import data_of, folder_of, score
    from study.training.environment import resolve_device

    is_folder = Path(options.data).is_dir()
    if is_folder and options.data_root is not None:
        raise InputError("DATA is a folder itself", hint="leave it out", key="--data-root")
    task = None if is_folder else load_task(options.data)
    predictor = load(options.export, device=resolve_device(options.device), trust=options.trust)
    if task is None:
        labelled = folder_of(Path(options.data), predictor, options.split)
    else:
        try:
            labelled = data_of(task.trained_here.data, predictor, options.data_root, options.split)
        except InputError as error:
            raise error.of_file(task.file, task.lines) from error
    found = score(predictor, labelled)
    if options.out is not None:
        _write(options.out, found.images)
    of_all = "" if options.split == "all" else f" of {options.split}"
    show(f"{labelled.name}: {len(found.images)} pictures{of_all}, in %")
    show(f"  {'':14}{'its rule':>10}{'argmax':>10}")
    for key in SHOWN:
        show(f"  {key:14}{_percent(found.metrics, key)}{_percent(found.metrics, f'argmax/{key}')}")
    show(f"  {'class':14}{'IoU':>10}{'recall':>10}{'precision':>10}, at its rule")
    for name in predictor.class_names:
        if f"iou/{name}" in found.metrics:
            cells = "".join(
                _percent(found.metrics, f"{key}/{name}") for key in ("iou", "recall", "precision")
            )
            show(f"  {name:14}{cells}")
    if options.out is not None:
        show(f"each picture: {options.out}")


def _percent(metrics: Mapping[str, float], key: str) -> str:
    return f"{100 * metrics[key]:10.2f}"


def _write(path: Path, images: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    from study.core.files import write_text
    from study.reporting.table_files import csv_cell

    columns = list(dict.fromkeys(key for _, row in images for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["image", *columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows([{"image": csv_cell(name), **row} for name, row in images])
    try:
        write_text(path, buffer.getvalue())
    except OSError as error:
        message = f"cannot write {str(path)!r}: {error.strerror}"
        raise InputError(message, key="--out") from error


if __name__ == "__main__":
    sys.exit(main())
