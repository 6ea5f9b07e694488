"""The examples: each as a tiny study, functions without Ray too; the diffs in their pages."""

from __future__ import annotations

import difflib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from study.config.own_training import PLACEHOLDERS
from study.losses.digest import ECHO
from study.trials.local import Terminal, context_of, local_context

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ORIGINAL = EXAMPLES / "plain_torch" / "train.py"
CHANGED = [EXAMPLES / "plain_torch" / "train_in_study.py", EXAMPLES / "command" / "train.py"]
FUNCTIONS = ["plain_torch.train_in_study", "smp_loop.train", "lightning.train"]
FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/task.yaml"))
MOST_ADDED = 40


def _needs(name: str) -> None:
    if name.startswith("lightning"):
        reason = "needs the package lightning: pip install -e '.[lightning]'"
        pytest.importorskip("lightning", reason=reason)


def _diff(changed: Path) -> str:
    before, after = (path.read_text("utf-8").splitlines() for path in (ORIGINAL, changed))
    one, other = (str(path.relative_to(EXAMPLES)) for path in (ORIGINAL, changed))
    return "\n".join(difflib.unified_diff(before, after, one, other, lineterm=""))


@pytest.mark.parametrize("changed", CHANGED, ids=lambda path: path.parent.name)
def test_a_page_shows_the_few_lines_that_a_script_needs(changed: Path) -> None:
    page = (changed.parent / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"^```diff\n(.*?)\n```", page, flags=re.MULTILINE | re.DOTALL)
    assert shown == _diff(changed)
    added = [line for line in shown.splitlines() if line.startswith("+") and line[:3] != "+++"]
    assert 0 < len(added) <= MOST_ADDED


def test_the_examples_page_names_each_folder() -> None:
    page = (EXAMPLES / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| \[(\w+)\]", page, flags=re.MULTILINE)) == FOLDERS
    assert len(FOLDERS) == 4


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_task_states_the_pixels_of_its_data(folder: str) -> None:
    from examples.plain_torch.train import CLASSES, draw_scenes

    classes = yaml.safe_load((EXAMPLES / folder / "task.yaml").read_text("utf-8"))["classes"]
    _, labels = draw_scenes(1, 48)
    assert classes["names"] == CLASSES
    assert classes["pixels"] == torch.bincount(labels[labels != 255]).tolist()


@pytest.mark.parametrize("page", [EXAMPLES / "README.md", ROOT / "docs" / "your_trainer.md"])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_names_what_the_adapters_have() -> None:
    page = (ROOT / "docs" / "your_trainer.md").read_text("utf-8")
    rows = re.findall(r"^\| \S.* \| `(\w+)\.(\w+)`(?:, `(\w+)`)? \|", page, flags=re.MULTILINE)
    adapters = ROOT / "study" / "adapters"
    assert {row[0] for row in rows} == {
        path.stem for path in adapters.glob("*.py") if path.stem not in ("__init__", "relay")
    }
    for file, *names in rows:
        text = (adapters / f"{file}.py").read_text("utf-8")
        assert all(f"class {name}" in text for name in names if name), (file, names)


def test_the_page_names_every_placeholder_of_a_command() -> None:
    page = (ROOT / "docs" / "your_trainer.md").read_text("utf-8")
    assert [name for name in PLACEHOLDERS if f"`{{{name}}}`" not in page] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_reports_all_epochs_and_its_test(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _needs(name)
    monkeypatch.setenv(ECHO, "")
    task = EXAMPLES / name.partition(".")[0] / "task.yaml"
    config = local_context(task, folder=tmp_path).config
    shown: list[str] = []
    terminal = Terminal(config.task.num_epochs, shown.append)
    context = context_of(config, terminal, confirmation=True, device="cpu", folder=tmp_path)
    importlib.import_module(f"examples.{name}").train(context)
    assert len(shown) == config.task.num_epochs
    assert terminal.metrics["val/iou/road"] > 0.5
    assert terminal.metrics["test/iou/road"] > 0.5


@pytest.mark.slow
def test_the_original_runs_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    words = [sys.executable, str(ORIGINAL), "--epochs", "1", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert re.search(r"^epoch 1: loss .*\ntest mIoU", done.stdout, flags=re.MULTILINE)
    assert out.is_file()


@pytest.mark.ray
@pytest.mark.parametrize(
    "folder",
    [
        # the functions run above; as studies they differ in nothing that Ray sees
        pytest.param(one, marks=[] if one == "command" else pytest.mark.long)
        for one in FOLDERS
    ],
)
def test_an_example_runs_as_a_study(folder: str, tmp_path: Path) -> None:
    _needs(folder)
    python = Path(sys.executable).parent
    words = [sys.executable, "-m", "study.run", "examples/space.yaml", "--num-trials", "3"]
    words += ["--confirm-seeds", "1"]
    words += ["--task", f"examples/{folder}/task.yaml", "--storage", str(tmp_path), "--name", "s"]
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads((tmp_path / "s" / "answer.json").read_text("utf-8"))
    assert answer
    assert " failed" not in done.stdout
    export = yaml.safe_load((tmp_path / "s" / "exports" / "best_miou.yaml").read_text("utf-8"))
    assert export["task"]["trial"]


@pytest.mark.ray
def test_the_notebook_runs_and_shows_its_answer(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [[one for one in cell.outputs if one.output_type != "stream"] for cell in code]
    assert not [one for cell in code for one in cell.outputs if one.get("name") == "stderr"]
    (answer,) = outputs[1]
    assert "finished" in answer.data["text/plain"] and "<table" in answer.data["text/html"]
    assert "tuned rule" in outputs[2][0].data["text/plain"]
    assert ["image/png" in cell[0].data for cell in outputs[3:]] == [True, True]
    kept = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in kept["cells"])
