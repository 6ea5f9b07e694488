"""Pictures of a study: test images that a rule chooses, as reference and winner see them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from study.analysis import evidence
from study.analysis.answer import Answer, Confirmed
from study.core.errors import InputError, deed, printable
from study.core.names import TEST
from study.data.sheet import coloured, hatch
from study.ledger.state import State
from study.metrics.counts import metrics_from_counts
from study.reporting.exports import BEST_MIOU, BY_MIOU, FOLDER, REFERENCE

if TYPE_CHECKING:
    from study.config.task import TrialConfig
    from study.data import SegmentationData
    from study.inference import Predictor

IMAGE, TRUTH, DIFFERENCE = "image", "truth", "difference"
OLD, NEW = "reference", "winner"
GAINS, LOSSES, RARE, RANDOM = 3, 2, 2, 2
MOST = GAINS + LOSSES + RARE + RANDOM
PIXELS = 120_000  # of a panel at most: nine rows stay below about 3 MB in the page
AT_ONCE = 2_000_000  # pixels that are predicted at a time
GREEN, RED, GREY = (18, 161, 80), (209, 73, 91), (140, 140, 140)
MIN_HEIGHT, LINE, GAP = 120, 14, 4  # pixels of a row's file

Named = tuple[str, tuple[int, ...]]  # a name and its RGB colour
UInt8Array = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """An image of test, and why it is shown: `kind` in a word, `why` in words."""

    index: int
    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class Row:
    """One image. classes: those of its truth and predictions. panels: RGB (H, W, 3), by name, in
    the order in which they are shown."""

    name: str
    kind: str
    why: str
    classes: frozenset[int]
    panels: Mapping[str, UInt8Array]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a study. rule: how the images were chosen, in words. classes: those that
    occur in them, in the order of the task. differences: what the colours of that panel mean.
    trials: whose predictions the panels named `reference` and `winner` are."""

    rows: tuple[Row, ...]
    rule: str
    classes: tuple[Named, ...]
    differences: tuple[Named, ...]
    trials: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two that are compared. scores: mean IoU of each image of test."""

    config: TrialConfig
    predictor: Predictor
    scores: Floats
    groups: NDArray[np.int64]


def pictures(folder: Path, state: State, answer: Answer, *, trust: bool) -> Pictures | str:
    """Draw the pictures of the study in `folder`, from its exports, weights and evidence.

    Args:
        trust: whether the factories that the study's own tasks name may be imported.

    Returns:
        The pictures, or why there are none, in words. No fault in here costs a report.
    """
    try:
        return _pictures(folder, state, answer, trust)
    except (Exception, SystemExit) as error:
        return str(error) if isinstance(error, InputError) else printable(deed(error))


def _pictures(folder: Path, state: State, answer: Answer, trust: bool) -> Pictures:
    from study.data import open_data

    winner, reference = answer.config(answer.best_miou), answer.reference
    if state.study is None or not answer.confirmed or winner is None:
        raise InputError("nothing is confirmed yet")
    if state.study.has_own_training:
        raise InputError("the data and the network are those of a training of your own")
    own = {
        factory
        for tree in (state.study.task, state.study.confirm_task or {})
        for part in ("data", "model")
        if (factory := tree.get(part, {}).get("factory")) is not None
    }
    configs = {NEW: winner}
    if reference is not None and reference is not winner:
        configs = {OLD: reference, NEW: winner}
    sides = {name: _side(folder, answer, name, one, own, trust) for name, one in configs.items()}
    data = open_data(sides[NEW].config.trained_here.data, begun=True)
    if data.fingerprint != state.study.judged_data.get("fingerprint"):
        raise InputError("the data are not those of the study")
    if any(len(side.scores) != len(data.test) for side in sides.values()):
        raise InputError("the evidence is not that of the test images")
    scores = {name: side.scores for name, side in sides.items()}
    chosen = choose(scores, sides[NEW].groups, data, state.study.seed)
    rows = tuple(_rows(chosen, data, sides))
    seen = frozenset[int]().union(*(row.classes for row in rows))
    classes = [
        (name, tuple(colour.tolist()))
        for index, (name, colour) in enumerate(zip(data.class_names, data.palette, strict=True))
        if index in seen
    ]
    differences: tuple[Named, ...] = (("wrong", GREY),)
    if OLD in configs:
        differences = (
            (f"the {NEW} alone is right", GREEN),
            (f"the {OLD} alone is right", RED),
            ("both are wrong", GREY),
        )
    trials = {name: BY_MIOU.stated(of)[0] for name, of in configs.items()}
    rule = _rule(answer, trials, state.study.seed)
    return Pictures(rows, rule, tuple(classes), differences, trials)


def _side(
    folder: Path, answer: Answer, name: str, of: Confirmed, own: set[str], trust: bool
) -> _Side:
    """Read one side.

    Raises:
        InputError: where the export is not there, is of another trial, has no weights or names a
            factory that is not trusted, and where there are no counts per image.
    """
    from study.training.config_file import read_config

    path = folder / FOLDER / (BEST_MIOU if name == NEW else REFERENCE)
    if not path.is_file():
        raise InputError(f"there is no {FOLDER}/{path.name}")
    read = read_config(path, trust=trust)
    if strange := set(read.config.task.factories.values()) - own:
        raise InputError(f"no task of the study names the factory {min(strange)!r}", file=path)
    trial = BY_MIOU.stated(of)[0]
    if read.provenance is None or read.provenance.trial != trial:
        raise InputError(f"{FOLDER}/{path.name} is of an earlier state of the study")
    found = evidence.read(evidence.path_of(folder, trial))
    split = found.splits.get(TEST) if found is not None else None
    counts = getattr(split, answer.primary.counts_miou, None)
    if split is None or counts is None:
        raise InputError(f"trial {trial} has left no counts per image")
    scores = metrics_from_counts(counts)["miou"]
    from study.inference import load  # imports torch, which no other part of a report needs

    return _Side(read.config, load(path, trust=trust), scores, split.groups)


def choose(
    scores: Mapping[str, Floats], groups: NDArray[np.int64], data: SegmentationData, seed: int
) -> list[Chosen]:
    """Choose images of test; each once, and at most one of a block of neighbours where there are
    enough blocks.

    Args:
        scores: mean IoU of each image, of the reference and of the winner, or of the winner alone,
            which is the reference then.
        groups: the block of each image.
        data: whose test it is.
        seed: draws the random ones.
    """
    blocks = groups if len(np.unique(groups)) >= MOST else np.arange(len(groups))
    taken: set[int] = set()
    chosen: list[Chosen] = []

    def take(order: Iterable[int], number: int, kind: str, why: str) -> None:
        for index in order:
            if number and int(blocks[index]) not in taken:
                taken.add(int(blocks[index]))
                chosen.append(Chosen(int(index), kind, why))
                number -= 1

    if OLD in scores:
        gain = scores[NEW] - scores[OLD]
        up, down = np.argsort(-gain, kind="stable"), np.argsort(gain, kind="stable")
        take(up[gain[up] > 0], GAINS, "gain", "the winner gains most")
        take(down[gain[down] < 0], LOSSES, "loss", "the winner loses most")
    else:
        order = np.argsort(scores[NEW], kind="stable")
        take(order[np.isfinite(scores[NEW][order])], GAINS, "worst", "lowest mean IoU")
    trained, tested = (split.class_counts.sum(0) for split in (data.train, data.test))
    rare = min(np.flatnonzero((trained > 0) & (tested > 0)), key=lambda one: trained[one])
    pixels = data.test.class_counts[:, rare]
    order = np.argsort(-pixels, kind="stable")
    why = f"holds {printable(data.class_names[rare])}, the rarest class of train that test has"
    take(order[pixels[order] > 0], RARE, "rare", why)
    take(np.random.default_rng(seed).permutation(len(groups)), RANDOM, "random", "drawn at random")
    return chosen


def _rule(answer: Answer, trials: Mapping[str, str], seed: int) -> str:
    named = ", ".join(f"{trial} ({name})" for name, trial in trials.items())
    at = f"at the {answer.primary.name}, from the pixel counts of trials {named}"
    first = f"those with the lowest mean IoU over their classes {at}"
    if OLD in trials:
        first = (
            f"the {GAINS} where the winner gains most on the reference and the {LOSSES} where it "
            f"loses most, by mean IoU over the classes of the image {at}"
        )
    return (
        f"Chosen from test by rule: {first}; {RARE} that hold most pixels of the rarest class of "
        f"train that test has; {RANDOM} drawn by the study's seed ({seed}). At most one is of a "
        "block of neighbouring images, where there are enough blocks. The predictions are those of "
        "the exported weights at the exported decision rule."
    )


def _rows(
    chosen: Sequence[Chosen], data: SegmentationData, sides: Mapping[str, _Side]
) -> Iterator[Row]:
    images = np.stack([data.test.images[one.index] for one in chosen])
    predicted = {name: _predicted(side.predictor, images) for name, side in sides.items()}
    for place, one in enumerate(chosen):
        told = ", ".join(f"{100 * side.scores[one.index]:.1f} % {n}" for n, side in sides.items())
        label = np.asarray(data.test.labels[one.index])
        shown = {name: classes[place] for name, classes in predicted.items()}
        yield Row(
            data.test.names[one.index],
            one.kind,
            f"{one.why}; mean IoU of the image: {told}",
            frozenset(np.unique([label, *shown.values()]).tolist()),
            panels(images[place], label, shown, data.palette),
        )


def _predicted(predictor: Predictor, images: UInt8Array) -> UInt8Array:
    """The classes (N, H, W) of images (N, H, W, 3), some at a time: few steps, little memory."""
    import torch

    count = max(1, AT_ONCE // images[0, ..., 0].size)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        parts = [predictor(part).to(torch.uint8).numpy() for part in inputs.split(count)]
    return np.concatenate(parts)


def panels(
    image: UInt8Array,
    label: UInt8Array,
    predicted: Mapping[str, UInt8Array],
    palette: UInt8Array,
) -> dict[str, UInt8Array]:
    """The panels of a row, of at most `PIXELS` each.

    In the difference a pixel is green where the winner alone is right, red where the reference
    alone is, grey where none is, white where all are; ignored ones are hatched.

    Args:
        image: (H, W, 3) RGB. label: (H, W), C and above are ignored.
        predicted: classes (H, W) of the reference and of the winner, or of the winner alone.
        palette: (C, 3) RGB.
    """
    scale = min(1.0, (PIXELS / label.size) ** 0.5)
    size = tuple(max(1, round(side * scale)) for side in label.shape[::-1])
    nearest = Image.Resampling.NEAREST
    label, *others = (
        np.asarray(Image.fromarray(one).resize(size, nearest))
        for one in (label, *predicted.values())
    )
    shown = dict(zip(predicted, others, strict=True))
    right = {name: one == label for name, one in shown.items()}
    new = right[NEW]
    old = right.get(OLD, new)
    difference = np.full((*label.shape, 3), 255, np.uint8)
    for where, colour in ((new & ~old, GREEN), (old & ~new, RED), (~old & ~new, GREY)):
        difference[where] = colour
    ignored = (label >= len(palette))[..., None]
    return {
        IMAGE: np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)),
        TRUTH: coloured(label, palette),
        **{name: coloured(one, palette) for name, one in shown.items()},
        DIFFERENCE: np.where(ignored, hatch(*label.shape), difference),
    }


def png(panel: UInt8Array) -> bytes:
    """A panel as a PNG of at most 256 colours."""
    return _saved(Image.fromarray(panel).quantize(256, dither=Image.Dither.NONE))


def row_png(row: Row) -> bytes:
    """A row as one PNG: its panels side by side, enlarged where they are small, below their names
    and the reason."""
    zoom = max(1, -(-MIN_HEIGHT // next(iter(row.panels.values())).shape[0]))
    tiles = [one.repeat(zoom, 0).repeat(zoom, 1) for one in row.panels.values()]
    height, width = tiles[0].shape[:2]
    sheet = Image.new("RGB", ((width + GAP) * len(tiles) - GAP, height + 2 * LINE), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((2, 0), printable(f"{row.name}: {row.why}"), fill="black")
    for index, (name, tile) in enumerate(zip(row.panels, tiles, strict=True)):
        left = index * (width + GAP)
        draw.text((left + 2, LINE), name, fill="black")
        sheet.paste(Image.fromarray(tile), (left, 2 * LINE))
    return _saved(sheet)


def files(rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the rows' files: ``1_gain.png`` and so on."""
    for number, row in enumerate(rows, 1):
        yield f"{number}_{row.kind}.png", row_png(row)


