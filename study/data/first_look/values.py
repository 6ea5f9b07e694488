"""What stands in labels, and the classes that it probably means."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from study.core.errors import InputError
from study.data.formats.folder_classes import HIGHEST, as_colour
from study.data.labels import Colour, StoredLabel, colour_codes, read_stored
from study.data.splits import MAX_CLASSES, FileProblem

LOOKED_AT = 300  # labels, evenly spaced
RARE = 1e-3  # of the painted pixels: a colour below it is the blur of an edge
NAME_FILES = (
    *("_classes.csv", "classes.txt", "labels.txt", "class_names.txt", "codes.txt", "labelmap.txt"),
    *("classes.json", "id2label.json", "label_map.json", "dataset.json"),
    *("class_dict.csv", "class_dict_seg.csv", "label_class_dict.csv"),
    *("label_colors.txt", "*colormap*.txt"),
)
"""Patterns of the files that give names to values or colours."""
_RGB = r"(?P<red>\d+)\s+(?P<green>\d+)\s+(?P<blue>\d+)"
_COLOUR_FIRST = re.compile(rf"{_RGB}\s+(?P<name>.*[^\W\d].*)")  # 64 128 64 Animal
_COLOUR_LAST = re.compile(rf"(?:\d+\s+)?(?P<name>\S*[^\W\d].*?)\s+{_RGB}")  # 1 dirt 108 64 20
IGNORED = 255
PEAK, MOST_PEAK = 3, 0.3  # width on both sides, and share of the greys between black and white
FOOT = 16  # width on both sides of what the blur of a peak reaches
FEWEST_NUMBERED, NUMBERED = 8, 0.9  # labels, and the share of them in which objects are numbered
MOST_SPREAD = 8  # greys between black and white
ALIKE = 0.5  # of neighbouring pixels of a label have one value at least
INNER = 0.1  # of a colour's pixels lie in areas of it; of the blur of an edge fewer
THOUSAND = 1000  # of a class's id, in labels that number its objects


Labels = dict[int | str, str]  # a value or a range -> a class


@dataclass
class Meaning:
    """What goes into classes.yaml about classes, by key.

    what: in words, what stands in the labels. guesses: which keys are guesses, and why.
    """

    what: str
    keys: dict[str, object] = field(default_factory=dict)
    guesses: dict[str, str] = field(default_factory=dict)


def meaning(root: Path, labels: Sequence[Path]) -> Meaning:
    """Look at the labels and guess what their values mean.

    Raises:
        InputError: for labels that cannot be read, and for more values than there can be classes.
    """
    chosen = [labels[i] for i in np.unique(np.linspace(0, len(labels) - 1, LOOKED_AT).astype(int))]
    stored = [_read(file) for file in chosen]
    try:
        return _by_what_is_seen(root, chosen, stored)
    except InputError:
        alpha = [one.alpha for one in stored if one.alpha is not None]
        if len(alpha) < len(stored) or len(_count(alpha)) < 2:
            raise
        told = _of_values(alpha, {}, lossy=any(one.is_lossy for one in stored))
        told.keys["read"] = "alpha"
        told.guesses["read"] = "the colours of the labels tell no classes, their transparency does"
        return told


def _by_what_is_seen(root: Path, chosen: Sequence[Path], stored: Sequence[StoredLabel]) -> Meaning:
    grey = [one.values for one in stored if one.values is not None]
    lossy = any(one.is_lossy for one in stored)
    if len(grey) == len(stored) and not (
        any(map(_is_ambiguous, stored)) or _palettes_differ(stored)
    ):
        return _of_values(grey, names_in(root), lossy=lossy)
    equal = [_equal_channels(one) for one in stored]
    same = [one for one in equal if one is not None]
    if any(map(_is_ambiguous, stored)) or _palettes_differ(stored):
        told = _of_colours(stored, names_in(root))
        told.keys["read"] = "colour"
        told.guesses["read"] = "indices and colours of these palettes say different things"
        return told
    if len(same) == len(stored):
        return _of_values(same, names_in(root), lossy=lossy)
    if lossy:
        hint = "store them anew without loss, as PNG; only greys can be cut by ranges"
        file = next(file for file, one in zip(chosen, stored, strict=True) if one.is_lossy)
        raise InputError(
            "painted labels of lossy compression have no colours", hint=hint, file=file
        )
    return _of_colours(stored, names_in(root))


def _read(file: Path) -> StoredLabel:
    try:
        return read_stored(file)
    except FileProblem as problem:
        raise problem.counted(1) from problem


def _count(labels: Sequence[np.ndarray]) -> Counter[int]:
    found: Counter[int] = Counter()
    for label in labels:
        values, counts = np.unique(label, return_counts=True)
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return found


def _equal_channels(label: StoredLabel) -> np.ndarray | None:
    if label.values is not None:
        return label.values
    rgb = label.rgb
    assert rgb is not None
    alike = (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all()
    return rgb[..., 0] if alike else None


def _is_ambiguous(label: StoredLabel) -> bool:
    """Whether a palette's indices and its grey values differ, in a file whose writer sorts it."""
    if label.values is None or label.rgb is None or label.is_png:
        return False
    return not np.array_equal(label.values, label.rgb[..., 0])


