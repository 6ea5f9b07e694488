"""`ray up cluster.yaml` by Ray's own code, on a simulated AWS; its commands are noted, not run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")
pytest.importorskip("ray.autoscaler._private.commands")

ROOT = Path(__file__).parents[1]
REGION = "us-east-1"
TYPES = [
    {"InstanceType": name, "VCpuInfo": {"DefaultVCpus": cpus}, "MemoryInfo": {"SizeInMiB": 65536}}
    for name, cpus in (("m7i.xlarge", 4), ("g6.4xlarge", 16))
]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Recorder:
    """In the place of `subprocess`: notes the commands for a machine; all go well."""

    PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
    CalledProcessError = subprocess.CalledProcessError

    def __init__(self) -> None:
        self.commands: list[str] = []

    def _note(self, command: Any) -> str:
        text = command if isinstance(command, str) else " ".join(map(str, command))
        self.commands.append(text)
        return text

    def check_call(self, command: Any, *_: Any, **__: Any) -> int:
        self._note(command)
        return 0

    def check_output(self, command: Any, *_: Any, **__: Any) -> bytes:
        text = self._note(command)
        answers = {
            "printenv HOME": b"/home/ray",
            "command -v docker": b"/usr/bin/docker",
            "State.Running": b"false",
            ".Config.Env": b'["HOME=/home/ray"]',
        }
        return next((answer for part, answer in answers.items() if part in text), b"")


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a simulated account, whose default VPC has a subnet in each zone."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_UP_enable_autoscaler_v2", "1")
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    monkeypatch.chdir(ROOT)
    from ray.autoscaler._private import providers
    from ray.autoscaler._private.aws import config, utils

    with moto.mock_aws():
        for cached in (utils.client_cache, utils.resource_cache, config._get_subnets_or_die):
            cached.cache_clear()
        providers._provider_instances.clear()
        iam = boto3.client("iam", REGION)
        iam.create_instance_profile(InstanceProfileName="segmentation-loss-study-head")
        yield boto3.client("ec2", REGION)
        providers._provider_instances.clear()


def second_vpc(ec2: Any) -> str:
    """A VPC with a subnet in a zone of the cluster, as a company's network has; returns its id."""
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24", AvailabilityZone=f"{REGION}a")[
        "Subnet"
    ]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    return str(vpc)


def default_vpc(ec2: Any) -> str:
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
    return str(found["Vpcs"][0]["VpcId"])


def make_group(ec2: Any, vpc: str) -> str:
    """The security group that the first lines of cluster.yaml ask for."""
    group = ec2.create_security_group(GroupName="study", Description="study", VpcId=vpc)["GroupId"]
    of_group = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    own = {"CidrIp": "203.0.113.7/32"}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [own]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[of_group, ssh])
    return str(group)


def filled_in(ec2: Any, group: str) -> str:
    """The text of cluster.yaml with the names that a user puts there."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    names = {"AMI_ID": image, "SECURITY_GROUP_ID": group, "FILE_SYSTEM_ID": "fs-0123456789abcdef0"}
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def up(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run `ray up`; returns its commands for the head."""
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.aws import node_provider

    # AWS lists some 800 types, of which moto makes half a minute of XML
    monkeypatch.setattr(node_provider, "list_ec2_instances", lambda *_: TYPES)
    recorder = Recorder()
    head = partial(commands.get_or_create_head_node, _runner=recorder)  # type: ignore[arg-type]
    monkeypatch.setattr(commands, "get_or_create_head_node", head)
    file = folder / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    commands.create_or_update_cluster(
        str(file), None, None, False, False, True, None, True, False, False
    )
    return recorder.commands


def instances(ec2: Any) -> list[dict[str, Any]]:
    pages = ec2.describe_instances()["Reservations"]
    return [instance for page in pages for instance in page["Instances"]]


def world_open(ec2: Any) -> list[str]:
    """The groups with an inbound rule for every address."""
    return [
        group["GroupName"]
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if any("0.0.0.0/0" in str(rule) for rule in group["IpPermissions"])
    ]


@pytest.mark.parametrize("vpcs", ["one", "another first", "the group in the second"])
def test_ray_up_opens_nothing_in_an_account_with_one_vpc_or_two(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vpcs: str
) -> None:
    other = second_vpc(aws) if vpcs != "one" else None
    vpc = other if vpcs == "the group in the second" and other else default_vpc(aws)
    if vpcs == "another first":
        _put_first(monkeypatch, aws, str(other))
    group = make_group(aws, vpc)
    groups = len(aws.describe_security_groups()["SecurityGroups"])
    commands = up(filled_in(aws, group), tmp_path, monkeypatch)
    (head,) = instances(aws)
    assert [one["GroupId"] for one in head["SecurityGroups"]] == [group]
    assert head["VpcId"] == vpc
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert len(aws.describe_security_groups()["SecurityGroups"]) == groups, "Ray has made none"
    assert world_open(aws) == []
    volumes = aws.describe_volumes()["Volumes"]
    assert volumes and all(volume["Encrypted"] for volume in volumes)
    said = "\n".join(commands)
    for expected in (
        "docker pull",
        "stunnel",
        "--require-hashes",
        "ray start --head",
        "mlflow server",
    ):
        assert expected in said, expected
    assert said.index("stunnel4 /etc") < said.index("mount -t nfs4") < said.index("docker run")
    synced = [command for command in commands if command.startswith("rsync")]
    assert synced and not any(".venv" in command for command in synced)


