"""Labels of a folder data set: what stands in their files, as classes.yaml says what it means.

A label can be read by index (grey values, palette indices), by colour (the table of colours), and
by grey (the value of equal channels). A grey label, and a palette in a PNG, is read by index where
all its values are known. Any other is read in the one way in which all that it holds is known; two
ways that differ are a fault, as is one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from study.core.errors import InputError
from study.data.formats.folder_classes import HIGHEST, LOWEST, Classes
from study.data.labels import (
    StoredLabel,
    colour_codes,
    listed,
    of_alpha,
    ranges,
    read_stored,
)
from study.data.splits import FileProblem, UInt8Array

INDEX, COLOUR, GREY, ALPHA = "index", "colour", "grey", "alpha"
_UNKNOWN = -1
_FEW = 8  # colours that a line names
_FULL = 255
_WHICH = "`read: index` or `read: colour` in classes.yaml says which"

Codes = np.ndarray  # (H, W) int16: classes, or _UNKNOWN


class LabelFiles:
    """Reads the labels of one data set, and notices what only all of them together show."""

    def __init__(self, classes: Classes) -> None:
        self._classes, self._meaning = classes, classes.meaning
        self._by_value = np.full(HIGHEST + 1 - LOWEST, _UNKNOWN, np.int16)
        for value, index in self._meaning.values.items():
            self._by_value[value - LOWEST] = index
        self._by_alpha = classes.stated.read == ALPHA
        pairs = sorted(
            (int(colour_codes(np.array(colour))), index)
            for colour, index in self._meaning.colours.items()
        )
        self._codes = np.array([code for code, _ in pairs], np.int32)
        self._of_code = np.array([index for _, index in pairs], np.int16)
        self._seen: set[int] = set()
        self._painted: list[Path] = []  # labels that were read by colour
        self._other_by_colour: list[Path] = []  # palettes whose colours name other classes
        self._foreign_colours: list[Path] = []  # palettes with colours of no class
        self._colour_of: dict[int, tuple[int, Path]] = {}  # an index's, and the file that has it
        self._drawn_apart: list[tuple[int, Path, Path]] = []  # indices of two colours

    def read(self, file: Path) -> UInt8Array:
        """Read the classes of a label, (H, W)."""
        label = read_stored(file)
        if self._by_alpha:
            label = of_alpha(label, file)
        if label.is_lossy:
            label = self._cut(label, file)
        first_counts = label.rgb is None or (label.values is not None and label.is_png)
        tried: list[tuple[str, Codes]] = []
        known: list[tuple[str, Codes]] = []
        for way, read in self._ways(label):
            tried.append((way, read()))
            if (tried[-1][1] != _UNKNOWN).all():
                known.append(tried[-1])
                if first_counts:
                    break
        others = known[1:]
        if not known and tried and self._meaning.other is not None:
            way, codes = tried[0]
            known = [(way, np.where(codes == _UNKNOWN, np.int16(self._meaning.other), codes))]
            others = [] if first_counts else tried[1:]
        if not known:
            raise self._unknown(label, tried, file)
        way, codes = known[0]
        for other, differing in others:
            if not np.array_equal(codes, differing):
                message = f"the label means one thing by {way}, another by {other}"
                raise FileProblem("ambiguous label", message, file, hint=_WHICH)
        if way == COLOUR:
            self._painted.append(file)
        else:
            values = label.values if way == INDEX else label.rgb[..., 0]  # type: ignore[index]
            assert values is not None
            self._seen.update(_distinct(values).tolist())
            if way == INDEX and label.rgb is not None:
                self._compare_palette(codes, label.rgb, file)
                self._compare_files(values, label.rgb, file)
        return codes.astype(np.uint8)

    def _ways(self, label: StoredLabel) -> list[tuple[str, Callable[[], Codes]]]:
        """The ways in which the label can be read, the one to be preferred first."""
        values, rgb = label.values, label.rgb
        by: dict[str, Callable[[], Codes]] = {}
        if values is not None:
            by[INDEX] = partial(self._of_values, values)
        if rgb is not None and (rgb == rgb[..., :1]).all():
            by[GREY] = partial(self._of_values, rgb[..., 0])
        if len(self._codes):
            if rgb is not None:
                by[COLOUR] = partial(self._of_colours, rgb)
            elif values is not None and values.min() >= 0 and values.max() <= _FULL:
                by[COLOUR] = partial(self._of_colours, values[..., None])
        if self._meaning.by_colour is None:
            order = [INDEX, COLOUR, GREY]
        elif not self._meaning.by_colour:
            order = [INDEX if INDEX in by else GREY]
        elif rgb is None:
            order = [COLOUR, INDEX]
        else:
            order = [COLOUR if COLOUR in by else GREY]
        return [(way, by[way]) for way in order if way in by]

    def _of_values(self, values: np.ndarray) -> Codes:
        if values.dtype == np.uint8:
            return self._by_value[-LOWEST:][values]
        inside = (values >= LOWEST) & (values <= HIGHEST)
        found = self._by_value[values.clip(LOWEST, HIGHEST) - LOWEST]
        return found if inside.all() else np.where(inside, found, np.int16(_UNKNOWN))

    def _of_colours(self, rgb: np.ndarray) -> Codes:
        codes = colour_codes(rgb if rgb.shape[-1] == 3 else rgb.repeat(3, -1))
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return np.where(self._codes[place] == codes, self._of_code[place], np.int16(_UNKNOWN))

    def _cut(self, label: StoredLabel, file: Path) -> StoredLabel:
        """The grey values of a lossy label, for ranges to cut."""
        line = "`labels: {0..127: NAME, 128..255: NAME}` in classes.yaml cuts its values"
        if not self._meaning.has_ranges:
            message = "a label of lossy compression has blurred values"
            raise FileProblem("lossy label", message, file, hint=line)
        return StoredLabel(_grey(label, file), None, is_png=False, is_lossy=True)

    def _unknown(
        self, label: StoredLabel, by: Sequence[tuple[str, Codes]], file: Path
    ) -> FileProblem:
        """The fault of a label that holds what nobody knows, and the line that says what it is."""
        way, codes = by[0] if by else (COLOUR, None)
        if way != COLOUR:
            values = label.values if label.values is not None else label.rgb[..., 0]  # type: ignore[index]
            strange = np.unique(values[codes == _UNKNOWN]).tolist()
            message = (
                f"labels must be {ranges(sorted(self._meaning.values))}, got {listed(strange)}"
            )
            return FileProblem("unknown label", message, file, hint=self._line(strange))
        rgb = label.rgb if label.rgb is not None else np.repeat(label.values[..., None], 3, -1)  # type: ignore[index]
        strange_rgb = rgb if codes is None else rgb[codes == _UNKNOWN]
        found = np.unique(strange_rgb.reshape(-1, 3), axis=0).tolist()
        names = [f"'#{red:02x}{green:02x}{blue:02x}'" for red, green, blue in found]
        more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
        message = f"the label is painted in colours of no class: {', '.join(names[:_FEW])}{more}"
        line = f"`labels: {{{names[0]}: NAME}}`, `ignore: [{names[0]}]`"
        hint = f"{line} or each class's `color: [r, g, b]` in classes.yaml says what they are"
        return FileProblem("unknown colour", message, file, hint=hint)

    def _line(self, strange: Sequence[int]) -> str:
        """The line for classes.yaml that says what unknown values mean."""
        if len(strange) > _FEW and max(strange) <= _FULL:
            return "`labels: {0..127: NAME, 128..255: NAME}` in classes.yaml cuts blurred values"
        first = strange[0]
        return f"`labels: {{{first}: NAME}}` or `ignore: [{first}]` in classes.yaml says what it is"

    def _compare_palette(self, codes: Codes, rgb: UInt8Array, file: Path) -> None:
        """Note whether the palette's colours are those of classes, and of the same ones."""
        if not len(self._codes) or self._meaning.by_colour is not None:
            return
        by_colour = self._of_colours(rgb)
        if (by_colour == _UNKNOWN).any():
            self._foreign_colours.append(file)
        elif (by_colour != codes).any():
            self._other_by_colour.append(file)

    def _compare_files(self, values: np.ndarray, rgb: UInt8Array, file: Path) -> None:
        """Note whether an index is drawn in another colour than in the files before."""
        if self._meaning.by_colour is not None:
            return
        used, first = np.unique(values, return_index=True)
        codes = colour_codes(rgb.reshape(-1, 3)[first])
        for value, code in zip(used.tolist(), codes.tolist(), strict=True):
            before, other = self._colour_of.setdefault(value, (code, file))
            if before != code:
                self._drawn_apart.append((value, other, file))

    def verdict(self) -> list[str]:
        """Warn of what is known once all labels have been read; raise InputError for what cannot
        be meant."""
        classes = self._classes
        values = sorted(self._seen)
        if (
            len(values) == 2
            and values[1] == _FULL
            and not self._painted
            and not self._meaning.ignores_255
            and self._meaning.values.get(_FULL) == classes.ignore_index
        ):
            names = classes.names if len(classes.names) > 1 else ("background", classes.names[0])
            raise classes.error(
                "ignore_index",
                f"all labels hold {values[0]} and 255 alone, and 255 does not count",
                hint=f"if it is a class: `labels: {{{values[0]}: {names[0]}, 255: {names[1]}}}`, "
                "else `ignore: [255]`",
            )
        if self._other_by_colour and not self._foreign_colours:
            raise InputError(
                "the colours of the palette name other classes than its indices",
                hint=_WHICH,
                file=self._other_by_colour[0],
            )
        if not self._drawn_apart:
            return []
        value, one, other = min(self._drawn_apart)
        return [
            f"labels are read by the index in their palettes, and these differ: {value} has one "
            f"colour in {one.name}, another in {other.name}; where the colours are what counts, "
            "as after a quantiser, map them with `labels: {'#rrggbb': NAME}` and `read: colour`"
        ]