def _palettes_differ(stored: Sequence[StoredLabel]) -> bool:
    """Whether an index has one colour in one file and another in another, as after a quantiser."""
    colour_of: dict[int, int] = {}
    for one in stored:
        if one.values is None or one.rgb is None:
            continue
        values, first = np.unique(one.values, return_index=True)
        codes = colour_codes(one.rgb).ravel()[first]
        for value, code in zip(values.tolist(), codes.tolist(), strict=True):
            if colour_of.setdefault(value, code) != code:
                return True
    return False


def _of_values(labels: Sequence[np.ndarray], names: Mapping[int, str], *, lossy: bool) -> Meaning:
    count = _count(labels)
    _refuse_noise(labels)
    values = sorted(count)
    shown = ", ".join(map(str, values[:12])) + (
        f" and {len(values) - 12} more" * (len(values) > 12)
    )
    found = Meaning(f"values {shown}")
    if lossy or (len(values) > 24 and _is_bimodal(count)):
        found.what = f"blurred values from {values[0]} to {values[-1]}"
        _refuse_third_grey(count)
        found.keys["labels"] = {"0..127": "background", "128..255": "foreground"}
        found.guesses["labels"] = "two classes, cut in the middle; name them"
        return found
    if len(values) == 1:
        hint = "store the classes as different greys; transparency is not read"
        raise InputError(f"all labels hold one value, {values[0]}", hint=hint)
    if values in ([0, IGNORED], [0, HIGHEST]):
        white = values[1]
        found.keys["labels"] = {0: "background", white: "foreground"}
        part = count[white] / count.total()
        found.guesses["labels"] = (
            f"a binary mask, in which {white} ({part:.0%}) is a class; name them"
        )
        return found
    if not names and (read := _guessed(values, labels)):
        found.keys["labels"], found.guesses["labels"] = read
        return found
    ignored = [value for value in values if value < 0 or value == IGNORED]
    if values[-1] == HIGHEST and values[-2] <= IGNORED:
        ignored.append(HIGHEST)
    classes = [value for value in values if value not in ignored]
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"labels hold {len(values)} values, from {values[0]} to {values[-1]}: too many"
        )
    if names and {*classes} <= {*names}:
        classes = sorted(names)
    named = {value: names.get(value, f"class_{value}") for value in classes}
    plain = classes == [*range(len(classes))]
    found.keys["classes"] = [*named.values()] if plain else named
    if not {*classes} <= {*names}:
        found.guesses["classes"] = "names made of the values; give them their own"
    if ignored:
        found.keys["ignore"] = ignored
        stand = " and ".join(map(str, ignored)) + (" stands" if len(ignored) == 1 else " stand")
        found.guesses["ignore"] = f"{stand} for pixels that do not count in most data sets"
    return found


