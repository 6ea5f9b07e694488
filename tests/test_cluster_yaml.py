"""cluster.yaml passes Ray's own checks, and the ones that Ray leaves to you."""

from __future__ import annotations

import copy
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TOKEN = "~/.ray/auth_token"
SWITCHES = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The tree of cluster.yaml; yours to break."""
    tree = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def _tested_ray() -> str:
    """The Ray that the tests run on."""
    return importlib.metadata.version("ray")


def lint(cluster: dict[str, Any]) -> list[str]:
    """What is wrong with a cluster and would show only once it costs money, or is open to all."""
    return [problem for check in CHECKS for problem in check(cluster)]


def _start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [str(command) for command in commands]


def _kinds(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker may be, in order."""
    kinds: list[dict[str, Any]] = cluster["provider"].get("launch_in_order", [])
    return kinds


def _nodes(cluster: dict[str, Any]) -> list[str]:
    problems = []
    for name, node in cluster["available_node_types"].items():
        spot = "spot" in str(node["node_config"].get("InstanceMarketOptions", {}))
        if name == cluster["head_node_type"]:
            if "min_workers" in node:
                problems.append("the head takes no min_workers")
            if spot:
                problems.append("the head is on demand: losing it loses the driver")
            if node["resources"].get("CPU") != 0:
                problems.append("no trial may land on the head")
        else:
            if node.get("min_workers") != 0:
                problems.append(f"{name}: an idle cluster has no workers")
            if not node["resources"].get("GPU"):
                problems.append(f"{name}: workers have GPUs")
        config = node["node_config"]
        if not config.get("ImageId"):
            problems.append(f"{name}: Ray's own image is years old: name one")
        if not config.get("SecurityGroupIds"):
            problems.append(f"{name}: without SecurityGroupIds, Ray opens SSH to everyone")
        if config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            problems.append(f"{name}: metadata are for who shows a token alone (IMDSv2)")
        if not all(disk["Ebs"].get("Encrypted") for disk in config["BlockDeviceMappings"]):
            problems.append(f"{name}: disks are encrypted")
    on_spot = ["InstanceMarketOptions" in kind for kind in _kinds(cluster)]
    if sorted(on_spot, reverse=True) != on_spot or {*on_spot} != {True, False}:
        problems.append("workers are on the spot market, and the last resort is on demand")
    if len({kind["InstanceType"] for kind in _kinds(cluster)}) < 2:
        problems.append("a worker may be of several types")
    if "," not in cluster["provider"].get("availability_zone", ""):
        problems.append("spot workers come from several zones")
    if not cluster.get("idle_timeout_minutes", 0) > 0:
        problems.append("idle workers go away")
    return problems


def _open_to_the_world(cluster: dict[str, Any]) -> list[str]:
    problems = []
    if "security_group" in cluster["provider"]:
        problems.append("a group that Ray makes or finds by name may be one of another VPC")
    for command in _start_commands(cluster):
        if "0.0.0.0" in command or "--host ::" in command:
            problems.append(f"a server listens everywhere: {command}")
        if "mlflow server" in command and "MLFLOW_DISABLE_TELEMETRY=true" not in command:
            problems.append("MLflow's telemetry is on")
        if "mlflow server" in command and "--host 127.0.0.1" not in command:
            problems.append("MLflow has no password: it listens on loopback")
        if "ray start --head" in command and "--dashboard-host=127.0.0.1" not in command:
            problems.append("the dashboard listens on loopback")
    return problems


def _spot(cluster: dict[str, Any]) -> list[str]:
    commands = [str(command) for command in cluster["worker_start_ray_commands"]]
    starts = [i for i, command in enumerate(commands) if "ray start" in command]
    watches = [i for i, command in enumerate(commands) if "-m study.engine.spot " in command]
    if len(watches) != 1 or max(starts) > watches[0]:
        return ["a worker watches for its spot notice, after its Ray has started"]
    watch = commands[watches[0]]
    problems = []
    if "RAY_AUTH_MODE=token " not in watch:
        problems.append("the spot watcher shows the token")
    if "--address $RAY_HEAD_IP:6379" not in watch:
        problems.append("the spot watcher asks the head")
    if not (watch.startswith("(") and watch.endswith("&)") and "setsid nohup" in watch):
        problems.append("the spot watcher outlives the session that starts it")
    if "flock --nonblock" not in watch:
        problems.append("a Ray that starts again starts no second spot watcher")
    return problems


def _versions(cluster: dict[str, Any]) -> list[str]:
    found = re.findall(r"rayproject/ray:([\d.]+)", str(cluster["docker"]))
    problems = [] if len(found) == 1 else ["the image names Ray's version"]
    if set(found) - {_tested_ray()}:
        problems.append(f"Ray is {_tested_ray()}, the tested one, but got {found}")
    if not any("--require-hashes -r" in command for command in cluster["setup_commands"]):
        problems.append("every node gets the same versions")
    return problems


