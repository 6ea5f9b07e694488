"""Real Ray on this machine: simulated GPUs, warm actors, faults, killed workers."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_parts
import pytest
import yaml
from safetensors.torch import load_file

import study
from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, REFERENCE, SEARCH
from study.metrics import build_decision
from study.metrics.decision import log_prior
from study.reporting.study_status import lines, status
from study.session.finished import Finished
from study.storage.studies import load

pytestmark = pytest.mark.ray

ray = pytest.importorskip("ray")

SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "optimizer": {"lr_scale": {"float": {"low": 0.5, "high": 2.0, "log": True}}},
    "study": {
        "num_trials": 4,
        "reference_trials": 1,
        "baselines": ["ce", "recall"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


def task(log: Path, faults: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "data": {
            "format": "synthetic",
            "size": [32, 48],
            "num_train": 8,
            "num_val": 4,
            "num_test": 4,
        },
        "model": {"factory": "engine_parts:build", "kwargs": {"log": str(log), "faults": faults}},
        "optimizer": {"name": "adamw", "lr": 1e-2},
        "batch_size": 4,
        "budget": {"epochs": 2},
    }


def on_a_private_ray(patch: pytest.MonkeyPatch) -> None:
    """Studies start a Ray of their own, whose processes find the parts of the tests."""
    patch.setenv("RAY_ADDRESS", "local")
    tests = Path(__file__).parents[1]
    patch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")


@pytest.fixture(autouse=True)
def no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    on_a_private_ray(monkeypatch)
    yield
    ray.shutdown()


def run(tmp_path: Path, faults: dict[str, str] | None = None, **options: Any) -> Finished:
    log = tmp_path / "pids"
    return study.run_study(SPACE, task(log, faults), storage=tmp_path, name="s", **options)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_simulated_gpus_at_half_a_gpu_a_trial_run_four_at_once_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = ray.init

    def with_gpus(**options: Any) -> Any:
        return started(**options, num_cpus=4, num_gpus=2)

    monkeypatch.setattr(ray, "init", with_gpus)
    finished = run(tmp_path, gpus_per_trial=0.5, cpus_per_trial=1.0)
    state = finished.state
    assert state.finished
    assert state.sessions[0].slots == 4
    assert state.sessions[0].gpus_per_trial == 0.5
    assert {trial.status for trial in state.trials.values()} == {COMPLETED}
    assert {trial.environment["device"] for trial in state.trials.values()} == {"cpu"}
    log = [line.split() for line in (tmp_path / "pids").read_text().splitlines()]
    log = [line for line in log if line[0] != str(os.getpid())]  # the check, the report's pictures
    pids = [pid for pid, _ in log]
    assert {arenas for _, arenas in log} == {"1"}, "or what a trial frees is not kept for it"
    assert len(pids) == len(state.trials)
    assert len(set(pids)) <= 4 < len(pids), "actors are reused between trials"
    assert_exports_are_whole(finished)


def assert_exports_are_whole(finished: Finished) -> None:
    """Each has its rule and its weights, and nothing is left of the other confirmations."""
    exports = finished.folder / "exports"
    stated = set()
    for name in ("best_miou", "best_macc", "reference"):
        tree = yaml.safe_load((exports / f"{name}.yaml").read_text(encoding="utf-8"))
        trial = finished.state.trials[tree["provenance"]["trial"]]
        stated.add(trial.id)
        decision = build_decision(tree)
        assert decision.tau == trial.last["val/tau_macc" if name == "best_macc" else "val/tau_miou"]
        assert finished.state.study is not None
        counts = finished.state.study.data["class_counts"]
        assert list(decision.log_prior) == log_prior(counts).tolist()
        digest = hashlib.sha256((exports / tree["weights"]["file"]).read_bytes()).hexdigest()
        assert tree["weights"]["sha256"] == digest
        model = engine_parts.Small(len(counts))
        model.load_state_dict(load_file(exports / tree["weights"]["file"]))
    assert {path.stem for path in (finished.folder / "weights").iterdir()} == stated


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_trial_that_half_a_gpu_is_too_small_for_is_tried_again_on_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = ray.init

    def with_gpus(**options: Any) -> Any:
        return started(**options, num_cpus=4, num_gpus=1)

    monkeypatch.setattr(ray, "init", with_gpus)
    finished = run(tmp_path, {"3": "gpu memory"}, gpus_per_trial=0.5, cpus_per_trial=1.0)
    state = finished.state
    assert state.finished
    assert state.sessions[0].slots == 2
    (short,) = [trial for trial in state.trials.values() if trial.faults]
    assert [fault.cause for fault in short.faults] == ["gpu_memory"]
    assert (short.attempt, short.gpus, short.status) == (1, 1.0, COMPLETED)
    for trial in state.trials.values():
        assert trial.gpus == (1.0 if short.id in (trial.id, trial.source) else 0.5)
    text = "\n".join(lines(status(state, driven=False, now=0.0)))
    assert f"{short.id} was given 1 GPU after: out of GPU memory: CUDA" in text


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """A study with a fault of each kind, which keeps no weights."""
    faults = {"3": "raise", "5": "memory", "6": "kill", "9": "disk", "10": "device"}
    with pytest.MonkeyPatch.context() as patch:
        on_a_private_ray(patch)
        yield run(
            tmp_path_factory.mktemp("faulty"),
            faults,
            max_concurrent=1,
            no_weights=True,
            price_per_gpu_hour=2.5,
        )
    ray.shutdown()


@pytest.mark.timeout(900)
def test_faults_are_recorded_with_their_reason_and_the_study_goes_on(faulty: Finished) -> None:
    state = faulty.state
    assert state.finished
    assert state.trials["t0001"].status == FAILED
    assert state.trials["t0003"].status == FAILED
    ends = [trial.end for trial in state.trials.values() if trial.end is not None]
    reasons = [end.reason for end in ends if end.status == FAILED]
    assert any("the model would not be built" in reason for reason in reasons)
    assert any("out of memory" in reason for reason in reasons)
    assert state.trials["t0004"].status == COMPLETED, "a killed worker's trial is trained again"
    assert len(state.of_stage(SEARCH, REFERENCE)) == 4
    assert len(state.of_stage(BASELINE)) == 2
    lost, beside, *_, again = state.of_stage(CONFIRM)
    assert lost.end is not None and lost.end.by_machine
    assert lost.end.reason == "OSError: [Errno 28] No space left on device"
    assert (again.source, again.seed, again.status) == (lost.source, lost.seed, COMPLETED)
    assert beside.status == COMPLETED, "what lost its device goes on in a fresh process"


def test_a_studys_files_are_bounded_and_its_numbers_agree(faulty: Finished) -> None:
    assert not list(faulty.folder.rglob("*.pt")), "no checkpoint outlives its trial"
    assert load(faulty.folder).trials == faulty.state.trials
    assert (faulty.folder / "space.yaml").is_file()
    assert (faulty.folder / "task.yaml").is_file()
    confirmed = faulty.state.completed(CONFIRM)
    assert confirmed
    for trial in confirmed:
        assert "test/miou" in trial.last
    judged = {path.stem for path in (faulty.folder / "evidence").iterdir()}
    assert judged == {trial.id for trial in confirmed}
    others = faulty.state.of_stage(BASELINE, SEARCH, REFERENCE)
    assert not any("test/miou" in report for t in others for report in t.reports.values())


@pytest.mark.usefixtures("faulty")
def test_the_driver_does_not_import_mlflow_to_count_callbacks() -> None:
    assert "ray.air.integrations.mlflow" not in sys.modules


def test_no_weights_are_kept_where_none_are_wanted(faulty: Finished) -> None:
    assert list(faulty.folder.rglob("*.safetensors")) == []
    assert "weights" not in yaml.safe_load(faulty.exports[0].read_text(encoding="utf-8"))


def test_the_report_states_the_price_of_a_gpu_hour(faulty: Finished) -> None:
    assert "2.5 is that of a GPU-hour" in (faulty.folder / "report.html").read_text("utf-8")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_ends_the_study_with_one_line_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from study.ledger import journal as ledger
    from study.run import main

    class FullDisk:
        """The module os, on a disk that has room for 8 lines."""

        room = 8

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, file: int, line: bytes) -> int:
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(file, line)

    space = {**SPACE, "study": {**SPACE["study"], "num_trials": 1, "baselines": ["ce"]}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task(tmp_path / "pids")))
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(ledger, "os", FullDisk())
        assert main(["space.yaml", "--task", "task.yaml", "--name", "s"]) == 1
    err = capsys.readouterr().err
    path = tmp_path / "studies" / "s" / "ledger.jsonl"
    assert err == (
        f"error: {path}: No space left on device: the study ends here; "
        "with room again, --resume goes on with it\n"
    )
    assert len(path.read_text().splitlines()) == 8
    assert main(["--resume", "s", "--trust"]) == 0
    assert load(path.parent).finished


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_in_which_nothing_could_be_trained_ends_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from study.run import main

    space = {**SPACE, "study": {**SPACE["study"], "num_trials": 1, "baselines": ["ce"]}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    faults = {str(count): "raise" for count in range(2, 9)}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task(tmp_path / "pids", faults)))
    monkeypatch.chdir(tmp_path)
    assert main(["space.yaml", "--task", "task.yaml", "--max-concurrent", "1"]) == 1
    out = capsys.readouterr().out
    assert "FAILED at epoch 0 (InputError: model/factory" in out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_whose_trials_have_two_ranks_loses_one_and_goes_on(tmp_path: Path) -> None:
    """One of a trial's two processes is killed, or both."""
    finished = run(
        tmp_path,
        {"5": "kill", "6": "kill"},
        num_trials=2,
        confirm_seeds=1,
        ranks=2,
        cpus_per_trial=1,
        max_concurrent=1,
    )
    state = finished.state
    assert state.finished
    assert {trial.status for trial in state.trials.values()} == {COMPLETED}
    assert {trial.environment["ranks"] for trial in state.trials.values()} == {2}
    faults = [fault for trial in state.trials.values() for fault in trial.faults]
    assert {fault.cause for fault in faults} == {"lost"}
    tree = yaml.safe_load(finished.exports[0].read_text(encoding="utf-8"))
    assert tree["provenance"]["environment"]["ranks"] == 2