def _guessed(values: list[int], labels: Sequence[np.ndarray]) -> tuple[Labels, str] | None:
    """What values mean that are no plain classes with 255 ignored, and why it looks so."""
    sets = [{*np.unique(one).tolist()} for one in labels]
    steps = len(values) - 1
    if 1 < steps <= MOST_SPREAD and all(
        abs(one - IGNORED * at / steps) <= 1 for at, one in enumerate(values)
    ):
        spread: Labels = {one: f"class_{one}" for one in values}
        return spread, "greys spread evenly from 0 to 255, which is taken for a class"
    if values == [0, 1, IGNORED] and not any({1, IGNORED} <= one for one in sets):
        binary: Labels = {0: "background", 1: "foreground", IGNORED: "foreground"}
        return binary, "no label has both 1 and 255, which are taken for the same"
    tops = [max(one) for one in sets]
    numbered = sum({*range(1, top + 1)} == one - {0} for top, one in zip(tops, sets, strict=True))
    enough = len(sets) >= FEWEST_NUMBERED and numbered >= NUMBERED * len(sets)
    if enough and max(tops) > 3 and len({*tops}) > 2:
        return (
            {0: "background", "1..65535": "object"},
            "values from 1 to as many as an image has objects, so they number objects",
        )
    high = [value for value in values if value >= THOUSAND]
    if len(high) > 8:
        ranges: Labels = {
            f"{one}000..{one}999": f"class_{one}" for one in (v // THOUSAND for v in high)
        }
        low: Labels = {value: f"class_{value}" for value in values if value < THOUSAND}
        return low | ranges, "the thousands are taken for the class, the rest for its objects"
    many = IGNORED < values[-1] < HIGHEST and steps > MOST_SPREAD and len(sets) >= FEWEST_NUMBERED
    if many and _are_single_areas(labels[:: max(1, len(labels) // FEWEST_NUMBERED)]):
        return (
            {0: "background", "1..65535": "object"},
            "values up to above 255, each of which has one area in a label, so they number objects",
        )
    return None


def _are_single_areas(labels: Sequence[np.ndarray]) -> bool:
    """Whether nearly each value above 0 has one connected area in each label that has it."""
    from scipy.ndimage import label as connected

    areas = [
        connected(one == value, np.ones((3, 3)))[1]
        for one in labels
        for value in np.unique(one)
        if value > 0
    ]
    return areas.count(1) >= NUMBERED * len(areas)


def _refuse_third_grey(count: Counter[int]) -> None:
    """Raise InputError where blurred greys are of more than black and white."""
    between = Counter({value: number for value, number in count.items() if 32 <= value < 224})
    peaks: list[int] = []
    while between:
        near = {
            value: sum(between[one] for one in range(value - PEAK, value + PEAK + 1))
            for value in between
        }
        most = max(near, key=lambda value: near[value])
        if near[most] <= max(MOST_PEAK * between.total(), RARE * count.total()):
            break
        peaks.append(most)
        for value in range(most - FOOT, most + FOOT + 1):
            del between[value]
    if peaks:
        levels = [0, *sorted(peaks), IGNORED]
        cuts = [-1, *((one + other) // 2 for one, other in pairwise(levels)), IGNORED]
        line = ", ".join(f"{low + 1}..{high}: NAME" for low, high in pairwise(cuts))
        raise InputError(
            f"blurred labels have more greys than black and white, such as {peaks[0]}",
            hint=f"`labels: {{{line}}}` in classes.yaml, or more ranges, cut them",
        )


def _inner(label: np.ndarray) -> np.ndarray:
    """The values (N,) of the pixels whose four neighbours have the same."""
    middle = label[1:-1, 1:-1]
    around = (label[:-2, 1:-1], label[2:, 1:-1], label[1:-1, :-2], label[1:-1, 2:])
    return np.asarray(middle[np.all([middle == one for one in around], 0)])


def _refuse_noise(labels: Sequence[np.ndarray]) -> None:
    """Raise InputError where neighbouring pixels differ as in a photograph."""
    alike = sum(int((one[:, 1:] == one[:, :-1]).sum()) for one in labels)
    if alike < ALIKE * sum(one[:, 1:].size for one in labels):
        raise InputError(
            "what is taken for labels has other values in nearly each pixel",
            hint="`--images FOLDER` and `--labels FOLDER` say which they are",
        )


def _is_bimodal(count: Counter[int]) -> bool:
    """Whether nearly all pixels are near 0 or near 255, and the others everywhere between."""
    ends = sum(number for value, number in count.items() if value < 32 or value >= 224)
    between = {value // 48 for value in count if 32 <= value < 224}
    return max(count) <= 255 and len(between) == 5 and ends > 0.9 * sum(count.values())


def _of_colours(stored: Sequence[StoredLabel], names: Mapping[int, str]) -> Meaning:
    inner: Counter[int] = Counter()
    painted: list[np.ndarray] = []
    for one in stored:
        assert one.rgb is not None or one.values is not None
        rgb = one.rgb if one.rgb is not None else np.repeat(one.values[..., None], 3, -1)  # type: ignore[index]
        painted.append(colour_codes(rgb))
        inner.update(_count([_inner(painted[-1])]))
    codes = _count(painted)
    _refuse_noise(painted)
    total = sum(codes.values())
    often = sorted(code for code, count in codes.items() if count >= RARE * total)
    rest = [code for code in codes if code not in often]
    blurred = len(rest) > max(8, len(often))
    kept = [c for c in often if inner[c] > INNER * codes[c]] if blurred else sorted(codes)
    rest = [code for code in codes if code not in kept]
    if len(kept) < 2:
        hint = "store what they mean as grey values; transparency is not read"
        raise InputError(f"all labels have one colour, #{kept[0]:06x}", hint=hint)
    if len(kept) > MAX_CLASSES:
        raise InputError(f"labels are painted in {len(kept)} colours: too many")
    known = {_code(colour): name for colour, name in _colour_names(names).items()}
    labels = {
        f"#{code:06x}": known.get(code, "background" if code == 0 else f"class_{index}")
        for index, code in enumerate(kept)
    }
    told = Meaning(f"{len(codes)} colours", {"labels": labels})
    if not {*kept} <= {*known}:
        told.guesses["labels"] = "names in the order of the colours; give them their own"
        if 0 in kept and 0 not in known:
            told.guesses["labels"] += "; `ignore` black if it means not labelled"
    if blurred:
        labels["other"] = "ignore"
        told.guesses["labels"] = (
            f"{len(rest)} rare colours are taken for blurred edges; name the others"
        )
    return told


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _colour_names(names: Mapping[int, str]) -> dict[Colour, str]:
    return {
        (value >> 16 & 255, value >> 8 & 255, value & 255): name
        for value, name in names.items()
        if value >= COLOURED
    }


COLOURED = 1 << 24  # names of colours are kept under their code plus this


def names_in(root: Path) -> dict[int, str]:
    """The names of classes that a list beside the data gives: by value, by line, or by colour."""
    for name in NAME_FILES:
        for file in (*sorted(root.glob(name)), *sorted(root.glob(f"*/{name}"))):
            try:
                text = file.read_text(encoding="utf-8-sig")
                found = _of_json(text) if name.endswith(".json") else _parsed(text)
            except (OSError, ValueError, csv.Error):
                continue
            if found:
                return found
    return {}


def _of_json(text: str) -> dict[int, str]:
    """Names by value in {"0": "sea"}, {"sea": 0}, ["sea"], or one of these under `labels`."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(tree, dict):
        tree = tree.get("labels", tree)
    if isinstance(tree, list) and tree and all(isinstance(one, dict) for one in tree):
        return _of_objects(tree)
    pairs = [*enumerate(tree)] if isinstance(tree, list) else []
    if isinstance(tree, dict):
        pairs = [
            (name, key) if isinstance(name, int) else (key, name) for key, name in tree.items()
        ]
    if not all(isinstance(name, str) and str(value).isdecimal() for value, name in pairs):
        return {}
    return {int(value): name for value, name in pairs}


def _of_objects(objects: Sequence[Mapping[str, object]]) -> dict[int, str]:
    """Names by colour or value in [{"name": "sea", "color": "#0000ff"}] or [{"name", "id"}]."""
    found: dict[int, str] = {}
    for one in objects:
        name, colour = one.get("name"), as_colour(str(one.get("color")))
        value = COLOURED + _code(colour) if colour else one.get("id")
        if not isinstance(name, str) or not isinstance(value, int):
            return {}
        found[value] = name
    return found


def _parsed(text: str) -> dict[int, str]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    found: dict[int, str] = {}
    for index, line in enumerate(lines):
        colour = re.fullmatch(r"([^:]+):(\d+),(\d+),(\d+):.*", line)  # CVAT's labelmap.txt
        row = next(csv.reader([line]), [])
        numbered = re.fullmatch(r"(\d+)\s*[:=]\s*(\S.*)", line)
        painted = _COLOUR_FIRST.fullmatch(line) or _COLOUR_LAST.fullmatch(line)
        if colour:
            red, green, blue = map(int, colour.groups()[1:])
            found[COLOURED + _code((red, green, blue))] = colour[1].strip()
        elif numbered:
            found[int(numbered[1])] = numbered[2]
        elif painted:
            red, green, blue = (int(painted[one]) for one in ("red", "green", "blue"))
            found[COLOURED + _code((red, green, blue))] = painted["name"].strip()
        elif len(row) == 4 and all(part.strip().isdecimal() for part in row[1:]):
            red, green, blue = map(int, row[1:])
            found[COLOURED + _code((red, green, blue))] = row[0].strip()
        elif len(row) == 2 and row[0].strip().isdecimal():
            found[int(row[0])] = row[1].strip()
        elif len(row) == 1:
            found[index] = row[0].strip()
    return found
