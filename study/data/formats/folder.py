"""Images and labels in folders, as classes.yaml describes them: images/{split}, labels/{split}.

Labels are grey values, palette indices or colours that classes.yaml maps to classes, or one binary
mask a class. Splits are folders, lists of names, or ratios.
"""

from __future__ import annotations

from pathlib import Path

from study.config.task import FolderData
from study.core.errors import InputError
from study.data.formats.folder_classes import read_classes
from study.data.formats.folder_files import FolderFiles
from study.data.formats.folder_hints import add_hints, without_classes
from study.data.formats.folder_labels import LabelFiles, MaskFiles
from study.data.formats.folder_splits import FolderSplits
from study.data.labels import ClassTable
from study.data.scan import Findings, Scan

CLASSES_FILE = "classes.yaml"


def folder_scan(config: FolderData, root: Path, described: Path | None = None) -> Scan:
    """Find and pair the files. Raises InputError if classes.yaml is missing or malformed.

    described: a file in place of the root's classes.yaml.
    """
    described = described or root / CLASSES_FILE
    if not described.exists():
        raise InputError("file not found", hint=without_classes(root), file=described)
    classes = read_classes(described)
    stated = classes.stated
    found = Findings()
    files = FolderFiles(root, classes, found)
    splits = FolderSplits(config, root, classes, files, found)
    if found.faults:
        add_hints(found, root, classes, files)
    labels = LabelFiles(classes)
    return Scan(
        name=stated.name.replace("/", "-"),
        config=config,
        root=root,
        table=ClassTable(
            classes.names, classes.palette, classes.ignore_index, stated.mean, stated.std
        ),
        findings=found,
        read_label=labels.read,
        members=splits.members,
        rule=splits.rule(),
        described_in=(described,),
        read_masks=MaskFiles(classes).read if classes.masks else None,
        missing=classes.missing,
        resize_labels=stated.resize_labels,
        warnings=splits.warnings,
        verdict=labels.verdict,
    )