def _switches(cluster: dict[str, Any]) -> list[str]:
    container = " ".join(cluster["docker"]["run_options"])
    problems = [
        f"every container sets {name}={value}"
        for name, value in SWITCHES.items()
        if f"--env {name}={value}" not in container
    ]
    for command in _start_commands(cluster):
        # `ray up` exports its own RAY_USAGE_STATS_ENABLED before a command: the command's wins.
        for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
            if "ray start" in command and f"{name}={SWITCHES[name]} " not in command:
                problems.append(f"`ray start` sets {name}={SWITCHES[name]}")
    if TOKEN not in cluster["file_mounts"].values():
        problems.append(f"every node gets the token {TOKEN}")
    return problems


def _files(cluster: dict[str, Any]) -> list[str]:
    problems = [
        f"{source} is mounted, but is not there"
        for source in cluster["file_mounts"].values()
        if source != TOKEN and not (ROOT / source).exists()
    ]
    count = sum(
        len([path for path in (ROOT / source).rglob("*") if "__pycache__" not in path.parts])
        for source in cluster["file_mounts"].values()
        if source != TOKEN
    )
    if count > 1000:
        problems.append(f"`ray up` reads {count} files each time")
    mounts = [str(command) for command in cluster["initialization_commands"]]
    mount = next((one for one in mounts if "mount -t nfs4" in one), "")
    stunnel = next((one for one in mounts if "/etc/stunnel" in one and "connect" in one), "")
    if " 127.0.0.1:/ " not in mount or not {"verifyChain = yes", "checkHost"} <= {
        word for word in ("verifyChain = yes", "checkHost") if word in stunnel
    }:
        problems.append("the file system is mounted through TLS")
    if re.search(r"AKIA[0-9A-Z]{16}|aws_secret|BEGIN [A-Z ]*PRIVATE KEY", str(cluster)):
        problems.append("no secrets here")
    return problems


CHECKS = (_nodes, _open_to_the_world, _spot, _versions, _switches, _files)


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))