def files_of_trial(drawn: Pictures, name: str) -> Iterator[tuple[str, bytes]]:
    """The same of what one of the two predicts: image, truth, prediction."""
    shown = (IMAGE, TRUTH, name)
    yield from files(
        [replace(row, panels={one: row.panels[one] for one in shown}) for row in drawn.rows]
    )


def pack(drawn: Pictures) -> bytes:
    """The bytes of a file that holds the pictures; `unpack` reads it."""
    arrays = {
        f"{number}/{name}": panel
        for number, row in enumerate(drawn.rows)
        for name, panel in row.panels.items()
    }
    about = {
        "rows": [[row.name, row.kind, row.why, sorted(row.classes)] for row in drawn.rows],
        "rule": drawn.rule,
        "classes": drawn.classes,
        "differences": drawn.differences,
        "trials": drawn.trials,
    }
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes) -> Pictures:
    """The pictures of a file that `pack` has made."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        panels: list[dict[str, UInt8Array]] = [{} for _ in about["rows"]]
        for key in arrays.files:
            number, _, name = key.partition("/")
            if name:
                panels[int(number)][name] = arrays[key]
    rows = tuple(
        Row(name, kind, why, frozenset(seen), of)
        for (name, kind, why, seen), of in zip(about["rows"], panels, strict=True)
    )
    classes, differences = (
        tuple((name, tuple(colour)) for name, colour in about[key])
        for key in ("classes", "differences")
    )
    return Pictures(rows, about["rule"], classes, differences, about["trials"])


def _saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
