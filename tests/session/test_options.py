"""The options of a study: flags of the command and arguments of `run_study` are one model."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import study
from study.config.task import load_task
from study.core.errors import InputError
from study.run import main, parser
from study.session.options import Options, argument_names, flag_of
from study.space.search_space import load_space


def refused(**given: Any) -> str:
    """The line that a notebook gets."""
    with pytest.raises(InputError) as caught, argument_names():
        Options.of(given)
    return str(caught.value)


def test_flags_arguments_and_fields_are_the_same() -> None:
    fields = {name: field.default for name, field in Options.model_fields.items()}
    flags = {action.dest for action in parser()._actions} - {
        "help",
        "resume",
        "more_trials",
        "dry_run",
        "trust",
        "notify",
    }
    assert flags == fields.keys()
    arguments = inspect.signature(study.run_study).parameters
    assert [*arguments] == [*fields, "unknown"]
    assert {name: arguments[name].default for name in fields} == fields


def test_an_editor_can_complete_what_there_is() -> None:
    assert {"run_study", "load"} <= {*dir(study)}
    for name, option in inspect.signature(study.run_study).parameters.items():
        assert option.annotation not in (inspect.Parameter.empty, "Any"), name


def test_help_and_the_docstring_have_the_text_of_every_option() -> None:
    help_text, docstring = parser().format_help(), study.run_study.__doc__
    assert docstring is not None
    for field in Options.model_fields.values():
        assert field.description is not None
        assert field.description in " ".join(help_text.split())
        assert field.description in " ".join(docstring.split())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_trials", "0", 0),
        ("num_trials", "-1", -1),
        ("num_trials", "1.5", 1.5),
        ("num_trials", "many", "many"),
        ("confirm_seeds", "0", 0),
        ("confirm_seeds", "10001", 10001),
        ("max_concurrent", "0", 0),
        ("seed", "-1", -1),
        ("seed", str(10**18), 10**18),
        ("time_budget", "soon", "soon"),
        ("time_budget", "1d", "1d"),
        ("time_budget", "0", 0),
        ("time_budget", "nan", math.nan),
        ("trial_timeout", "soon", "soon"),
        ("trial_timeout", "0.5", 0.5),
        ("trial_timeout", "nan", math.nan),
        ("max_gpu_hours", "-1", -1),
        ("price_per_gpu_hour", "-1", -1),
        ("price_per_gpu_hour", "nan", math.nan),
        ("price_per_gpu_hour", "inf", math.inf),
        ("gpus_per_trial", "automatic", "automatic"),
        ("gpus_per_trial", "1.5", 1.5),
        ("gpus_per_trial", "2.5", 2.5),
        ("ranks", "0", 0),
        ("ranks", "65", 65),
        ("ranks", "1.5", 1.5),
        ("gpus_per_trial", "nan", math.nan),
        ("cpus_per_trial", "1e-5", 1e-5),
        ("cpus_per_trial", "-1", -1),
        ("cpus_per_trial", "inf", math.inf),
        ("name", "", ""),
        ("data_root", "", ""),
        ("storage", "", ""),
        ("storage", "gs://bucket", "gs://bucket"),
        ("tracking_uri", "", ""),
        ("space", "", ""),
        ("task", "", ""),
    ],
)
def test_a_wrong_argument_gets_the_line_of_a_wrong_flag(
    name: str, text: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = flag_of(name)
    assert main([text] if name == "space" else [f"{flag}={text}"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {flag}: ")
    assert refused(**{name: value}) == line.removeprefix("error: ").strip().replace(flag, name, 1)
    assert refused(**{name: text}) == refused(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_checkpoints", "no"),
        ("keep_checkpoints", 1),
        ("no_weights", "yes"),
        ("seed", True),
        ("seed", None),
        ("num_trials", [4]),
        ("num_trials", np.float64(4)),
        ("time_budget", None),
        ("time_budget", True),
        ("trial_timeout", True),
        ("time_budget", 10**400),
        ("cpus_per_trial", [1]),
        ("name", Path("a")),
        ("address", 6379),
        ("storage", None),
        ("tracking_uri", Path("a")),
        ("data_root", 5),
        ("space", 5),
        ("space", load_space("recall")),
        ("task", None),
        ("task", [1]),
    ],
)
def test_an_argument_of_another_type_is_refused_by_name(name: str, value: Any) -> None:
    assert refused(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_trials", np.int64(4), 4),
        ("num_trials", "4", 4),
        ("seed", np.uint8(3), 3),
        ("time_budget", "90", 90.0),
        ("time_budget", "90s", 90.0),
        ("time_budget", "30m", 1800.0),
        ("time_budget", "1.5h", 5400.0),
        ("time_budget", 60, 60.0),
        ("time_budget", np.float32(60), 60.0),
        ("trial_timeout", "30m", 1800.0),
        ("trial_timeout", "inf", math.inf),
        ("trial_timeout", 1, 1.0),
        ("max_gpu_hours", 0, 0.0),
        ("max_gpu_hours", math.inf, math.inf),
        ("price_per_gpu_hour", "2.5", 2.5),
        ("gpus_per_trial", "0.5", 0.5),
        ("gpus_per_trial", 0.01, 0.01),
        ("gpus_per_trial", 1, 1.0),
        ("gpus_per_trial", "4", 4.0),
        ("gpus_per_trial", "auto", "auto"),
        ("ranks", "2", 2),
        ("cpus_per_trial", 0, 0.0),
        ("cpus_per_trial", 1.5, 1.5),
        ("keep_checkpoints", True, True),
        ("no_weights", True, True),
        ("data_root", "town", Path("town")),
        ("storage", Path("here"), Path("here")),
        ("space", {"loss": {}}, {"loss": {}}),
        ("task", load_task("tiny"), load_task("tiny")),
    ],
)
def test_an_option_is_converted_once(name: str, value: Any, expected: Any) -> None:
    found = getattr(Options.of({name: value}), name)
    assert (found, type(found)) == (expected, type(expected))


def test_an_unknown_argument_names_the_nearest_option() -> None:
    with pytest.raises(InputError, match=r"^unknown option 'num_trails'.* 'num_trials'"):
        study.run_study(num_trails=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^unknown option 'verbose'.*space, task, data_root"):
        study.run_study(verbose=True)  # type: ignore[arg-type]


def test_an_unknown_flag_names_the_nearest_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--num-trails=3"]) == 2
    assert "--num-trails: unknown argument; did you mean '--num-trials'?" in capsys.readouterr().err
    assert main(["--num-trials"]) == 2
    assert capsys.readouterr().err.startswith("error: --num-trials: ")


def test_a_fault_that_is_found_later_names_the_argument_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data_root: "):
        study.run_study(task="tiny", data_root=tmp_path, storage=tmp_path)
    with pytest.raises(InputError, match=r"^num_trials: "):
        study.run_study("baselines", "tiny", num_trials=999, storage=tmp_path)


@pytest.mark.parametrize(
    ("ranks", "gpus", "allowed"),
    [(2, 0, True), (2, 2, True), (1, 0.5, True), (2, 0.5, False), (2, 1, False), (1, 2, False)],
)
def test_each_rank_has_a_gpu_of_its_own(ranks: int, gpus: float, allowed: bool) -> None:
    if allowed:
        assert Options.of({"ranks": ranks, "gpus_per_trial": gpus}).ranks == ranks
    else:
        expected = f"ranks: each rank has a GPU of its own, got {ranks} ranks and {gpus:g} GPUs"
        assert refused(ranks=ranks, gpus_per_trial=gpus).startswith(expected)


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"ranks": 1}, ""),
        ({"device": "gpu"}, ""),
        ({"ranks": 2}, "ranks: each rank has a GPU of its own, got 2 ranks and gpus_per_trial aut"),
        ({"device": "cpu"}, "device: device is cpu, and how many trials share a GPU is to be mea"),
    ],
)
def test_gpus_that_are_to_be_found_go_with_one_rank_and_no_cpu(
    given: dict[str, Any], refusal: str
) -> None:
    if refusal:
        assert refused(gpus_per_trial="auto", **given).startswith(refusal)
    else:
        options = Options.of({"gpus_per_trial": "auto", **given})
        assert options.finds_gpus and options.gpus is None
    assert not Options.of({"gpus_per_trial": 0.5}).finds_gpus
