"""The files for places where a cluster may be: a lab, Slurm, Kubernetes, SkyPilot."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.run import parser

ROOT = Path(__file__).parents[1]
RAYJOB, SKY = ROOT / "cluster" / "rayjob.yaml", ROOT / "cluster" / "sky.yaml"
LAB, SLURM = ROOT / "cluster" / "lab.sh", ROOT / "slurm" / "study.sbatch"
CRD = "STUDY_RAYJOB_CRD"  # ray.io_rayjobs.yaml of KubeRay


def rayjob() -> dict[str, Any]:
    tree = yaml.safe_load(RAYJOB.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("file", [RAYJOB, SKY, SLURM, ROOT / "cluster.yaml"])
def test_every_flag_of_study_run_in_the_files_exists(file: Path) -> None:
    known = {flag for action in parser()._actions for flag in action.option_strings}
    text = file.read_text(encoding="utf-8").replace("\\\n", " ").replace("\n#", " ")
    found = re.findall(r"study\.run (.*?)(?:'|\n\n|$)", re.sub(r"\n +", " ", text))
    flags = {flag for command in found for flag in re.findall(r" (--[a-z-]+)", f" {command}")}
    assert flags, "the file runs a study"
    assert flags <= known, flags - known


def test_the_head_of_the_rayjob_trains_nothing_and_nobody_without_a_token_gets_in() -> None:
    spec = rayjob()["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    command = " ".join(spec["entrypoint"].split())
    assert "--device gpu" in command
    assert f"--max-concurrent {worker['maxReplicas']}" in command, "Ray cannot tell it"
    assert "--storage s3://" in command
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert f"--cpus-per-trial {limits['cpu']} " in command


@pytest.mark.skipif(CRD not in os.environ, reason=f"{CRD} names no schema of KubeRay's")
def test_the_rayjob_fits_the_schema_of_kuberay() -> None:
    import jsonschema

    crd = yaml.safe_load(Path(os.environ[CRD]).read_text(encoding="utf-8"))
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    _refuse_unknown_keys(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    check = jsonschema.Draft7Validator(schema)
    assert [error.message for error in check.iter_errors(rayjob())] == []
    misspelt = rayjob()
    misspelt["spec"]["rayClusterSpec"]["authOption"] = {}
    assert [*check.iter_errors(misspelt)], "an unknown key is seen"


def _refuse_unknown_keys(schema: Any) -> None:
    """As `kubectl apply` does: the schema of a CRD alone drops them in silence."""
    if isinstance(schema, list):
        for part in schema:
            _refuse_unknown_keys(part)
    if not isinstance(schema, dict):
        return
    if schema.get("x-kubernetes-int-or-string"):
        for key in ("anyOf", "pattern"):
            schema.pop(key, None)
        schema["type"] = ["integer", "string"]
    schema.pop("format", None)
    open_end = ("additionalProperties", "x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not any(schema.get(key) for key in open_end):
        schema["additionalProperties"] = False
    for part in list(schema.values()):
        _refuse_unknown_keys(part)


SSH = """#!/bin/bash
shift 2
echo "$1: $2" >> "$NOTED"
[ "$2" = "${2#umask}" ] || { cat > /dev/null; }
"""


def lab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lab.sh with an ssh that notes what it is to run, and where."""
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    (folder / ".ray").mkdir(exist_ok=True)
    (folder / ".ray" / "auth_token").write_text("0" * 64)
    noted = str(folder / "noted")
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "NOTED": noted}
    return subprocess.run(
        [LAB, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_the_lab_starts_its_head_first_and_gives_each_box_the_token(tmp_path: Path) -> None:
    done = lab(tmp_path, "up", "a", "b", "c")
    assert done.returncode == 0, done.stderr
    noted = (tmp_path / "noted").read_text().splitlines()
    assert [line.partition(":")[0] for line in noted] == ["a", "a", "b", "b", "c", "c"]
    assert all("cat > ~/.ray/auth_token" in line for line in noted[::2])
    assert "ray start --head" in noted[1] and "--dashboard-host=127.0.0.1" in noted[1]
    assert all("ray start --address=a:6379" in line for line in noted[3::2])
    assert all("RAY_AUTH_MODE=token" in line for line in noted[1::2])


def test_the_lab_takes_a_late_box_and_stops_the_head_last(tmp_path: Path) -> None:
    assert lab(tmp_path, "add", "a", "d").returncode == 0
    assert lab(tmp_path, "down", "a", "b", "d").returncode == 0
    noted = (tmp_path / "noted").read_text().splitlines()
    assert [line.partition(":")[0] for line in noted] == ["d", "d", "b", "d", "a"]
    assert all(line.endswith("ray stop") for line in noted[2:])
    wrong = lab(tmp_path, "restart", "a")
    assert (wrong.returncode, wrong.stderr) == (2, "usage: lab.sh up|add|down HEAD [BOX ...]\n")


def test_the_slurm_script_is_bash_and_asks_for_a_token(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", SLURM], check=False).returncode == 0
    assert LAB.stat().st_mode & stat.S_IXUSR
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "name": "roads",
        "task": "task.yaml",
    }
    done = subprocess.run(
        ["bash", SLURM], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "first, once: ray get-auth-token --generate\n")
