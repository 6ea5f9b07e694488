"""Draws the pictures of docs/tutorial.md, into docs/tutorial/, without training anything.

    python -m docs.tutorial_pictures

The contact sheet is the one that the tutorial's own commands write. The plots of the report and the
predictions are those of the study that comes with the package: the tutorial's few images and
epochs would show little. All texts are enlarged, to be read in a narrow column.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from docs.architecture import ROOT
from study.analysis.answer import Answer
from study.core.files import write_bytes
from study.ledger.state import State
from study.reporting import plots
from study.reporting.pictures import IMAGE, NEW, OLD, TRUTH, Pictures, UInt8Array
from study.reporting.recorded import recorded_pictures, unpack_recorded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = ROOT / "docs" / "tutorial.md"
HERE = ROOT / "docs" / "tutorial"
SHEET = "sheet.png"  # as the tutorial calls it
LIMIT = 600  # seconds for a block of commands
DPI, WIDTH = 150, 6.0  # pixels per inch; inches
POINTS = 10.5  # of a text at least: readable in a column of 420 pixels
COLOURS = 256
LEFT = 640  # pixels of the contact sheet that are shown
KEYS = 4  # names of colours side by side


def blocks(language: str) -> list[str]:
    """The tutorial's blocks of code in a language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(folder: Path) -> Iterator[tuple[str, str]]:
    """Run the tutorial in an empty folder; give each block of commands and what it has printed.

    Raises subprocess.CalledProcessError where a command fails.
    """
    (script,) = blocks("python")
    (folder / "draw.py").write_text(script, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    for block in blocks("bash"):
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        yield block, done.stdout


@dataclass(frozen=True)
class Shown:
    """What is drawn: the contact sheet's file, and the recorded study."""

    sheet: Path
    state: State
    answer: Answer
    pictures: Pictures


def pictures(sheet: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures by name, in the order of the page. sheet: as the tutorial has written it."""
    with tempfile.TemporaryDirectory() as folder:
        state, answer = unpack_recorded(Path(folder))
    shown = Shown(sheet, state, answer, recorded_pictures())
    for name, draw in PICTURES.items():
        yield name, draw(shown)


def _contact_sheet(shown: Shown) -> bytes:
    with Image.open(shown.sheet) as sheet:
        return _saved(sheet.convert("RGB").crop((0, 0, LEFT, sheet.height)))


def _plot(
    shown: Shown,
    *,
    height: float,
    draw: Callable[[Axes, Shown], None],
    legend_below: bool = False,
) -> bytes:
    made, axes = plots.figure(WIDTH, height)
    draw(axes[0, 0], shown)
    if legend_below:
        plots.legend_below(made, axes[0, 0])
    return _drawn(made)


def _differences(axes: Axes, shown: Shown) -> None:
    plots.forest(axes, shown.answer)
    axes.get_legend().remove()
    axes.set_title(axes.get_title("left"), loc="left", pad=6)


def _learning_curves(axes: Axes, shown: Shown) -> None:
    key = shown.answer.primary.val_miou
    plots.curves(axes, shown.state, shown.answer, key, legend=False)


def _by_class(axes: Axes, shown: Shown) -> None:
    assert shown.state.study is not None
    data = shown.state.study.judged_data
    pairs = zip(data["class_fraction"], data["class_names"], strict=True)
    winner = shown.answer.config(shown.answer.best_miou)
    assert winner is not None
    order = [name for _, name in sorted(pairs, reverse=True)]
    plots.per_class(axes, shown.answer, winner, order)


def _strip(shown: Shown) -> bytes:
    row = next(row for row in shown.pictures.rows if row.kind == "rare")
    panels = {name: row.panels[name] for name in (IMAGE, TRUTH, OLD, NEW)}
    seen = {tuple(rgb) for name in (TRUTH, OLD, NEW) for rgb in panels[name].reshape(-1, 3)}
    return _panels(panels, {name: rgb for name, rgb in shown.pictures.classes if rgb in seen})


def _overlay(shown: Shown) -> bytes:
    row = next(row for row in shown.pictures.rows if row.kind == "random")
    image, mask = row.panels[IMAGE], row.panels[NEW]
    half = ((image.astype(np.uint16) + mask) // 2).astype(np.uint8)
    return _panels({"image": image, "masks": mask, "overlays": half}, {})


PICTURES: Mapping[str, Callable[[Shown], bytes]] = {
    "contact_sheet": _contact_sheet,
    "operating_points": partial(
        _plot, height=5.4, draw=lambda axes, shown: plots.rule_curves(axes, shown.answer)
    ),
    "differences": partial(_plot, height=2.6, draw=_differences, legend_below=True),
    "classes": partial(_plot, height=4.2, draw=_by_class),
    "strip": _strip,
    "learning_curves": partial(_plot, height=3.9, draw=_learning_curves, legend_below=True),
    "overlay": _overlay,
}


def _panels(panels: Mapping[str, UInt8Array], colours: Mapping[str, tuple[int, ...]]) -> bytes:
    """Panels side by side below their names, and the names of the colours below them."""
    rows = -(-len(colours) // KEYS)
    down, across = next(iter(panels.values())).shape[:2]
    height = WIDTH / len(panels) * down / across + 0.3 + 0.25 * rows
    made, axes = plots.figure(WIDTH, height, 1, len(panels))
    for one, (name, panel) in zip(axes.flat, panels.items(), strict=True):
        one.imshow(panel, interpolation="nearest")
        one.set_title(name)
        one.set_axis_off()
    if colours:
        keys = [
            Patch(facecolor=f"#{bytes(rgb).hex()}", label=name) for name, rgb in colours.items()
        ]
        made.legend(handles=keys, loc="outside lower left", ncols=KEYS, frameon=False)
    return _drawn(made)


def _drawn(made: Figure) -> bytes:
    """A figure as a PNG, its small texts enlarged."""
    for text in made.findobj(Text):
        text.set_fontsize(max(POINTS, text.get_fontsize()))
    drawn = BytesIO()
    with plots.literal(made):
        made.savefig(drawn, dpi=DPI, facecolor="white", metadata={"Software": None})
    return _saved(Image.open(drawn).convert("RGB"))


def _saved(image: Image.Image) -> bytes:
    saved = BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(saved, "PNG", optimize=True)
    return saved.getvalue()


def main() -> None:
    """Run the tutorial as far as its contact sheet, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        for block, _ in run(Path(folder)):
            if SHEET in block:
                break
        for name, content in pictures(Path(folder, SHEET)):
            write_bytes(HERE / f"{name}.png", content)


if __name__ == "__main__":
    main()
