"""The decoded cache: whole or not there, built once, rebuilt when its source changes."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import folder_data
import numpy as np
import pytest
from PIL import Image

from study.config.task import SyntheticData
from study.core.errors import InputError
from study.data import cache, default_cache_dir, open_data
from study.data.formats.folder import folder_scan
from study.data.splits import Source

TINY = SyntheticData(format="synthetic", size=(16, 24), num_train=8, num_val=3, num_test=2)


@pytest.fixture
def root(tmp_path):
    return folder_data.write_folder(tmp_path / "town")


@pytest.fixture
def count_builds(monkeypatch):
    """The folders built so far."""
    built: list[Path] = []
    build = cache._build

    def counted(source: Source, folder: Path, *given: Any) -> None:
        built.append(folder)
        build(source, folder, *given)

    monkeypatch.setattr(cache, "_build", counted)
    return built


def open_root(root, cache_dir, **changes):
    return open_data(folder_data.config(**changes), data_root=root, cache_dir=cache_dir)


def test_the_second_opening_maps_what_the_first_decoded(tmp_path, count_builds):
    first, second = (open_data(TINY, cache_dir=tmp_path) for _ in range(2))
    assert len(count_builds) == 1
    assert isinstance(second.train.images, np.memmap)
    assert isinstance(second.train.labels, np.memmap)
    assert first.fingerprint == second.fingerprint
    for name, split in first.splits.items():
        again = second.splits[name]
        assert np.array_equal(split.images, again.images)
        assert np.array_equal(split.labels, again.labels)
        assert np.array_equal(split.class_counts, again.class_counts)
        assert np.array_equal(split.groups, again.groups)
        assert split.names == again.names


def test_writing_to_a_map_does_not_reach_the_cache(tmp_path):
    data = open_data(TINY, cache_dir=tmp_path)
    before = data.train.images[0].copy()
    data.train.images[0] = ~before
    assert np.array_equal(open_data(TINY, cache_dir=tmp_path).train.images[0], before)


def test_settings_have_caches_of_their_own(tmp_path, count_builds):
    first = open_data(TINY, cache_dir=tmp_path)
    second = open_data(TINY.model_copy(update={"noise": 0.2}), cache_dir=tmp_path)
    assert first.cache != second.cache
    assert first.fingerprint != second.fingerprint
    open_data(TINY, cache_dir=tmp_path)
    assert len(count_builds) == 2


@pytest.mark.parametrize("what", ["image", "new pair", "classes"])
def test_a_changed_source_is_decoded_again_in_place(root, tmp_path, count_builds, what):
    first = open_root(root, tmp_path / "cache")
    if what == "image":
        file = root / "images" / "train" / "000.png"
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(file)
    elif what == "new pair":
        for folder in ("images", "labels"):
            shutil.copy(root / folder / "val" / "001.png", root / folder / "val" / "002.png")
    else:
        (root / "classes.yaml").write_text("classes: [road, van, pole]")
    second = open_root(root, tmp_path / "cache")
    assert len(count_builds) == 2
    assert second.cache == first.cache
    assert second.fingerprint != first.fingerprint


def test_a_change_of_the_decoding_code_rebuilds(tmp_path, count_builds, monkeypatch):
    open_data(TINY, cache_dir=tmp_path)
    monkeypatch.setattr(cache, "_code_digest", lambda: "another version")
    open_data(TINY, cache_dir=tmp_path)
    assert len(count_builds) == 2


def test_equal_content_has_an_equal_fingerprint_wherever_it_lies(root, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    for file in copy.rglob("*.png"):
        os.utime(file, (1, 1))
    first, second = open_root(root, tmp_path / "a"), open_root(copy, tmp_path / "b")
    assert first.cache != second.cache
    assert first.fingerprint == second.fingerprint


DAMAGE: dict[str, tuple[str, bytes]] = {
    "archive": ("train.images.npy", b"PK\3\4"),
    "header": ("val.labels.npy", b"\x93NUMPY\1\0\x10\0{'descr': (((((("),
    "keys": ("meta.json", b"{}"),
    "deep": ("meta.json", b"[" * 100_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", DAMAGE)
def test_whatever_stands_in_a_cache_is_no_traceback(tmp_path, count_builds, spoil):
    data = open_data(TINY, cache_dir=tmp_path)
    assert data.cache is not None
    name, content = DAMAGE[spoil]
    (data.cache / name).write_bytes(content)
    assert open_data(TINY, cache_dir=tmp_path).fingerprint == data.fingerprint
    assert len(count_builds) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("train.labels.npy", "test.labels.npy"),
        ("train.images.npy", "val.images.npy"),
        ("val.labels.npy", "val.images.npy"),
        ("val.groups.npy", "val.class_counts.npy"),
        ("test.class_counts.npy", "val.class_counts.npy"),
    ],
)
def test_arrays_of_another_shape_are_not_taken(tmp_path, count_builds, name, other):
    data = open_data(TINY, cache_dir=tmp_path)
    assert data.cache is not None
    shutil.copy(data.cache / other, data.cache / name)
    assert open_data(TINY, cache_dir=tmp_path).fingerprint == data.fingerprint
    assert len(count_builds) == 2


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_stands_in_the_place_of_a_cache_gives_way(tmp_path, what):
    data = open_data(TINY, cache_dir=tmp_path)
    assert data.cache is not None
    shutil.rmtree(data.cache)
    if what == "file":
        data.cache.write_text("")
    else:
        data.cache.symlink_to(tmp_path / "nowhere")
    assert open_data(TINY, cache_dir=tmp_path).fingerprint == data.fingerprint


def test_a_file_of_the_same_size_and_time_is_read_again(root, tmp_path):
    file = root / "labels" / "train" / "000.png"
    label = np.asarray(Image.open(file))
    for values in (label, np.where(label == 0, 1, label)):
        Image.fromarray(values.astype(np.uint8)).save(file, compress_level=0)
        os.utime(file, ns=(10**18, 10**18))
        assert np.array_equal(open_root(root, tmp_path / "cache").train.labels[0], values)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["meta", "other", "short", "empty", "gone"])
def test_a_damaged_cache_is_built_again(tmp_path, count_builds, spoil):
    data = open_data(TINY, cache_dir=tmp_path)
    assert data.cache is not None
    file = data.cache / ("meta.json" if spoil in ("meta", "other") else "val.labels.npy")
    if spoil == "gone":
        file.unlink()
    elif spoil == "other":
        file.write_text("[1]")
    else:
        os.truncate(file, 0 if spoil == "empty" else 200)
    assert open_data(TINY, cache_dir=tmp_path).fingerprint == data.fingerprint
    assert len(count_builds) == 2


def test_what_a_killed_build_left_is_swept_away(tmp_path):
    folder = open_data(TINY, cache_dir=tmp_path).cache
    assert folder is not None
    shutil.rmtree(folder)
    (tmp_path / f".{folder.name}.dead").mkdir()
    open_data(TINY, cache_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_another_data_sets_build_is_left_alone(root, tmp_path):
    (root / "classes.yaml").write_text("name: '*'\nclasses: [road, car, pole]\n")
    folder = open_root(root, tmp_path / "cache").cache
    assert folder is not None
    theirs = tmp_path / "cache" / f".town{folder.name[1:]}.building"
    theirs.mkdir()
    shutil.rmtree(folder)
    open_root(root, tmp_path / "cache")
    assert theirs.is_dir()


def test_a_failed_build_leaves_the_cache_that_was_there(root, tmp_path):
    first = open_root(root, tmp_path / "cache")
    good = (root / "images" / "train" / "000.png").read_bytes()
    (root / "images" / "train" / "000.png").write_bytes(good[:99])
    with pytest.raises(InputError):
        open_root(root, tmp_path / "cache")
    assert first.cache is not None
    meta = json.loads((first.cache / "meta.json").read_text())
    assert meta["fingerprint"] == first.fingerprint


def _open_and_report(cache_dir: Path, ready: Any, results: Any) -> None:
    builds = 0
    build = cache._build

    def counted(source: Source, folder: Path, *given: Any) -> None:
        nonlocal builds
        builds += 1
        build(source, folder, *given)

    cache._build = counted  # type: ignore[assignment]
    ready.wait()
    fingerprint = open_data(TINY, cache_dir=cache_dir).fingerprint
    results.put((builds, fingerprint))


def test_a_cache_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced: dict[int, int] = {}
    sync, move, seen = os.fsync, Path.rename, []

    def noted(handle: int) -> None:
        sync(handle)
        file = os.fstat(handle)
        synced[file.st_ino] = file.st_size

    def rename(folder: Path, target: Path) -> Path:
        files = [path.stat() for path in (folder, *folder.iterdir())]
        seen.append((len(files), [synced.get(file.st_ino) == file.st_size for file in files]))
        return move(folder, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", rename)
    open_data(TINY, cache_dir=tmp_path)
    assert seen == [(14, [True] * 14)]


@pytest.mark.slow
def test_of_two_processes_that_open_at_once_one_builds(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(2), context.Queue()
    openers = [
        context.Process(target=_open_and_report, args=(tmp_path, ready, results)) for _ in range(2)
    ]
    for opener in openers:
        opener.start()
    reports = [results.get(timeout=60) for _ in openers]
    for opener in openers:
        opener.join(60)
    assert sorted(builds for builds, _ in reports) == [0, 1]
    assert len({fingerprint for _, fingerprint in reports}) == 1


def test_each_decoded_image_is_progress(tmp_path):
    calls = []
    for _ in range(2):
        open_data(TINY, cache_dir=tmp_path, on_progress=lambda: calls.append(1))
    assert len(calls) == TINY.num_train + TINY.num_val + TINY.num_test, "once per machine"


def test_it_is_progress_too_that_another_process_decodes(tmp_path):
    open_data(TINY, cache_dir=tmp_path)
    (lock,) = tmp_path.glob("*.lock")
    calls = []
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def wait() -> None:
            calls.append(1)
            if len(calls) == 3:
                fcntl.flock(other, fcntl.LOCK_UN)

        open_data(TINY, cache_dir=tmp_path, on_progress=wait)
    assert len(calls) == 3


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5 * 2**19})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    large = TINY.model_copy(update={"size": (100, 100), "num_train": 1000})
    with pytest.raises(
        InputError, match=r"needs 39 MiB, .* has 2 MiB free; set .STUDY_CACHE_DIR"
    ) as e:
        open_data(large, cache_dir=tmp_path)
    assert str(e.value).startswith(str(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert len(open_data(TINY, cache_dir=tmp_path).train) == 8


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(InputError, match="no disk space left for the data cache; set"):
        open_data(TINY, cache_dir=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/cache: cannot write the data cache"):
        open_data(TINY, cache_dir=tmp_path / "file" / "cache")


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path / "here"))
    folder = open_data(TINY).cache
    assert folder is not None
    assert folder.parent == tmp_path / "here"
    monkeypatch.delenv("STUDY_CACHE_DIR")
    assert default_cache_dir() == Path.home() / ".cache" / "segmentation-loss-study"


def test_opening_decodes_nothing(root):
    (root / "images" / "train" / "000.png").write_bytes(b"not yet looked at")
    assert len(folder_scan(folder_data.config(), root).source().splits["train"].names) == 3
