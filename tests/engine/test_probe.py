"""What a node must have for the trials of a study, asked on this one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from file_trees import camvid
from file_trees import data as tree_of

from study.config.task import CamvidData, SyntheticData
from study.data import open_data
from study.engine.probe import Probe, nonce_in, nonce_key
from study.storage.s3.bucket import S3Prefix

DATA = SyntheticData(format="synthetic", size=(32, 48), num_train=8, num_val=4, num_test=4)


def test_a_node_sees_what_the_driver_has_written_while_the_session_lasts(tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    with nonce_in(storage, None, "s") as nonce:
        assert Probe(folder=storage, nonce=nonce).trouble() == ""
        assert [path.name for path in storage.iterdir()] == [nonce_key(nonce)]
        other = Probe(folder=storage, nonce="s-0")
        assert other.trouble() == f"it does not see what the driver has written into {storage}"
        (storage / nonce_key(nonce)).write_text("what another file system has there")
        assert Probe(folder=storage, nonce=nonce).trouble().startswith("it does not see")
    assert not storage.exists(), "nothing is left of a study that did not begin"


def test_a_nonce_of_a_killed_driver_goes_with_the_next_session(tmp_path: Path) -> None:
    (tmp_path / nonce_key("s-1")).touch()
    (tmp_path / nonce_key("other-1")).touch()
    with nonce_in(tmp_path, None, "s"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [nonce_key("other-1")]


def test_a_node_must_be_able_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with nonce_in(tmp_path, None, "s") as nonce:
        monkeypatch.setattr(Path, "touch", refuse)
        trouble = Probe(folder=tmp_path, nonce=nonce).trouble()
    assert trouble == f"it cannot write into {tmp_path}: Permission denied"


def test_a_bucket_is_asked_too(prefix: S3Prefix, tmp_path: Path) -> None:
    with nonce_in(tmp_path, prefix, "s") as nonce:
        assert Probe(prefix=prefix.uri, nonce=nonce).trouble() == ""
        trouble = Probe(prefix=prefix.uri, nonce="s-0").trouble()
    assert trouble == f"it does not see what the driver has written to {prefix.where}"
    assert not list(prefix.items())


def test_the_data_of_a_node_are_told_by_their_content(tmp_path: Path) -> None:
    fingerprint = open_data(DATA).fingerprint
    assert Probe(data=((DATA, fingerprint),)).trouble() == ""
    assert Probe(data=((DATA, "0" * 64),)).trouble() == (
        f"it has other data (fingerprint {fingerprint[:12]}, here 000000000000)"
    )
    root = tmp_path / "camvid"
    camvid(root)
    files = CamvidData.model_validate(tree_of("camvid", root=str(root)))
    there = open_data(files, begun=True).fingerprint
    assert Probe(data=((files, there),)).trouble() == ""
    assert f"it has other data in {root} (" in Probe(data=((files, "1" * 64),)).trouble()
    gone = files.model_copy(update={"root": str(tmp_path / "none")})
    trouble = Probe(data=((gone, there),)).trouble()
    assert trouble.startswith("its data cannot be opened there: ")
    assert "does not exist" in trouble


def test_gpus_that_ray_counts_and_torch_does_not_find_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Probe(gpus=2).trouble() == "Ray counts 2 GPUs there, and torch finds none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Probe(gpus=2).trouble() == ""
