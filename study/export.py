"""`python -m study.export NAME`: write the best configs of a study, finished or not, as YAML.

With --format python, mmseg or smp it writes the losses for other trainers, into files beside the
YAML. If NAME is a study, it writes one file for each export. If NAME is one export, such as
studies/NAME/exports/best_miou.yaml, it writes the file of this export only. (The name of an export
ends in .yaml or .yml.)

    python   best_miou_loss.py: a torch module that needs neither this package nor others, with the
             config's numbers, its digest, and the decision rule as a function
    mmseg    best_miou_mmseg.py: the equal loss of mmsegmentation, as a config
    smp      best_miou_smp.py: the equal loss of segmentation-models-pytorch

If the other library has no equal loss, one line names the part that it lacks, and no file is
written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import STUDIES, StoredStudy, add_study, open_study

if TYPE_CHECKING:
    from study.analysis.answer import Answer

YAML = "yaml"
FORMATS = (YAML, "python", "mmseg", "smp")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("export", __doc__)
    add_study(parser, other="; with --format also the path of an export")
    parser.add_argument(
        "--format", choices=FORMATS, default=YAML, help="form of the output (default: yaml)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the loss files (default: beside the exports)",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder that holds the data; needed if the loss needs class counts that the study "
        "did not record",
    )
    parser.add_argument(
        "--trust", action="store_true", help="import the function (factory) that makes these data"
    )
    return run_command(parser, _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    if arguments.format != YAML:
        _export_losses(arguments)
        return
    _refuse(arguments, ("out", "data_root", "trust"), "only for loss files")
    if _is_export(arguments):
        raise InputError(
            f"{arguments.name} is YAML already",
            hint="--format python, mmseg or smp writes its loss",
            key="--format",
        )
    from study.reporting.exports import write_exports
    from study.storage.weights import WeightsStore

    study = open_study(arguments)
    found = _answer(study)
    weights = WeightsStore(study.folder, study.storage.prefix_of(study.folder))
    paths = write_exports(study.folder, study.state, found, weights)
    if not paths:
        raise _nothing(study, found)
    study.storage.ship_files(study.folder)
    _show(found.missing, paths)


def _export_losses(arguments: argparse.Namespace) -> None:
    from study.reporting.exports import FOLDER
    from study.reporting.loss_files import DataAccess, loss_file_of_export, loss_files_of_study

    access = DataAccess(arguments.data_root, arguments.trust)
    out: Path | None = arguments.out
    if _is_export(arguments):
        if arguments.storage != STUDIES:
            raise InputError("only for the name of a study, not for an export", key="--storage")
        export = Path(arguments.name)
        _show((), loss_file_of_export(export, out or export.parent, arguments.format, access))
        return
    study = open_study(arguments)
    found = _answer(study)
    exports = study.folder / FOLDER
    paths = loss_files_of_study(
        exports, out or exports, study.state, found, arguments.format, access
    )
    if not paths:
        raise _nothing(study, found)
    if out is None:
        study.storage.ship_files(study.folder)
    _show(found.missing, paths)


def _is_export(arguments: argparse.Namespace) -> bool:
    """Whether NAME is that of a file, there or not, and of no study."""
    name, storage = arguments.name, arguments.storage
    if not name.endswith((".yaml", ".yml")) or Path(storage, name).is_dir():
        return False
    return Path(name).is_file() or not storage.startswith("s3://")


def _answer(study: StoredStudy) -> Answer:
    from study.analysis.answer import answer

    return answer(study.state, study.folder)


def _nothing(study: StoredStudy, found: Answer) -> InputError:
    return InputError(f"no best config to export: {found.missing[0]}", file=study.folder)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(arguments, name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(reason, hint="add --format python, mmseg or smp", key=flag)


def _show(missing: Sequence[str], paths: Sequence[Path]) -> None:
    for line in missing:
        show(f"note: {line}")
    for path in paths:
        show(path)


if __name__ == "__main__":
    sys.exit(main())
