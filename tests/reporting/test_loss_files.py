"""`study.export --format`: loss files of a study, or of one export, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from earlier import FOLDER, copied
from losses.standalone_files import imported
from tiny_task import tiny, tiny_data

from study import export as export_command
from study.analysis.answer import answer
from study.losses import LossConfig, build_loss
from study.losses.digest import loss_digest
from study.metrics import build_decision
from study.metrics.exported import decision_block
from study.reporting.loss_files import DataAccess, loss_files_of_study
from study.storage.studies import load
from study.training.trainer import loss_for

EARLIER = FOLDER / "finished" / "exports"
MEDIAN: dict[str, Any] = {"class_weights": {"scheme": "median_frequency"}, "normalizer": "weight"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def written(folder: Path, loss: Any, **changes: Any) -> Path:
    """An export of a training on the tiny data, with the decision rule of tau 0.7."""
    data = tiny_data()
    tree = tiny(loss, **changes).model_dump(mode="json")
    tree |= decision_block(0.7, data.train.class_counts.sum(0))
    tree["provenance"] = {
        "seed": 0,
        "metrics": {"val/miou": 0.5},
        "data": {"fingerprint": data.fingerprint},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def check_loss(module: Any, tree: Any, num_classes: int) -> None:
    """The module's loss is that of an export's config, over two steps."""
    config = LossConfig.model_validate(tree["loss"])
    ours, theirs = build_loss(config, num_classes=num_classes), module.Loss()
    assert loss_digest(config) == module.DIGEST
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(2, num_classes, 9, 8, generator=generator, requires_grad=True)
        labels = torch.randint(0, num_classes, (2, 9, 8), generator=generator)
        labels[:, 0] = 255
        torch.testing.assert_close(theirs(logits, labels), ours(logits, labels), rtol=1e-6, atol=0)


def test_an_earlier_study_has_a_file_for_each_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied("finished", tmp_path)
    before = files(folder)
    assert export_command.main(["finished", "--storage", str(tmp_path), "--format", "python"]) == 0
    new = {name: text for name, text in files(folder).items() if name not in before}
    assert {name: text for name, text in files(folder).items() if name in before} == before
    names = ["best_macc", "best_miou", "pareto/t0018", "reference"]
    assert sorted(new) == [f"exports/{name}_loss.py" for name in names]
    assert sorted(capsys.readouterr().out.splitlines())[:4] == [
        str(folder / "exports" / f"{name}_loss.py") for name in names
    ]
    for name in ("best_macc", "best_miou", "pareto/t0018"):
        tree = yaml.safe_load((EARLIER / f"{name}.yaml").read_text(encoding="utf-8"))
        text = new[f"exports/{name}_loss.py"].decode()
        check_loss(imported(text, tmp_path), tree, 11)
        assert f"From study finished on task task, trial {tree['provenance']['trial']}" in text
    assert '"Bicyclist",' in text


@pytest.mark.slow
def test_an_earlier_export_has_the_same_file_as_its_study(tmp_path: Path) -> None:
    out, export = tmp_path / "out", EARLIER / "best_miou.yaml"
    arguments = ["--storage", str(tmp_path), "--format", "python", "--out", str(out)]
    copied("finished", tmp_path)
    assert export_command.main(["finished", *arguments]) == 0
    of_study = files(out)["best_miou_loss.py"]
    assert export_command.main([str(export), "--format", "python", "--out", str(out)]) == 0
    assert files(out)["best_miou_loss.py"] == of_study
    assert not list(EARLIER.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["median_frequency", "inverse_frequency"])
def test_class_weights_are_those_of_the_training(scheme: str, tmp_path: Path) -> None:
    loss = {"class_weights": {"scheme": scheme}}
    path = written(tmp_path, loss)
    assert export_command.main([str(path), "--format", "python"]) == 0
    module = imported((tmp_path / "mine_loss.py").read_text(encoding="utf-8"), tmp_path)
    trained = dict(loss_for(tiny(loss).loss, tiny_data()).named_buffers())
    assert torch.equal(module.Loss().class_weights, trained["class_weights"])
    assert module.Loss.class_names == tiny_data().class_names
    logits = torch.randn(2, 11, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module.decide(logits), build_decision(path)(logits))
    assert export_command.main([str(path), "--format", "mmseg"]) == 2
    assert not (tmp_path / "mine_mmseg.py").exists()
    written(tmp_path, loss | {"normalizer": "weight"})
    assert export_command.main([str(path), "--format", "mmseg"]) == 0
    mmseg = imported((tmp_path / "mine_mmseg.py").read_text(encoding="utf-8"), tmp_path)
    assert mmseg.loss_decode["class_weight"] == list(module.CLASS_WEIGHTS)


def test_the_counts_of_a_ledger_are_enough(tmp_path: Path) -> None:
    folder = copied("finished", tmp_path)
    state = load(folder)
    assert state.study is not None
    counts = [1000 * (number + 1) for number in range(10)] + [0]
    state.study = replace(state.study, data={**state.study.data, "class_counts": counts})
    found = answer(state, folder)
    inverse = {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}}
    for trial in state.trials.values():
        trial.config = {**trial.config, "loss": LossConfig.model_validate(inverse).model_dump()}
    out = tmp_path / "out"
    paths = loss_files_of_study(folder / "exports", out, state, found, "python", DataAccess())
    expected = build_loss(inverse, num_classes=11, class_counts=counts).class_weights
    assert expected is not None
    for path in paths:
        module = imported(path.read_text(encoding="utf-8"), tmp_path)
        assert torch.equal(module.Loss().class_weights, expected)
        assert float(module.Loss().class_weights[-1]) == 0


def test_a_study_may_be_named_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "demo.yaml").write_text("loss: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    copied("finished", tmp_path).rename(tmp_path / "demo.yaml")
    assert export_command.main(["demo.yaml", "--storage", str(tmp_path)]) == 0
    exports = tmp_path / "demo.yaml" / "exports"
    assert export_command.main([str(exports.parent), "--format", "python"]) == 0
    assert (exports / "best_miou_loss.py").is_file()


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that ends with exit code 2 and writes nothing."""
    before = files(folder)
    assert export_command.main(arguments) == 2
    assert files(folder) == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_study_with_a_loss_that_has_no_equal_gets_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied("finished", tmp_path)
    arguments = ["finished", "--storage", str(tmp_path), "--format", "smp"]
    assert refused(arguments, tmp_path, capsys) == (
        "error: best_miou.yaml: loss/recall: segmentation-models-pytorch has no equal of recall "
        "weights; --format python writes a file that needs torch alone"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["E"], r"--format: .*/mine\.yaml is YAML already; --format python, mmseg or smp"),
        (["E", "--format", "onnx"], r"--format: invalid choice: 'onnx'"),
        (["E", "--format", "smp", "--storage", "D"], "--storage: only for the name of a study"),
        (["none.yaml", "--format", "smp"], r"none\.yaml: file not found"),
        (["D", "--out", "D"], "--out: only for loss files; add --format python"),
        (["D", "--data-root", "D"], "--data-root: only for loss files"),
        (["D", "--trust"], "--trust: only for loss files"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"E": str(written(tmp_path, {})), "D": str(tmp_path)}
    given = [places.get(one, one) for one in arguments]
    assert re.match(f"error: {line}", refused(given, tmp_path, capsys))


