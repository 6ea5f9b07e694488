"""Draws docs/answer.png: the answer of the recorded study, as curves and as one strip of pictures.

    python -m docs.demo_picture

Above, test mIoU against mean accuracy of each confirmed config at every decision rule. Below, of
the pictures in the study's report, which a rule has chosen, the one with most pixels of the rarest
class that the winner gets right.
"""

from __future__ import annotations

import hashlib
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from study.analysis.answer import Answer, Confirmed
from study.analysis.rules import TUNED, prefix_of
from study.core.files import write_bytes
from study.core.names import CE, MACC
from study.reporting import plots, tables
from study.reporting.pictures import IMAGE, NEW, OLD, TRUTH, Pictures, Row
from study.reporting.recorded import ARCHIVE, recorded_pictures, unpack_recorded

PATH = Path(__file__).with_name("answer.png")
WIDTH, HEIGHT, DPI = 8.0, 9.0, 150  # inches; pixels per inch
SMALL, LARGE = 12, 13.5  # points: readable in a column of 420 pixels
PANELS = (IMAGE, TRUTH, OLD, NEW)
NAMED = 4  # rarest classes whose colours are told


def picture() -> bytes:
    """The PNG."""
    with tempfile.TemporaryDirectory() as folder:
        state, answer = unpack_recorded(Path(folder))
    assert state.study is not None
    data = state.study.judged_data
    order = np.argsort(data["class_fraction"])
    rarest = [data["class_names"][index] for index in order]
    figure = Figure(figsize=(WIDTH, HEIGHT))
    _curves(figure.add_axes((0.09, 0.525, 0.9, 0.44)), answer)
    drawn = recorded_pictures()
    row = chosen(drawn, rarest[0])
    names = {OLD: answer.reference_name}
    for place, name in enumerate(PANELS):
        panel = figure.add_axes((0.01 + place * 0.247, 0.1, 0.239, 0.2))
        panel.imshow(row.panels[name], interpolation="nearest")
        panel.set_title(names.get(name, name), fontsize=LARGE, pad=4)
        panel.set_axis_off()
    kind, _, scores = row.why.partition("; ")
    like = sum(one.kind == row.kind for one in drawn.rows)
    told = f"Test image {row.name} (one of {like}: {kind});\n{scores}"
    figure.text(0.015, 0.1, told, fontsize=SMALL, va="top")
    colours = dict(drawn.classes)
    shown = [name for name in rarest if name in colours][:NAMED]
    keys = [Patch(facecolor=_hex(colours[name]), label=name) for name in shown]
    figure.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=NAMED,
        frameon=False,
        fontsize=SMALL,
        columnspacing=1.2,
    )
    saved = BytesIO()
    with plots.literal(figure):
        figure.savefig(saved, dpi=DPI, facecolor="white", metadata={"Software": None})
    about = PngInfo()
    for key, text in stated(answer).items():
        about.add_text(key, text)
    reduced = BytesIO()
    image = Image.open(saved).convert("RGB").quantize(128)
    image.save(reduced, "PNG", optimize=True, pnginfo=about)
    return reduced.getvalue()


def stated(answer: Answer) -> dict[str, str]:
    """What the picture rests on, as its metadata keep it: the recorded study, and the gain."""
    digest = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    return {"study": digest, "gain": tables.versus(_winner(answer), TUNED.test_miou)}


def _hex(colour: tuple[int, ...]) -> str:
    return f"#{bytes(colour).hex()}"


def chosen(drawn: Pictures, name: str) -> Row:
    """The row in which the winner gets most pixels of the class right."""
    colour = dict(drawn.classes)[name]

    def right(row: Row) -> int:
        here = [(row.panels[panel] == colour).all(-1) for panel in (TRUTH, NEW)]
        return int(np.logical_and(*here).sum())

    return max(drawn.rows, key=right)


def _winner(answer: Answer) -> Confirmed:
    winner = answer.config(answer.best_miou)
    assert winner is not None
    return winner


def _curves(axes: Axes, answer: Answer) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    plots.rule_curves(axes, answer)
    handles, labels = axes.get_legend_handles_labels()
    short = {plots.config_name(one): _name(one, answer) for one in answer.configs}
    told = {short.get(label, label): handle for handle, label in zip(handles, labels, strict=True)}
    axes.legend(
        list(told.values()),
        list(told),
        loc="upper center",
        bbox_to_anchor=(0.46, -0.15),
        ncols=2,
        frameon=False,
        fontsize=SMALL,
    )
    axes.set_title("Each loss at every decision rule", fontsize=LARGE)
    axes.xaxis.label.set_fontsize(LARGE)
    axes.yaxis.label.set_fontsize(LARGE)
    axes.tick_params(labelsize=SMALL)
    winner, reference = _winner(answer), answer.reference
    assert reference is not None
    key, across = TUNED.test_miou, f"{prefix_of(TUNED.test_miou)}{MACC}"
    high, low = 100 * winner.mean(key), 100 * reference.mean(key)
    left, right = 100 * reference.mean(across), 100 * winner.mean(across)
    axes.hlines((high, low), left, right, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("", (left, high), (left, low), arrowprops={"arrowstyle": "<->", "color": "black"})
    axes.annotate(
        f"{tables.versus(winner, key)}\npoints of mIoU, both\nat their tuned rule",
        (left, high),
        (-8, -14),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=LARGE,
        weight="bold",
    )


def _name(config: Confirmed, answer: Answer) -> str:
    if config.is_reference:
        return answer.reference_name
    if config.source == answer.best_miou:
        return f"winner: {config.family.replace('+', ' + ')}"
    if config.family == CE:
        return config.label.replace("ce lr", "cross entropy, rate")
    return config.label


if __name__ == "__main__":
    write_bytes(PATH, picture())
