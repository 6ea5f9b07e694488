"""The pictures of a report: which images, what is drawn, and that no fault of theirs costs it."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ledgers import TASK, chained, make_study
from numpy.typing import NDArray
from PIL import Image

import study
from study import report as report_command
from study.analysis.answer import answer
from study.config.task import SyntheticData, TaskConfig
from study.data import SegmentationData, open_data
from study.data.sheet import coloured, hatch
from study.ledger.chain import parts
from study.ledger.journal import LEDGER
from study.reporting import pictures
from study.reporting.exports import write_exports
from study.reporting.html import write_report
from study.reporting.pictures import GREEN, GREY, NEW, OLD, PIXELS, RED, Pictures, choose, panels
from study.storage.studies import load
from study.storage.weights import WeightsStore
from study.training.models import build_model
from study.training.weights import save_weights

PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)


def data_of(num_test: int) -> SegmentationData:
    """Class 2 is the rarest of train, class 3 is not in train, class 1 alone is not in test."""
    rng = np.random.default_rng(0)
    labels = np.zeros((num_test, 8, 8), np.uint8)
    labels[:, 0, 0] = 3
    for index in (4, 9):
        labels[index, 2, : index - 2] = 2
    train = np.zeros((2, 8, 8), np.uint8)
    train[0, 0, :1], train[0, 1, :3] = 1, 2

    def with_images(of: NDArray[np.uint8]) -> tuple[Any, Any]:
        return rng.integers(0, 256, (*of.shape, 3), np.uint8), of

    tested = with_images(labels)
    return SegmentationData.from_arrays(
        "made", list("abcd"), train=with_images(train), val=tested, test=tested
    )


def of_kind(chosen: list[pictures.Chosen], kind: str) -> list[int]:
    return [one.index for one in chosen if one.kind == kind]


def test_the_largest_gains_and_losses_the_rarest_class_and_chance_choose() -> None:
    data = data_of(20)
    old = np.full(20, 0.5)
    new = old.copy()
    new[[3, 5, 7, 11]] += (0.1, 0.3, 0.2, 0.05)
    new[[2, 8, 13]] -= (0.3, 0.1, 0.2)
    new[15] = np.nan  # an image of ignored pixels
    alone = np.arange(20)
    chosen = choose({OLD: old, NEW: new}, alone, data, seed=3)
    assert of_kind(chosen, "gain") == [5, 7, 3]
    assert of_kind(chosen, "loss") == [2, 13]
    assert of_kind(chosen, "rare") == [9, 4]
    assert all("holds c, the rarest" in one.why for one in chosen if one.kind == "rare")
    assert len(chosen) == len({one.index for one in chosen}) == 9
    assert choose({OLD: old, NEW: new}, alone, data, seed=3) == chosen
    drawn = {
        tuple(of_kind(choose({OLD: old, NEW: new}, alone, data, s), "random")) for s in range(9)
    }
    assert len(drawn) > 1


def test_neighbours_are_shown_once_and_an_equal_winner_gains_nowhere() -> None:
    data = data_of(20)
    old = np.full(20, 0.5)
    new = old + np.linspace(0.01, 0.2, 20)
    pairs = np.arange(20) // 2
    chosen = choose({OLD: old, NEW: new}, pairs, data, seed=0)
    assert of_kind(chosen, "gain") == [19, 17, 15] and of_kind(chosen, "loss") == []
    assert len({pairs[one.index] for one in chosen}) == len(chosen) == 7
    assert {one.kind for one in choose({OLD: old, NEW: old}, pairs, data, 0)} == {"rare", "random"}
    few = np.arange(20) // 10
    assert of_kind(choose({OLD: old, NEW: new}, few, data, 0), "gain") == [19, 18, 17]


def test_a_winner_that_is_the_reference_shows_where_it_is_worst() -> None:
    scores = np.linspace(1, 0.1, 20)
    scores[19] = np.nan
    chosen = choose({NEW: scores}, np.arange(20), data_of(20), seed=0)
    assert of_kind(chosen, "worst") == [18, 17, 16]
    assert not of_kind(chosen, "gain") and len(of_kind(chosen, "rare")) == 2


def test_the_difference_tells_who_is_right() -> None:
    label = np.array([[0, 0, 0, 0, 255]], np.uint8)
    old, new = np.array([[0, 1, 0, 2, 0]], np.uint8), np.array([[0, 0, 1, 1, 1]], np.uint8)
    image = np.arange(15, dtype=np.uint8).reshape(1, 5, 3)
    found = panels(image, label, {OLD: old, NEW: new}, PALETTE)
    assert [*found] == ["image", "truth", "reference", "winner", "difference"]
    stripes = hatch(1, 5)[0, 4].tolist()
    white = [255, 255, 255]
    shown = found["difference"][0].tolist()
    assert shown == [white, [*GREEN], [*RED], [*GREY], stripes]
    assert found["truth"][0].tolist() == [PALETTE[0].tolist()] * 4 + [stripes]
    assert np.array_equal(found["reference"], PALETTE[old])
    assert np.array_equal(found["winner"], PALETTE[new])
    assert np.array_equal(found["image"], image)
    alone = panels(image, label, {NEW: new}, PALETTE)
    assert alone["difference"][0].tolist() == [white, white, [*GREY], [*GREY], stripes]


def test_large_images_are_reduced_and_keep_the_colours_of_their_classes() -> None:
    label = np.random.default_rng(0).integers(0, 3, (600, 900), np.uint8)
    image = np.repeat(label[..., None], 3, 2)
    found = panels(image, label, {NEW: label}, PALETTE)
    height, width = found["truth"].shape[:2]
    assert height * width <= 1.01 * PIXELS and abs(width / height - 1.5) < 0.01
    for panel in found.values():
        assert panel.shape == (height, width, 3)
    again = np.asarray(Image.open(io.BytesIO(pictures.png(found["truth"]))).convert("RGB"))
    assert np.array_equal(again, found["truth"])


Tree = dict[str, Any]


def with_networks(folder: Path, change: Callable[[Tree], None] = lambda line: None) -> Path:
    """The study of numbers as one of the synthetic data, with exports of networks that nobody has
    trained. change: changes the lines of its ledger."""
    data = open_data(TaskConfig.model_validate(TASK).data)
    lines = [json.loads(parts(line)[0]) for line in (folder / LEDGER).read_text().splitlines()]
    lines[0]["data"] |= {
        "fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "class_counts": data.train.class_counts.sum(0).tolist(),
    }
    for line in lines:
        change(line)
    (folder / LEDGER).write_bytes(chained([json.dumps(line).encode() for line in lines]))
    state = load(folder)
    for seed, trial in enumerate(state.of_stage("confirm")):
        torch.manual_seed(seed)
        task = TaskConfig.model_validate(trial.config["task"])
        network = build_model(task.model, data.num_classes)
        save_weights(folder / "weights" / f"{trial.id}.safetensors", network, data)
    write_exports(folder, state, answer(state, folder), WeightsStore(folder))
    return folder


def convolution(line: Tree) -> None:
    """Let every training have the smallest network."""
    small = {"factory": "code_of_somebody:net", "kwargs": {}}
    for tree in (line, line.get("config") or {}):
        if isinstance(tree.get("task"), dict):
            tree["task"]["model"] = small


MODULE = """
from pathlib import Path
import torch
Path("ran").touch()
def net(num_classes):
    return torch.nn.Conv2d(3, num_classes, 1)
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed study whose networks are a factory's."""
    place = tmp_path_factory.mktemp("studies")
    (place / "code_of_somebody.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sys.path", [path for path in sys.path if path])
        return with_networks(make_study(place / "demo", num_seeds=2, rules=True), convolution)