class MaskFiles:
    """Draws the masks of an image, each the pixels of one class, over each other."""

    def __init__(self, classes: Classes) -> None:
        self._unmasked, self._threshold = classes.unmasked, classes.stated.threshold

    def read(self, masks: Sequence[tuple[int, Path]], shape: tuple[int, int]) -> UInt8Array:
        """The classes (H, W) of an image with these masks, which later ones are drawn over. Without
        any, `shape` is the image's."""
        drawn = [(index, file, self._inside(file)) for index, file in masks]
        shape = drawn[0][2].shape if drawn else shape
        classes = np.full(shape, self._unmasked, np.uint8)
        for index, file, inside in drawn:
            if inside.shape != shape:
                (height, width), got = shape, "{}x{}".format(*inside.shape)
                message = f"a mask must be as large as its others, {height}x{width}, got {got}"
                raise FileProblem("size", message, file)
            classes[inside] = index
        return classes

    def _inside(self, file: Path) -> np.ndarray:
        label = read_stored(file)
        line = "`threshold: 128` in classes.yaml cuts its values"
        if self._threshold is not None:
            return _grey(label, file) >= self._threshold
        if label.is_lossy:
            message = "a mask of lossy compression has blurred values"
            raise FileProblem("lossy label", message, file, hint=line)
        values = label.values if label.rgb is None else colour_codes(label.rgb)
        assert values is not None
        found = np.unique(values)
        if len(found[found != 0]) > 1:
            message = f"a mask must hold 0 and one other value, got {len(found)} values"
            raise FileProblem("unknown label", message, file, hint=line)
        return np.not_equal(values, 0)


def _grey(label: StoredLabel, file: Path) -> np.ndarray:
    """The grey values of a label without colours, or of equal channels but for blur."""
    if label.rgb is None:
        assert label.values is not None
        return label.values
    rgb = label.rgb.astype(np.int16)
    if (rgb.max(-1) - rgb.min(-1) > _FULL // 4).any():
        message = "a range cuts grey values, and the label is painted in colours"
        raise FileProblem("label mode", message, file)
    return np.asarray(rgb[..., 1], np.int64)


def _distinct(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:  # counting takes a quarter of the time of sorting
        return np.flatnonzero(np.bincount(values.ravel()))
    return np.unique(values)
