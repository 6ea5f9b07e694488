"""A contact sheet: images beside their coloured labels, one row per split, and a legend.

Ignored pixels are hatched in black and white, which no class is, whatever its colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from study.core.errors import InputError
from study.data.splits import SegmentationData, Split, UInt8Array

_LINE, _LEGEND = 14, 150  # pixels: height of a line, width of a column of the legend
_STRIPE = 3  # pixels of a stripe of the hatch
_SWATCH = 11


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
    width, total = max(row.shape[1] for row in rows), sum(row.shape[0] + _LINE for row in rows)
    colours = (
        np.repeat(data.palette[:, None], _SWATCH, 1)
        .repeat(_SWATCH, 1)
        .reshape(-1, _SWATCH, _SWATCH, 3)
    )
    entries = [*zip(data.class_names, colours, strict=True), ("ignored", hatch(_SWATCH, _SWATCH))]
    lines = total // _LINE - 1
    columns = -(-len(entries) // lines)
    sheet = np.full((total, width + columns * _LEGEND, 3), 255, np.uint8)
    top, captions = 0, []
    for name, row in zip(data.splits, rows, strict=True):
        captions.append((top, f"{name}: {len(data.splits[name])} images"))
        sheet[top + _LINE : top + _LINE + row.shape[0], : row.shape[1]] = row
        top += _LINE + row.shape[0]
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for y, caption in captions:
        draw.text((2, y + 1), caption, fill=(0, 0, 0))
    for index, (name, swatch) in enumerate(entries):
        x, y = width + 6 + index // lines * _LEGEND, (index % lines + 1) * _LINE
        draw.rectangle((x - 1, y - 1, x + _SWATCH, y + _SWATCH), outline=(128, 128, 128))
        picture.paste(Image.fromarray(swatch), (x, y))
        draw.text((x + 16, y - 1), name[:20], fill=(0, 0, 0))
    try:
        picture.save(file, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write the contact sheet: {error}", file=file) from error


def hatch(height: int, width: int) -> UInt8Array:
    """Diagonal stripes of black and white, (H, W, 3)."""
    stripes = np.indices((height, width)).sum(0) // _STRIPE % 2
    return np.repeat(stripes[..., None] * 255, 3, 2).astype(np.uint8)


def coloured(label: UInt8Array, palette: UInt8Array) -> UInt8Array:
    """Labels (H, W) in the colours (C, 3) of their classes, all others hatched, (H, W, 3)."""
    ignored = label >= len(palette)
    colours = palette[np.where(ignored, 0, label)]
    return np.where(ignored[..., None], hatch(*label.shape), colours)


def _row(data: SegmentationData, split: Split, pairs: int, zoom: int, step: int) -> UInt8Array:
    """One row of the sheet, (zoom * H / step, 2 * pairs * zoom * W / step, 3): evenly spaced
    images, each followed by its labels."""
    chosen = np.unique(np.linspace(0, len(split) - 1, pairs).round().astype(int))
    tiles = []
    for i in chosen:
        image = np.asarray(Image.fromarray(split.images[i]).reduce(step))
        tiles.append(image.repeat(zoom, axis=0).repeat(zoom, axis=1))
        label = split.labels[i][::step, ::step].repeat(zoom, axis=0).repeat(zoom, axis=1)
        tiles.append(coloured(label, data.palette))
    return np.concatenate(tiles, axis=1)
