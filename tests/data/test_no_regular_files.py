"""Pipes in place of files, which would be read for ever, and folders that lead in a circle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from folder_data import write_folder

from study.config.task import FolderData
from study.core.errors import InputError
from study.core.files import resolved
from study.core.yaml_file import read_yaml
from study.data import open_data, scan_files
from study.data.scan import files_below
from study.storage.studies import new_folder


@pytest.mark.timeout(60)
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_pipe_in_place_of_a_picture_is_named(tmp_path: Path, folder: str) -> None:
    root = write_folder(tmp_path / "town")
    file = sorted((root / folder / "train").iterdir())[0]
    file.unlink()
    os.mkfifo(file)
    config = FolderData(format="folder", size=(32, 32), root=str(root))
    with pytest.raises(InputError, match=f"{file}: not a regular file"):
        open_data(config, cache_dir=tmp_path / "cache")
    (problem,) = scan_files(config).check().problems
    assert problem.file == file


@pytest.mark.timeout(120)
def test_a_pipe_in_a_cache_is_not_waited_for(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "town")
    config = FolderData(format="folder", size=(32, 32), root=str(root))
    built = open_data(config, cache_dir=tmp_path / "cache")
    assert built.cache is not None
    for name in ("meta.json", "train.images.npy", "val.groups.npy"):
        (built.cache / name).unlink()
        os.mkfifo(built.cache / name)
        again = open_data(config, cache_dir=tmp_path / "cache")
        assert again.fingerprint == built.fingerprint
        assert (built.cache / name).is_file()
    lock = built.cache.parent / f"{built.cache.name}.lock"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(InputError, match=r"cannot write the data cache: .*not a regular file"):
        open_data(config, cache_dir=tmp_path / "cache")


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_yaml_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "task.yaml")
    with pytest.raises(InputError, match=r"task\.yaml: not a regular file"):
        read_yaml(tmp_path / "task.yaml")


def test_a_storage_that_leads_in_a_circle_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"--storage: a loop of symbolic links"):
        new_folder(tmp_path / "loop", None, "s")
    with pytest.raises(InputError, match=r"KEY: a loop of symbolic links: .*/loop/x"):
        resolved(tmp_path / "loop" / "x", "KEY")


def test_links_to_folders_above_and_circles_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / f"{name}.png").touch()
    (tmp_path / "beside.png").touch()
    (root / ".hidden.png").touch()
    (root / "above").symlink_to(tmp_path)
    (root / "a/other").symlink_to(root / "b")
    (root / "b/other").symlink_to(root / "a")
    found = [one.relative_to(root).as_posix() for one in files_below(root)]
    assert found == ["a/a.png", "b/b.png"]