@pytest.fixture
def place(networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, beside its code, which has not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    sys.modules.pop("code_of_somebody", None)
    (tmp_path / "code_of_somebody.py").write_text(MODULE)
    return Path(shutil.copytree(networks, tmp_path / "demo"))


def drawn(folder: Path, *, trust: bool = True) -> Pictures | str:
    state = load(folder)
    return pictures.pictures(folder, state, answer(state, folder), trust=trust)


def test_each_row_shows_what_the_exported_networks_predict(place: Path) -> None:
    found = drawn(place)
    assert isinstance(found, Pictures)
    data = open_data(SyntheticData.model_validate(TASK["data"]))
    networks = {
        name: study.load(place / "exports" / f"{file}.yaml", trust=True)
        for name, file in ((OLD, "reference"), (NEW, "best_miou"))
    }
    assert len(found.rows) == len({row.name for row in found.rows}) >= 4
    for row in found.rows:
        index = data.test.names.index(row.name)
        assert np.array_equal(row.panels["image"], data.test.images[index])
        truth = coloured(np.asarray(data.test.labels[index]), data.palette)
        assert np.array_equal(row.panels["truth"], truth)
        for name, network in networks.items():
            classes = network.predict(np.asarray(data.test.images[index])).classes
            assert np.array_equal(row.panels[name], data.palette[classes])
        width = 2 * row.panels["image"].shape[1]  # small images are enlarged
    for name in (OLD, NEW):
        sheets = dict(pictures.files_of_trial(found, name))
        for row, sheet in zip(found.rows, sheets.values(), strict=True):
            last = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))[-1, -width::2]
            assert np.array_equal(last, row.panels[name][-1])
    shown = {data.class_names.index(name) for name, _ in found.classes}
    assert shown == set().union(*(row.classes for row in found.rows)) - {255}


