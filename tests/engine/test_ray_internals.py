"""What `ray_internals` takes from Ray is still there: one test a name, so that a new Ray that lacks
one fails by it. No cluster is started."""

from __future__ import annotations

import inspect
import mmap
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray._private import services
from ray._private.state import GlobalState
from ray.exceptions import RayActorError, RayError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial

from study.engine import ray_internals

ROOT = Path(__file__).parents[2]
RAY = Path(ray.__file__).parent
RAYLET = RAY / "core/src/ray/raylet/raylet"


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def is_in_source(text: str, folders: tuple[str, ...]) -> bool:
    files = (file for folder in folders for file in (RAY / folder).rglob("*.py"))
    return any(text in file.read_text(encoding="utf-8") for file in files)


def is_in_program(text: str) -> bool:
    with RAYLET.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0


@pytest.mark.parametrize(
    "variable",
    sorted(
        (ray_internals.WORKER_ENVIRONMENT | ray_internals.DRIVER_ENVIRONMENT).keys()
        - {"MALLOC_ARENA_MAX"}  # of the C library
    ),
)
def test_ray_reads_the_variable(variable: str) -> None:
    assert is_in_source(f'"{variable}"', ("air", "train", "tune", "_private/accelerators"))


def test_the_token_and_its_mode_are_called_so() -> None:
    from ray._private.authentication import authentication_token_setup as setup

    assert ray_internals.AUTH_MODE == setup.AUTH_MODE_ENV_VAR
    assert f'"{ray_internals.TOKEN_MODE}"' in inspect.getsource(setup)
    assert ray_internals.AUTH_TOKEN.expanduser() == setup._get_default_token_path()


def test_ray_up_leaves_its_yaml_on_the_head() -> None:
    from ray.autoscaler._private import commands

    assert str(ray_internals.AUTOSCALER_CONFIG) in inspect.getsource(commands)


def test_tune_logs_below_one_logger() -> None:
    from ray.tune.execution import tune_controller

    assert tune_controller.logger.name.startswith(f"{ray_internals.TUNE_LOGGER}.")


@pytest.mark.parametrize(
    "text",
    [
        ray_internals.LOW_ON_MEMORY,
        "was %sGB used / %sGB limit",  # what MEMORY_IN_USE takes apart
        *ray_internals.PROCESS_CRASHED.split("SYSTEM_ERROR")[:1],
    ],
)
def test_the_raylet_says_so(text: str) -> None:
    assert is_in_program(text)


def test_a_crash_is_a_system_error() -> None:
    from ray.core.generated.common_pb2 import WorkerExitType  # type: ignore[attr-defined]

    name = ray_internals.PROCESS_CRASHED.rpartition(" ")[2]
    assert name in WorkerExitType.keys()  # noqa: SIM118  # no dict


def test_placement_groups_have_these_states() -> None:
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]

    known = PlacementGroupTableData.PlacementGroupState
    assert [known.Name(known.Value(name)) for name in ray_internals.WAITING_STATES]
    assert "state" in inspect.getsource(GlobalState._gen_placement_group_info)


@pytest.mark.parametrize(
    ("left_by_ray_start", "running", "joined"),
    [
        ("10.0.0.1:6379", {"10.0.0.1:6379"}, "10.0.0.1:6379"),
        ("10.0.0.1:6379", {"10.0.0.1:6379", "10.0.0.1:40001"}, "10.0.0.1:6379"),
        (None, {"10.0.0.1:40001"}, None),  # the private Ray of another study
        ("10.0.0.1:6379", {"10.0.0.1:40001"}, None),  # that cluster is gone
        (None, set(), None),
    ],
)
def test_only_a_cluster_that_ray_start_left_running_is_joined(
    monkeypatch: pytest.MonkeyPatch,
    left_by_ray_start: str | None,
    running: set[str],
    joined: str | None,
) -> None:
    monkeypatch.setattr(services, "find_bootstrap_address", lambda temp_dir: left_by_ray_start)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: running)
    assert ray_internals.address_of_ray_start() == joined


def test_ray_finds_clusters_on_this_machine() -> None:
    assert parameters(services.find_bootstrap_address) == ["temp_dir"]
    assert parameters(services.find_gcs_addresses) == []


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("check_alive", ["node_ids", "timeout"]),
        ("get_all_node_info", ["timeout"]),
        ("drain_node", ["node_id", "reason", "reason_message", "deadline_timestamp_ms"]),
    ],
)
def test_the_client_of_the_head_has_the_method(method: str, used: list[str]) -> None:
    from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]  # what GcsClient passes its calls to

    names = parameters(getattr(InnerGcsClient, method))
    assert set(used) <= set(names)
    if method != "get_all_node_info":
        assert names[: len(used)] == used, "they are passed by position"