def test_what_an_export_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "mine.yaml"), "--format", "python"]
    path = written(tmp_path, {"class_weights": {"scheme": "manual", "weights": [1.0]}})
    line = refused(arguments, tmp_path, capsys)
    assert re.match(rf"error: {path}:\d+: loss/class_weights/weights: weights must have", line)

    path = written(tmp_path, {"factory": "os:system"})
    line = refused(arguments, tmp_path, capsys)
    assert re.match(rf"error: {path}:\d+: loss/factory: the loss is code of your own, os:sy", line)

    path = written(tmp_path, MEDIAN, data={"factory": "os:system"})
    line = refused(arguments, tmp_path, capsys)
    assert re.match(rf"error: {path}:\d+: task/data/factory: the export names the factory", line)

    path = written(tmp_path, MEDIAN)
    path.write_text(path.read_text("utf-8").replace(tiny_data().fingerprint, "f00d"), "utf-8")
    line = refused(arguments, tmp_path, capsys)
    assert line.startswith(f"error: {path}: provenance/data/fingerprint: the data are not those")


def test_a_study_without_a_best_config_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ledgers import make_study

    make_study(tmp_path / "demo", until="start")
    arguments = ["demo", "--storage", str(tmp_path), "--format", "python"]
    assert "demo: no best config to export: " in refused(arguments, tmp_path, capsys)