@pytest.mark.slow
def test_the_page_and_the_folder_hold_the_pictures_of_this_report_alone(place: Path) -> None:
    old = place / "plots" / "pictures" / "8_gain.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of an earlier report")
    state = load(place)
    page = write_report(place, state, answer(state, place), trust=True).read_text()
    found = drawn(place)
    assert isinstance(found, Pictures)
    names = {f"{n}_{row.kind}.png" for n, row in enumerate(found.rows, 1)}
    assert {path.name for path in old.parent.iterdir()} == names
    predictions = {path.parent.name: path for path in place.glob("plots/*/predictions")}
    exports = {name: place / "exports" / f"{name}.yaml" for name in ("reference", "best_miou")}
    stated = {yaml.safe_load(path.read_text())["provenance"]["trial"] for path in exports.values()}
    assert predictions.keys() == stated and len(stated) == 2
    for folder in predictions.values():
        assert {path.name for path in folder.iterdir()} == names
    for row in found.rows:
        for panel in row.panels:
            assert f'alt="{panel} of {row.name}" src="data:image/png;base64,' in page
    assert html.escape(found.rule) in page and len(page) < 3e6
    (place / "exports" / "best_miou.safetensors").write_bytes(b"0")
    page = write_report(place, state, answer(state, place), trust=True).read_text()
    (said,) = re.findall("<p>No pictures of what is predicted: (.*)</p>", page)
    assert "the weights are not those that the export names" in said
    assert not [*old.parent.iterdir()] and not [*place.glob("plots/*/predictions/*")]


def remove_export(folder: Path) -> None:
    (folder / "exports" / "reference.yaml").unlink()


def damage_weights(folder: Path) -> None:
    (folder / "exports" / "best_miou.safetensors").write_bytes(b"0")


def forget_weights(folder: Path) -> None:
    of_export(folder, lambda tree: tree.pop("weights"))


def take_another_trial(folder: Path) -> None:
    of_export(folder, lambda tree: tree["provenance"].update(trial="t0001"))


def of_export(folder: Path, change: Callable[[Tree], object]) -> None:
    path = folder / "exports" / "best_miou.yaml"
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree))


def change_data(folder: Path) -> None:
    of_export(folder, lambda tree: tree["task"]["data"].update(seed=1))


def forget_evidence(folder: Path) -> None:
    shutil.rmtree(folder / "evidence")


def break_code(folder: Path) -> None:
    text = f"{MODULE}\nclass Net(torch.nn.Conv2d):\n    def forward(self, x): raise SystemExit(3)\n"
    text += "def net(num_classes):\n    return Net(3, num_classes, 1)\n"
    (folder.parent / "code_of_somebody.py").write_text(text)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (remove_export, "there is no exports/reference.yaml"),
        (forget_weights, "the export has no weights"),
        (damage_weights, "the weights are not those that the export names"),
        (take_another_trial, "exports/best_miou.yaml is of an earlier state of the study"),
        (change_data, "the data are not those of the study"),
        (forget_evidence, "has left no counts per image"),
        (break_code, "called sys.exit(3)"),
    ],
)
def test_what_is_amiss_is_said_instead(place: Path, harm: Callable[[Path], None], why: str) -> None:
    harm(place)
    said = drawn(place)
    assert isinstance(said, str) and why in said and "\n" not in said


@pytest.mark.parametrize("until", ["start", "select"])
def test_before_the_confirmation_there_are_none(tmp_path: Path, until: str) -> None:
    assert drawn(make_study(tmp_path / "demo", until=until)) == "nothing is confirmed yet"


@pytest.mark.slow
def test_the_command_runs_the_study_s_code_for_pictures_where_it_is_trusted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran, page = place.parent / "ran", place / "report.html"
    assert report_command.main([str(place)]) == 0
    assert not ran.exists() and "No pictures" in page.read_text()
    assert "if you trust it, add --trust" in page.read_text()
    assert report_command.main([str(place), "--trust"]) == 0
    assert ran.exists() and "No pictures" not in page.read_text()


def test_code_that_no_task_of_the_study_names_is_not_run(place: Path) -> None:
    lines = [json.loads(parts(line)[0]) for line in (place / LEDGER).read_text().splitlines()]
    lines[0]["task"]["model"] = TASK["model"]
    (place / LEDGER).write_bytes(chained([json.dumps(line).encode() for line in lines]))
    said = drawn(place)
    assert isinstance(said, str) and "no task of the study names the factory" in said
    assert not (place.parent / "ran").exists()