def test_a_driver_holds_a_client_of_the_head() -> None:
    from ray._private import worker

    assert ".gcs_client" in inspect.getsource(worker.connect)
    assert hasattr(worker, "global_worker")


def test_the_limits_of_a_start_are_called_so() -> None:
    from ray._private.node import Node

    source = inspect.getsource(Node)
    assert f'"{ray_internals.HEAD_WAIT}"' in source
    assert "raylet_start_wait_time_s = 30" in source
    assert "node_info = ray._private.services.get_node(" in source
    assert parameters(services.get_node) == ["gcs_address", "node_id"]


@pytest.mark.parametrize("before", [None, "7"])
def test_a_patient_start_waits_longer_and_leaves_ray_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    now, answers = [0.0], [RuntimeError("not yet")] * 3

    def get_node(address: str, node: str) -> dict[str, str]:
        if answers:
            raise answers.pop()
        return {address: node}

    monkeypatch.setattr(ray_internals.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_internals.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.delenv(ray_internals.HEAD_WAIT, raising=False)
    if before is not None:
        monkeypatch.setenv(ray_internals.HEAD_WAIT, before)
    with ray_internals.patient_start(60):
        assert os.environ[ray_internals.HEAD_WAIT] == "60"
        assert services.get_node("a:1", "n") == {"a:1": "n"}
        assert now == [3.0]
        answers += [RuntimeError("never")] * 1000
        with pytest.raises(RuntimeError, match="never"):
            services.get_node("a:1", "n")
        assert now[0] == 121.0
    assert services.get_node is get_node
    assert os.environ.get(ray_internals.HEAD_WAIT) == before


def test_a_head_that_does_not_answer_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise RayError(address)

    monkeypatch.setattr(ray._raylet, "GcsClient", refuse)
    with pytest.raises(OSError, match=r"RayError: 10\.0\.0\.1:6379"):
        ray_internals.drain_nodes("10.0.0.1:6379", "10.0.0.2", deadline_ms=1, timeout=1.0)


def test_live_nodes_of_one_machine_are_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    here, there = ray.NodeID.from_random(), ray.NodeID.from_random()
    dead = ray.NodeID.from_random()
    drained: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, address: str) -> None: ...

        def get_all_node_info(self, timeout: float) -> dict[Any, Any]:
            return {
                here: GcsNodeInfo(node_manager_address="10.0.0.2", state=GcsNodeInfo.ALIVE),
                there: GcsNodeInfo(node_manager_address="10.0.0.3", state=GcsNodeInfo.ALIVE),
                dead: GcsNodeInfo(node_manager_address="10.0.0.2", state=GcsNodeInfo.DEAD),
            }

        def drain_node(self, *given: Any) -> None:
            drained.append(given)

    monkeypatch.setattr(ray._raylet, "GcsClient", Client)
    count = ray_internals.drain_nodes("10.0.0.1:6379", "10.0.0.2", deadline_ms=7, timeout=1.0)
    assert count == 1
    assert drained == [(here.hex(), 2, "spot", 7)]


def test_the_state_knows_what_is_draining_and_who_was_preempted() -> None:
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    assert parameters(GlobalState.get_draining_nodes) == []
    assert parameters(GlobalState.get_actor_info) == ["actor_id"]
    row = ActorTableData(preempted=True).SerializeToString()
    assert ActorTableData.FromString(row).preempted


