"""The wheel works without the checkout: installed elsewhere, started in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def _run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (file,) = folder.glob("*.whl")
    return file


@dataclass(frozen=True)
class Installed:
    """A folder with nothing but the installed package, and an empty one to work in."""

    target: Path
    empty: Path

    def python(self, *arguments: str) -> str:
        """Run Python in the empty folder; the checkout is nowhere on its path."""
        environment = {**os.environ, "PYTHONPATH": str(self.target), "PYTHONSAFEPATH": "1"}
        return _run([sys.executable, *arguments], cwd=self.empty, env=environment)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, unpacked by pip."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*pip, "--target", str(target), str(wheel)])
    return Installed(target, tmp_path_factory.mktemp("empty"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    def below(folder: str) -> set[str]:
        files = (ROOT / folder).rglob("*")
        return {
            str(file.relative_to(ROOT))
            for file in files
            if file.is_file() and "__pycache__" not in file.parts
        }

    beside = {f"study/_{name}" for name in below("search_spaces") | below("schemas")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == below("study") | beside
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_shipped_space_and_task_loads_from_it(installed: Installed) -> None:
    code = (
        "import study; from study.config.shipped import shipped\n"
        "from study.config.task import load_task\n"
        "from study.space.search_space import load_space\n"
        "for name in shipped('search_spaces'): print(load_space(name).name)\n"
        "for name in shipped('tasks'): print(load_task(name).name)\n"
        "print(study.__file__)"
    )
    *names, file = installed.python("-c", code).split()
    shipped = [*(ROOT / "search_spaces").glob("*.yaml"), *(ROOT / "study/tasks").glob("*.yaml")]
    assert sorted(names) == sorted(path.stem for path in shipped)
    assert Path(file).is_relative_to(installed.target)


def test_the_default_study_is_planned_from_an_empty_folder(installed: Installed) -> None:
    plan = installed.python("-m", "study.run", "--dry-run")
    assert "joint" in plan and "synthetic" in plan
    assert list(installed.empty.iterdir()) == []


def test_the_recorded_study_is_shown_and_the_package_left_as_it_is(
    installed: Installed, tmp_path: Path
) -> None:
    def files() -> set[Path]:
        return {path for path in installed.target.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    out = tmp_path / "demo"
    printed = installed.python("-m", "study.demo", "--no-browser", "--out", str(out))
    assert f"report: {out / 'report.html'}" in printed
    assert (out / "report.html").is_file()
    assert files() == before
    assert list(installed.empty.iterdir()) == []


@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_study_runs_to_its_exports_from_an_empty_folder(installed: Installed) -> None:
    """A small one: the default study itself is the README's first command, which CI runs."""
    few = ("--num-trials", "2", "--confirm-seeds", "2")
    printed = installed.python("-m", "study.run", "--task", "tiny", *few)
    assert "vs tuned CE" in printed
    folder = installed.empty / "studies" / "joint-tiny"
    assert (folder / "exports" / "best_miou.yaml").is_file()
    assert (folder / "report.html").is_file()
    assert (installed.empty / "studies" / "mlflow.db").is_file()
    assert [path.name for path in installed.empty.iterdir()] == ["studies"]