def _put_first(monkeypatch: pytest.MonkeyPatch, ec2: Any, vpc: str) -> None:
    """Let AWS list the subnets of this VPC first: it promises no order."""
    from moto.ec2.models import EC2Backend

    listed = EC2Backend.describe_subnets

    def describe_subnets(*args: Any, **kwargs: Any) -> Any:
        return sorted(listed(*args, **kwargs), key=lambda subnet: subnet.vpc_id != vpc)

    monkeypatch.setattr(EC2Backend, "describe_subnets", describe_subnets)


def test_without_the_group_in_both_node_types_ray_opens_ssh_to_the_world(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file guards against: it is seen here, so that a new Ray that mends it is noticed."""
    text = filled_in(aws, make_group(aws, default_vpc(aws)))
    tree = yaml.safe_load(text)
    for node in tree["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
    up(yaml.safe_dump(tree), tmp_path, monkeypatch)
    assert world_open(aws)


def provider(aws: Any, tree: dict[str, Any]) -> Any:
    from ray.autoscaler._private.providers import _get_node_provider

    return _get_node_provider(tree["provider"], tree["cluster_name"], use_cache=False)


def worker(aws: Any, tree: dict[str, Any]) -> dict[str, Any]:
    subnets = aws.describe_subnets()["Subnets"]
    config = dict(tree["available_node_types"]["gpu"]["node_config"])
    return {**config, "SubnetIds": [subnet["SubnetId"] for subnet in subnets[:2]]}


WORKER_TAGS = {"ray-node-type": "worker", "ray-user-node-type": "gpu"}


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ((), ("g6.4xlarge", True)),
        (
            (("g6.4xlarge", True), ("g5.4xlarge", True), ("g6e.4xlarge", True)),
            ("g6.4xlarge", False),
        ),
    ],
)
def test_a_worker_is_the_first_kind_that_there_is_room_for(
    aws: Any,
    monkeypatch: pytest.MonkeyPatch,
    full: tuple[tuple[str, bool], ...],
    expected: tuple[str, bool],
) -> None:
    tree = yaml.safe_load(filled_in(aws, make_group(aws, default_vpc(aws))))
    there = provider(aws, tree)
    _fill(monkeypatch, there, full)
    there.create_node(worker(aws, tree), WORKER_TAGS, 1)
    (found,) = instances(aws)
    assert (found["InstanceType"], found.get("InstanceLifecycle") == "spot") == expected


def test_where_no_kind_has_room_the_launch_fails_as_rays_own_does(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    tree = yaml.safe_load(filled_in(aws, make_group(aws, default_vpc(aws))))
    there = provider(aws, tree)
    kinds = tree["provider"]["launch_in_order"]
    asked = _fill(monkeypatch, there, [(k["InstanceType"], len(k) > 1) for k in kinds])
    with pytest.raises(NodeLaunchException):
        there.create_node(worker(aws, tree), WORKER_TAGS, 1)
    assert list(dict.fromkeys(asked)) == [(k["InstanceType"], len(k) > 1) for k in kinds]
    asked = _fill(monkeypatch, there, [("g6.4xlarge", True)], code="UnauthorizedOperation")
    with pytest.raises(NodeLaunchException):
        there.create_node(worker(aws, tree), WORKER_TAGS, 1)
    assert set(asked) == {("g6.4xlarge", True)}, "a mistake is not tried with another kind"


def _fill(
    monkeypatch: pytest.MonkeyPatch,
    there: Any,
    full: Any,
    code: str = "InsufficientInstanceCapacity",
) -> list[tuple[str, bool]]:
    """Let AWS have no room for these kinds: instance type, and whether on the spot market. Returns
    what is asked for."""
    from botocore.exceptions import ClientError

    asked: list[tuple[str, bool]] = []
    real = boto3.resource("ec2", REGION)

    class Full:
        def create_instances(self, **conf: Any) -> Any:
            kind = (conf["InstanceType"], "InstanceMarketOptions" in conf)
            asked.append(kind)
            if kind in full:
                raise ClientError({"Error": {"Code": code, "Message": "no"}}, "RunInstances")
            return real.create_instances(**conf)

    monkeypatch.setattr(there, "ec2_fail_fast", Full())
    return asked


def test_the_head_may_end_and_tag_the_instances_of_its_cluster_alone() -> None:
    policy = json.loads((ROOT / "cluster" / "head_policy.json").read_text())
    name = yaml.safe_load((ROOT / "cluster.yaml").read_text())["cluster_name"]
    actions: set[str] = set()
    for statement in policy["Statement"]:
        actions |= {*statement["Action"]}
        ends = "ec2:TerminateInstances" in statement["Action"]
        condition = statement.get("Condition", {}).get("StringEquals", {})
        if ends:
            assert condition == {"aws:ResourceTag/ray-cluster-name": name}
        if "instance/*" in str(statement["Resource"]):
            assert condition, statement["Sid"]
    assert actions == {
        "ec2:Describe*",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "ec2:CreateTags",
    }
