"""Command lines of tests/bad_input that must be refused."""

from __future__ import annotations

from pathlib import Path

from bad_input.regenerate import error_of_command, expected, load_case, set_up

AWAY = "run_ray_cluster_away.yaml"  # what Ray itself has to find out


def written(folder: Path) -> list[Path]:
    """What lies in a folder, but for what Python keeps of modules that it has imported."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def is_refused(name: str, folder: Path) -> None:
    case = load_case(name)
    set_up(case, folder)
    before = written(folder)
    code, line = error_of_command(case, folder)
    assert line == expected(name)
    assert code == 2
    assert written(folder) == before
