"""A contact sheet: images beside their coloured labels, one row per split, and a legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from study.core.errors import InputError
from study.data.splits import SegmentationData, Split, UInt8Array

_LINE, _LEGEND = 14, 130  # pixels
_VOID_COLOUR = (0, 0, 0)


def write_sheet(
    data: SegmentationData, file: Path, *, pairs: int = 5, min_height: int = 120
) -> None:
    """Write a PNG of `pairs` evenly spaced images of each split, enlarged to at least `min_height`
    pixels; images of twice that or more are reduced.

    Raises InputError if the file cannot be written.
    """
    height = data.train.labels.shape[1]
    zoom, step = max(1, -(-min_height // height)), max(1, height // min_height)
    rows = [_row(data, split, pairs, zoom, step) for split in data.splits.values()]
    width = max(row.shape[1] for row in rows)
    sheet = np.full((sum(row.shape[0] + _LINE for row in rows), width + _LEGEND, 3), 255, np.uint8)
    top, captions = 0, []
    for name, row in zip(data.splits, rows, strict=True):
        captions.append((top, f"{name}: {len(data.splits[name])} images"))
        sheet[top + _LINE : top + _LINE + row.shape[0], : row.shape[1]] = row
        top += _LINE + row.shape[0]
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for y, caption in captions:
        draw.text((2, y + 1), caption, fill=(0, 0, 0))
    entries = [*zip(data.class_names, data.palette, strict=True), ("ignored", _VOID_COLOUR)]
    for index, (name, colour) in enumerate(entries):
        x, y = width + 6, (index + 1) * _LINE
        draw.rectangle((x, y, x + 10, y + 10), fill=tuple(int(part) for part in colour))
        draw.text((x + 16, y - 1), name[:18], fill=(0, 0, 0))
    try:
        picture.save(file, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write the contact sheet: {error}", file=file) from error


def _row(data: SegmentationData, split: Split, pairs: int, zoom: int, step: int) -> UInt8Array:
    """One row of the sheet, (zoom * H / step, 2 * pairs * zoom * W / step, 3): evenly spaced
    images, each followed by its labels."""
    colours = np.tile(np.array(_VOID_COLOUR, np.uint8), (256, 1))
    colours[: data.num_classes] = data.palette
    chosen = np.unique(np.linspace(0, len(split) - 1, pairs).round().astype(int))
    tiles = [
        tile
        for i in chosen
        for tile in (
            np.asarray(Image.fromarray(split.images[i]).reduce(step)),
            colours[split.labels[i][::step, ::step]],
        )
    ]
    return np.concatenate(tiles, axis=1).repeat(zoom, axis=0).repeat(zoom, axis=1)
