"""Runs the commands of docs/tutorial.md and draws its pictures, into docs/tutorial/.

    python -m docs.tutorial_pictures FOLDER

An empty or new FOLDER gets the whole tutorial, which takes minutes; from one in which it has run,
the pictures are drawn again. They are what the commands themselves have written or plotted there,
enlarged and with fewer colours, so that they can be read in a narrow column.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from docs.architecture import ROOT
from study.analysis.answer import Answer, Confirmed, answer
from study.core.files import write_bytes
from study.ledger.state import State
from study.reporting import plots
from study.reporting.exports import BEST_MIOU, FOLDER
from study.reporting.pictures import DIFFERENCE, Pictures, pictures
from study.storage.studies import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = ROOT / "docs" / "tutorial.md"
HERE = ROOT / "docs" / "tutorial"
STUDY = Path("studies", "streets")
LIMIT = 1800  # seconds for a block of commands
DPI, WIDTH = 150, 6.0  # pixels per inch; inches
POINTS = 10.5  # of a text at least: readable in a column of 420 pixels
COLOURS = 64
SHEET = 630  # pixels of the contact sheet's left side


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


class Ran:
    """A folder in which the tutorial has run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: State = load(folder / STUDY)
        self.answer: Answer = answer(self.state, folder / STUDY)

    def judged(self) -> Confirmed:
        """The winner, or the next best where the reference itself has won."""
        reference, best = self.answer.reference, self.answer.config(self.answer.best_miou)
        others = [config for config in self.answer.configs if config is not reference]
        return best if best is not None and best is not reference else others[0]


def contact_sheet(ran: Ran) -> bytes:
    """The left side of the sheet that `study.data --out` writes."""
    sheet = Image.open(ran.folder / "sheet.png").convert("RGB")
    return _saved(sheet.crop((0, 0, min(SHEET, sheet.width), sheet.height)))


def learning_curves(ran: Ran) -> bytes:
    """Val mIoU of each trial by epoch, with the rung."""
    made, axes = plots.figure(WIDTH, 3.9)
    key = ran.answer.primary.val_miou
    plots.curves(axes[0, 0], ran.state, ran.answer, key, legend=False)
    plots.legend_below(made, axes[0, 0])
    return _drawn(made)


def operating_points(ran: Ran) -> bytes:
    """Test mIoU against mean accuracy of the confirmed configs at every decision rule."""
    made, axes = plots.figure(WIDTH, 5.4)
    plots.rule_curves(axes[0, 0], ran.answer)
    return _drawn(made)


def differences(ran: Ran) -> bytes:
    """Differences of test mIoU to tuned cross entropy."""
    made, axes = plots.figure(WIDTH, 3.4)
    plots.forest(axes[0, 0], ran.answer)
    return _drawn(made)


def classes(ran: Ran) -> bytes:
    """Test IoU of each class over the reference's."""
    data = ran.state.study.judged_data if ran.state.study else {}
    pairs = zip(data["class_fraction"], data["class_names"], strict=True)
    order = [name for _, name in sorted(pairs, reverse=True)]
    made, axes = plots.figure(WIDTH, 4.2)
    plots.per_class(axes[0, 0], ran.answer, ran.judged(), order)
    return _drawn(made)


def strip(ran: Ran) -> bytes:
    """The test image with most pixels of the rarest class: image, truth, reference, winner."""
    drawn = pictures(ran.folder / STUDY, ran.state, ran.answer, trust=False)
    if not isinstance(drawn, Pictures):
        raise SystemExit(drawn)
    row = next((row for row in drawn.rows if row.kind == "rare"), drawn.rows[0])
    panels = {name: one for name, one in row.panels.items() if name != DIFFERENCE}
    shown = {colour for one in panels.values() for colour in map(tuple, one.reshape(-1, 3))}
    return _panels(panels, {name: rgb for name, rgb in drawn.classes if rgb in shown})


def overlay(ran: Ran) -> bytes:
    """A test image, its predicted mask and its overlay, as `study.predict` writes them."""
    names = {"image": "streets/images/test", "mask": "predicted/masks"}
    names["overlay"] = "predicted/overlays"
    first = min((ran.folder / names["mask"]).iterdir()).name
    network = load_network(ran.folder / STUDY / FOLDER / BEST_MIOU)
    panels = {what: Image.open(ran.folder / name / first) for what, name in names.items()}
    return _panels(panels, {})


PICTURES: Mapping[str, Callable[[Ran], bytes]] = {
    "contact_sheet": contact_sheet,
    "learning_curves": learning_curves,
    "operating_points": operating_points,
    "differences": differences,
    "classes": classes,
    "strip": strip,
    "overlay": overlay,
}


def main(folder: Path) -> None:
    """Run the tutorial where it has not run, and write its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for block, printed in run(folder):
            print(block, printed, sep="", flush=True)
    ran = Ran(folder)
    for name, draw in PICTURES.items():
        write_bytes(HERE / f"{name}.png", draw(ran))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
