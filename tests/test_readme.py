"""The README says what is there: its commands, its tree, its links and its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from exported_network import export_network
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    first, second = (block.strip() for block in _blocks("bash")[:2])
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert commands == [first, second]
    assert first.endswith(".venv/bin/python -m study.run")
    assert second.endswith(".venv/bin/python -m pytest")
    clone = (ROOT / ".ci" / "fresh_clone.sh").read_text(encoding="utf-8")
    assert "grep '^python3 -m venv ' README.md" in clone
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'step "${commands[0]}"' in script and '"${commands[1]} | tee' in script


def test_ci_makes_every_check_that_contributing_asks_for() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^\.venv/bin/(?!python)[^#\n]*", contributing, flags=re.MULTILINE)
    assert len(checks) == 3
    for check in checks:
        assert f'step "{check.strip()}"' in script
    assert len(contributing.splitlines()) < 60


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    files = [link for link in links if not link.startswith("https://")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_table_of_rooms_names_every_room() -> None:
    named = set(re.findall(r"`study/([a-z_]+)/`", README))
    assert named == {
        path.name for path in (ROOT / "study").iterdir() if path.name[0] != "_" and path.is_dir()
    }


def test_no_command_names_a_flag_that_is_not_there() -> None:
    from study.run import parser

    known = {option for action in parser()._actions for option in action.option_strings}
    used = set(re.findall(r"study\.run[^\n|`]*", README))
    flags = {flag for command in used for flag in re.findall(r"--[a-z-]+", command)}
    assert flags and flags <= known


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [{"scheme": "inverse_frequency", "exponent": 0.5}, {"scheme": "median_frequency"}],
    ids=lambda weights: weights["scheme"],
)
def test_the_winner_goes_into_a_training_loop_as_shown(
    tmp_path: Path, weights: dict[str, object]
) -> None:
    (training,) = [block for block in _blocks("python") if "build_loss" in block]
    (file,) = re.findall(r'open\("([^"]+)"\)', training)
    export = tmp_path / file
    export.parent.mkdir(parents=True)
    loss = {"class_weights": weights, "recall": None}
    tree = {"loss": loss, "optimizer": {"lr_scale": 0.5}}
    export.write_text(yaml.safe_dump(tree), encoding="utf-8")
    code = (
        "import torch\n"
        "num_classes, lr = 3, 0.1\n"
        "model, images = torch.nn.Conv2d(3, 3, 1), torch.randn(2, 3, 4, 5)\n"
        "target = torch.randint(0, 3, (2, 4, 5))\n"
        "train_labels = [torch.tensor([[0, 0, 0], [1, 2, 255]]), torch.tensor([[0, 1, 255]])]\n"
        f"{training}\nvalue.backward()\nloss.train(), loss.eval(), loss.terms()\n"
        "print(bool(model.weight.grad.abs().sum() > 0), optimizer.param_groups[0]['lr'])\n"
    )
    assert _run(code, tmp_path) == ["True 0.05"]


@pytest.mark.slow
def test_the_winner_predicts_as_shown(tmp_path: Path) -> None:
    (predicting,) = [block for block in _blocks("python") if 'study.load("' in block]
    (file,) = re.findall(r'study.load\("([^"]+)"\)', predicting)
    folder = (tmp_path / file).parent
    folder.mkdir(parents=True)
    export_network(folder)
    (picture,) = re.findall(r'predict\("([^"]+)"', predicting)
    Image.new("RGB", (100, 70), (90, 120, 30)).save(tmp_path / picture)
    code = (
        "import torch\n"
        "images = torch.zeros(2, 3, 32, 48)\n"
        f"{predicting}\n"
        "print(tuple(classes.shape), found.classes.shape, found.probabilities.shape[1:])\n"
    )
    assert _run(code, tmp_path) == ["(2, 32, 48) (70, 100) (70, 100)"]


def _run(code: str, here: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("file", ["cluster.yaml", "CITATION.cff"])
def test_yaml_beside_the_readme_is_yaml(file: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / file).read_text(encoding="utf-8")), dict)


def test_every_key_of_classes_yaml_is_described() -> None:
    from study.data.formats.folder_classes import ClassesFile

    section = README.partition("## Your own data")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    described = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert {*ClassesFile.model_fields, "names"} <= described


def test_the_citation_names_the_three_papers_and_the_terms_of_the_data() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    urls = " ".join(reference["url"] for reference in citation["references"])
    assert all(number in urls for number in ("2106.14917", "1704.02966", "2302.05666"))
    assert "research and non-commercial use" in citation["abstract"]
