"""Images and index labels in folders: images/{split}, labels/{split}, classes.yaml.

Images are JPEG or PNG. A label is an 8-bit PNG of the same size and name; its values (or palette
indices) are class ids.
"""

from __future__ import annotations

from pathlib import Path

from study.config.task import FolderData
from study.core.names import TEST, TRAIN, VAL
from study.data.formats.folder_classes import read_classes
from study.data.labels import ClassTable, IdTable
from study.data.resplit import carved_pairs, in_blocks, in_words
from study.data.scan import Findings, Members, Pair, Scan

CLASSES_FILE = "classes.yaml"


def folder_scan(config: FolderData, root: Path) -> Scan:
    """Find and pair the files. Raises InputError if classes.yaml is missing or malformed."""
    classes = read_classes(root / CLASSES_FILE)
    found = Findings()

    def paired(split: str) -> list[Pair]:
        image_dir = root / classes.image_dir.replace("{split}", split)
        label_dir = root / classes.label_dir.replace("{split}", split)
        images = found.files(image_dir, classes.image_suffixes, want=f"{split} images")
        labels = found.files(label_dir, (classes.label_suffix,))
        return found.pair(images, labels, image_dir, label_dir)

    pooled = config.resplit.pool if config.resplit else (TRAIN, VAL)
    pairs = {split: paired(split) for split in (*dict.fromkeys(pooled), TEST)}

    def members() -> Members:
        test = in_blocks(pairs[TEST], config.block)
        if config.resplit is not None:
            return {**carved_pairs(config.resplit, pairs), TEST: test}
        return {split: in_blocks(pairs[split], config.block) for split in (TRAIN, VAL)} | {
            TEST: test
        }

    num_classes, ignore = len(classes.names), classes.ignore_index
    return Scan(
        name=classes.name.replace("/", "-"),
        config=config,
        root=root,
        table=ClassTable(classes.names, classes.palette, ignore, classes.mean, classes.std),
        findings=found,
        read_label=IdTable({value: value for value in (*range(num_classes), ignore)}).read,
        members=members,
        rule=f"test is as published; {in_words(config.resplit)}",
        described_in=(root / CLASSES_FILE,),
    )