@pytest.mark.parametrize("known", [True, False])
def test_an_actor_of_a_drained_node_was_preempted(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    row = ActorTableData(preempted=True).SerializeToString() if known else None
    monkeypatch.setattr(GlobalState, "get_actor_info", lambda self, actor_id: row)
    assert ray_internals.was_preempted("ab" * 16) is known


@pytest.mark.parametrize("name", ["error_file", "pickled_error_file"])
def test_a_trial_of_tune_has_the_file(name: str) -> None:
    assert isinstance(getattr(TuneTrial, name), property)


def test_a_trial_of_tune_can_make_its_folder() -> None:
    assert parameters(TuneTrial.init_local_path) == []


@pytest.mark.parametrize(
    ("method", "used"),
    [("stop_trial", ["trial"]), ("request_stop_experiment", [])],
)
def test_the_controller_of_tune_has_the_method(method: str, used: list[str]) -> None:
    assert parameters(getattr(TuneController, method)) == used


def test_the_process_of_a_trial_is_killed_by_the_handle_of_its_actor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[str] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    begun: Any = "begun"
    controller = SimpleNamespace(
        _trial_to_actor={"begun": "actor 1", "queued": "actor 2"},
        _actor_manager=SimpleNamespace(
            _live_actors_to_ray_actors_resources={"actor 1": ("handle", "room")}
        ),
    )
    assert ray_internals.trials_with_process(controller) == [begun]
    ray_internals.kill_process(controller, begun)
    assert killed == ["handle"]
    source = inspect.getsource(TuneController)
    for used in (
        "_actor_manager",
        "_trial_to_actor[trial]",
        "_live_actors_to_ray_actors_resources",
    ):
        assert f"self.{used}" in source or f".{used}" in source


def test_a_trial_whose_process_is_still_busy_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parameters(TuneController._on_trial_reset) == ["trial", "success"]
    assert parameters(TuneController._process_trial_failure) == ["trial", "exception"]
    assert is_in_source(ray_internals.END_SECONDS, ("tune",))
    taken: list[bool] = []
    monkeypatch.setattr(
        TuneController, "_on_trial_reset", lambda self, trial, success: taken.append(success)
    )
    ray_internals.tell_of_busy_processes()
    told: list[str] = []
    controller = SimpleNamespace(
        _resetting_trials={"t0001"},
        _process_trial_failure=lambda trial, error: told.append(str(error)),
    )
    reset: Any = TuneController._on_trial_reset
    reset(controller, "t0001", True)
    assert (taken, told, controller._resetting_trials) == ([True], [], {"t0001"})
    reset(controller, "t0001", False)
    assert (taken, told) == ([True], [ray_internals.STILL_BUSY])
    assert controller._resetting_trials == set()
    ray_internals.tell_of_busy_processes()
    assert TuneController._on_trial_reset is reset  # once is enough


def test_an_actor_error_is_read_from_its_pickle(tmp_path: Path) -> None:
    def read(error: Exception) -> Any:
        path = tmp_path / "error.pkl"
        path.write_bytes(cloudpickle.dumps(error))
        trial: Any = SimpleNamespace(pickled_error_file=str(path))
        return ray_internals.actor_error(trial)

    found = read(RayActorError(actor_id="ab", preempted=True))
    assert (found.preempted, found.actor_id) == (True, "ab")
    assert read(ValueError("a bug")) is None
    nothing: Any = SimpleNamespace(pickled_error_file=None)
    assert ray_internals.actor_error(nothing) is None


def test_a_result_that_tune_repeats_is_done() -> None:
    from ray.tune.result import DONE

    assert ray_internals.is_repeated({DONE: True})
    assert not ray_internals.is_repeated({DONE: False})
    controller = inspect.getsource(TuneController)
    assert "is_duplicate = RESULT_DUPLICATE in result" in controller
    assert f"result.update({DONE}=True)" in controller


def test_tune_prints_nothing_beside_the_silent_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.tune.progress_reporter import TrialProgressCallback
    from ray.tune.utils.callback import _create_default_callbacks

    for name, value in ray_internals.DRIVER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (given,) = _create_default_callbacks(None, air_verbosity=None)
    assert isinstance(given, TrialProgressCallback)

    class Trial:
        def __init__(self) -> None:
            self.last_result: dict[str, Any] = {}

    trial: Any = Trial()
    given.on_trial_error(0, [], trial)
    given.on_trial_complete(0, [], trial)
    assert capsys.readouterr() == ("", "")


def test_nodes_are_counted_that_are_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NodeManagerAddress": "10.0.0.7", "NodeManagerHostname": "gpu"}
    nodes = [
        {"NodeID": "ab", "Alive": True, "Resources": {"CPU": 2.0}, **names},
        {"NodeID": "cd", "Alive": False, "Resources": {}, **names},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ray_internals.nodes_up() == [ray_internals.Node("ab", "10.0.0.7 (gpu)", {"CPU": 2.0})]


def test_a_node_has_these_keys() -> None:
    library = (RAY / "_raylet.so").read_bytes()  # where `ray.nodes` makes them
    keys = ("NodeID", "Alive", "NodeManagerAddress", "NodeManagerHostname", "Resources")
    assert [key for key in keys if f"{key}\0".encode() not in library] == []


@pytest.mark.parametrize(
    ("resources", "does"),
    [({}, False), ({"memory": 1.0}, False), ({"CPU": 1.0}, True), ({"GPU": 1.0}, True)],
)
def test_a_node_with_cpus_or_gpus_holds_trials(resources: dict[str, float], does: bool) -> None:
    assert ray_internals.Node("ab", "10.0.0.7 (gpu)", resources).holds_trials is does


def test_a_node_is_known_by_a_label() -> None:
    assert ray_internals.NODE_ID_LABEL == ray._raylet.RAY_NODE_ID_KEY  # type: ignore[attr-defined]


def test_a_placement_group_leaves_out_nodes_by_that_label() -> None:
    from ray.tune import PlacementGroupFactory
    from ray.util.placement_group import validate_placement_group

    two = [ray.NodeID.from_random().hex() for _ in range(2)]
    wanted = ray_internals.not_on(two)
    PlacementGroupFactory([{"CPU": 1}], **wanted)
    validate_placement_group(bundles=[{"CPU": 1}], **wanted)
    (selector,) = wanted["bundle_label_selector"]
    assert selector == {ray_internals.NODE_ID_LABEL: f"!in({','.join(sorted(two))})"}
    assert ray_internals.not_on([]) == {}


def test_the_table_knows_the_node_of_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    node = ray.NodeID.from_random()
    row = ActorTableData(node_id=node.binary()).SerializeToString()
    monkeypatch.setattr(GlobalState, "get_actor_info", lambda self, actor_id: row)
    assert ray_internals.node_of("ab" * 16) == node.hex()
    monkeypatch.setattr(GlobalState, "get_actor_info", lambda self, actor_id: None)
    assert ray_internals.node_of("ab" * 16) == ""


def test_an_error_ends_with_what_it_says() -> None:
    assert ray_internals.last_line(RayError("Traceback\n  File x\nValueError: no\n")) == (
        "ValueError: no"
    )
    assert ray_internals.last_line(RayError()) == "RayError"


def test_a_head_answers_the_first_call_of_a_client_by_this_name() -> None:
    service, _, method = ray_internals.HEAD_CALL.decode().removeprefix("/").rpartition("/")
    head = (RAY / "core/src/ray/gcs/gcs_server").read_bytes()
    assert service.encode() in head
    assert method.encode() in head


def test_a_head_refuses_a_token_in_these_words() -> None:
    head = (RAY / "core/src/ray/gcs/gcs_server").read_bytes()
    assert ray_internals.TOKEN_REFUSED + b": " in head


@pytest.mark.parametrize("variable", [ray_internals.AUTH_TOKEN_HERE, ray_internals.AUTH_TOKEN_PATH])
def test_ray_takes_a_token_from_the_variable(variable: str) -> None:
    assert variable.encode() + b"\0" in (RAY / "_raylet.so").read_bytes()


def test_the_token_is_read_where_ray_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("file", "one\n"), ("other", "two\n")):
        (tmp_path / name).write_text(value)
    monkeypatch.setenv(ray_internals.AUTH_MODE, "disabled")
    for name in (ray_internals.AUTH_TOKEN_HERE, ray_internals.AUTH_TOKEN_PATH):
        monkeypatch.setenv(name, "")
    assert ray_internals.token_shown(tmp_path / "file") == ""
    monkeypatch.setenv(ray_internals.AUTH_MODE, ray_internals.TOKEN_MODE)
    assert ray_internals.token_shown(tmp_path / "none") == ""
    assert ray_internals.token_shown(tmp_path / "file") == "one"
    monkeypatch.setenv(ray_internals.AUTH_TOKEN_PATH, str(tmp_path / "other"))
    assert ray_internals.token_shown(tmp_path / "file") == "two"
    monkeypatch.setenv(ray_internals.AUTH_TOKEN_HERE, "three")
    assert ray_internals.token_shown(tmp_path / "file") == "three"


def test_tune_ends_a_trial_by_an_exit_of_report() -> None:
    from ray.train._internal.session import _TrainSession

    assert ray_internals.TRIAL_ENDED is SystemExit
    assert "sys.exit(0)" in inspect.getsource(_TrainSession._report_training_result)


def test_ray_start_says_that_it_has_started() -> None:
    source = (RAY / "scripts/scripts.py").read_text(encoding="utf-8")
    assert f'"{ray_internals.HEAD_STARTED}' in source


def test_a_trial_s_process_is_called_so() -> None:
    from ray.tune.trainable import wrap_function

    assert wrap_function(lambda config: None).__name__ == ray_internals.TRIAL_TITLE


def test_the_ray_that_is_installed_is_the_one_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["optional-dependencies"]["study"],
        *project["optional-dependencies"]["cluster"],
    ]
    assert [one.partition("]")[2] for one in wanted if one.startswith("ray[")] == [
        ">=2.60,<2.61"
    ] * 2
    assert ray.__version__.startswith("2.60.")


def test_only_this_file_knows_of_ray_s_private_parts() -> None:
    engine = Path(ray_internals.__file__).parent
    private = ("ray._private", "ray._raylet", "ray.core.generated", "_connect_and_get_accessor")
    for file in engine.parent.rglob("*.py"):
        if file.name != os.path.basename(ray_internals.__file__):
            text = file.read_text(encoding="utf-8")
            assert not [name for name in private if name in text], file.name