def test_ray_refuses_an_unknown_key(cluster: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster["max_wrokers"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config(cluster))


def test_it_has_no_problem_that_ray_does_not_see(cluster: dict[str, Any]) -> None:
    assert lint(cluster) == []


def _head(cluster: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = cluster["available_node_types"]["head"]
    return node


def _worker(cluster: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = cluster["available_node_types"]["gpu"]
    return node


def _replace(cluster: dict[str, Any], key: str, old: str, new: str) -> None:
    before = yaml.safe_dump(cluster[key])
    cluster[key] = yaml.safe_load(before.replace(old, new))
    assert yaml.safe_dump(cluster[key]) != before


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "head with min_workers": (
        lambda c: _head(c).update(min_workers=0),
        "the head takes no min_workers",
    ),
    "head on spot": (
        lambda c: _head(c)["node_config"].update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is on demand",
    ),
    "trials on the head": (
        lambda c: _head(c).update(resources={"CPU": 4}),
        "no trial may land on the head",
    ),
    "workers that never go": (lambda c: _worker(c).update(min_workers=1), "has no workers"),
    "workers on demand": (
        lambda c: [kind.pop("InstanceMarketOptions", None) for kind in _kinds(c)],
        "on the spot market",
    ),
    "workers on spot alone": (lambda c: _kinds(c).pop(), "the last resort is on demand"),
    "one type of worker": (
        lambda c: [kind.update(InstanceType="g6.4xlarge") for kind in _kinds(c)],
        "of several types",
    ),
    "metadata without a token": (
        lambda c: _worker(c)["node_config"].pop("MetadataOptions"),
        "gpu: metadata are",
    ),
    "a plain disk": (
        lambda c: _head(c)["node_config"]["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"),
        "head: disks are encrypted",
    ),
    "a plain mount": (
        lambda c: _replace(c, "initialization_commands", " 127.0.0.1:/ ", " FILE_SYSTEM_ID:/ "),
        "through TLS",
    ),
    "a mount that trusts anybody": (
        lambda c: _replace(c, "initialization_commands", "verifyChain = yes", "verify = 0"),
        "through TLS",
    ),
    "the whole folder": (
        lambda c: c["file_mounts"].update({"/home/ray/all": "."}),
        "files each time",
    ),
    "workers without GPUs": (
        lambda c: _worker(c).update(resources={"CPU": 4}),
        "workers have GPUs",
    ),
    "Ray's default image": (
        lambda c: _worker(c)["node_config"].pop("ImageId"),
        "gpu: Ray's own image",
    ),
    "one zone": (
        lambda c: c["provider"].update(availability_zone="us-east-1a"),
        "several zones",
    ),
    "no idle timeout": (lambda c: c.pop("idle_timeout_minutes"), "idle workers go away"),
    "Ray's default group": (
        lambda c: _worker(c)["node_config"].pop("SecurityGroupIds"),
        "gpu: without SecurityGroupIds",
    ),
    "a group by its name": (
        lambda c: c["provider"].update(security_group={"GroupName": "study"}),
        "another VPC",
    ),
    "MLflow for everyone": (
        lambda c: _replace(c, "head_start_ray_commands", "--host 127.0.0.1", "--host 0.0.0.0"),
        "listens everywhere",
    ),
    "MLflow on its default host": (
        lambda c: _replace(c, "head_start_ray_commands", "--host 127.0.0.1", ""),
        "MLflow has no password",
    ),
    "the dashboard on its default host": (
        lambda c: _replace(c, "head_start_ray_commands", "--dashboard-host=127.0.0.1", ""),
        "the dashboard listens on loopback",
    ),
    "no spot watcher": (
        lambda c: c["worker_start_ray_commands"].pop(),
        "watches for its spot notice",
    ),
    "a spot watcher before its Ray": (
        lambda c: c["worker_start_ray_commands"].reverse(),
        "after its Ray has started",
    ),
    "a spot watcher without a token": (
        lambda c: _replace(c, "worker_start_ray_commands", "(RAY_AUTH_MODE=token ", "("),
        "the spot watcher shows the token",
    ),
    "a spot watcher of its own machine's Ray": (
        lambda c: _replace(c, "worker_start_ray_commands", "--address $RAY", "--address $OTHER"),
        "the spot watcher asks the head",
    ),
    "a spot watcher that ends with SSH": (
        lambda c: _replace(c, "worker_start_ray_commands", "setsid ", ""),
        "outlives the session",
    ),
    "a spot watcher per start of Ray": (
        lambda c: _replace(c, "worker_start_ray_commands", "flock --nonblock /tmp/spot.lock ", ""),
        "no second spot watcher",
    ),
    "another Ray in the image": (
        lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311-gpu"),
        "the tested one",
    ),
    "any Ray": (
        lambda c: c.update(setup_commands=["pip install ray"]),
        "the same versions",
    ),
    "the driver without authentication": (
        lambda c: c["docker"]["run_options"].remove("--env RAY_AUTH_MODE=token"),
        "every container sets RAY_AUTH_MODE=token",
    ),
    "workers without authentication": (
        lambda c: _replace(c, "worker_start_ray_commands", "RAY_AUTH_MODE=token ", ""),
        "`ray start` sets RAY_AUTH_MODE=token",
    ),
    "usage statistics": (
        lambda c: _replace(c, "head_start_ray_commands", "RAY_USAGE_STATS_ENABLED=0 ", ""),
        "`ray start` sets RAY_USAGE_STATS_ENABLED=0",
    ),
    "no token": (
        lambda c: c["file_mounts"].pop("/home/ray/.ray/auth_token"),
        "every node gets the token",
    ),
    "a mount that is not there": (
        lambda c: c["file_mounts"].update({"/data": "no/such/folder"}),
        "no/such/folder is mounted",
    ),
    "a key in the file": (
        lambda c: c.update(initialization_commands=["export KEY=AKIA" + "A" * 16]),
        "no secrets here",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_break_is_named(cluster: dict[str, Any], name: str) -> None:
    break_it, expected = BROKEN[name]
    break_it(cluster)
    assert [problem for problem in lint(cluster) if expected in problem]


def test_the_engine_counts_the_gpus_that_it_can_grow_to(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    from study.engine.cluster import fit, growth

    config = tmp_path / "ray_bootstrap_config.yaml"
    config.write_text(yaml.safe_dump(cluster), encoding="utf-8")
    head: dict[str, float] = {"CPU": 0.0}
    resources = fit("aws", [head, *growth([head], config)])
    assert (resources.slots, resources.gpus_per_trial, resources.cpus_per_trial) == (8, 1.0, 16.0)


def test_a_node_installs_all_that_the_package_needs_at_the_versions_that_were_tested() -> None:
    import tomllib

    from packaging.requirements import Requirement

    lines = (ROOT / "docker" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        if not line.startswith("#"):
            found = re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
            assert found, line
            pinned[found[1]] = found[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needs = [*project["dependencies"], *extras["study"], *extras["cluster"], "hatchling"]
    for need in map(Requirement, (one for one in needs if not one.startswith(project["name"]))):
        name = need.name.lower().replace("_", "-")
        assert pinned[name] in need.specifier, need
    assert pinned["ray"] == _tested_ray()
    assert pinned["torch"] == importlib.metadata.version("torch").partition("+")[0]
