"""What holds for every published format: read from its own tree, checked, split, never mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from file_trees import HEIGHT, TREES, WIDTH, data, save
from pydantic import TypeAdapter

from study.config.task import Data, FileData
from study.core.errors import InputError
from study.data import open_data, scan_files
from study.data.__main__ import main
from study.data.check import list_problems


@pytest.fixture(params=TREES)
def name(request):
    return request.param


@pytest.fixture
def root(tmp_path, name):
    TREES[name].write(tmp_path / "root")
    return tmp_path / "root"


def config(name, **changes) -> FileData:
    parsed = TypeAdapter[Data](Data).validate_python(data(name, **changes))
    assert isinstance(parsed, FileData)
    return parsed


def opened(name, root, cache, *, begun=False, **changes):
    return open_data(config(name, **changes), data_root=root, cache_dir=cache, begun=begun)


def test_a_tree_is_read_into_three_splits_of_known_classes(name, root, tmp_path):
    found = opened(name, root, tmp_path / "cache")
    assert found.num_classes == TREES[name].num_classes
    assert found.palette.shape == (found.num_classes, 3)
    assert found.ignore_index == 255
    for split in found.splits.values():
        assert split.labels.shape == (len(split), HEIGHT, WIDTH)
        assert set(np.unique(split.labels)) <= {*range(found.num_classes), 255}
        assert (split.class_counts > 0).all()  # the trees show every class in every image
    names = [name for split in found.splits.values() for name in split.names]
    assert len(set(names)) == len(names)


def test_splits_and_pixels_are_the_same_wherever_the_tree_lies(name, root, tmp_path):
    TREES[name].write(tmp_path / "copy")
    first = opened(name, root, tmp_path / "cache")
    second = opened(name, tmp_path / "copy", tmp_path / "other")
    assert first.fingerprint == second.fingerprint
    assert [one.names for one in first.splits.values()] == [
        one.names for one in second.splits.values()
    ]


def test_the_inner_folder_of_a_tree_is_a_root_too(name, root, tmp_path):
    inner = root / TREES[name].inner
    assert opened(name, inner, tmp_path / "cache").num_classes == TREES[name].num_classes


def test_another_root_is_refused_with_what_it_lacks(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"empty: the folder has no .*; format {name} needs "):
        scan_files(config(name), tmp_path / "empty")


@pytest.fixture
def check(root, name, tmp_path, tiny_task, capsys):
    """Runs `python -m study.data` on the tree: exit code, stdout, stderr."""
    tiny_task["data"] = data(name)
    task = tmp_path / "mytask.yaml"
    task.write_text(yaml.safe_dump(tiny_task))

    def run(*more: str) -> tuple[int, str, str]:
        code = main([str(task), "--data-root", str(root), *more])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_says_how_the_splits_came_about_and_draws_a_sheet(check, name, root, tmp_path):
    code, out, err = check("--out", str(tmp_path / "sheet.png"))
    assert (code, err) == (0, "")
    assert f"{TREES[name].num_classes} classes, images of 12x16" in out
    assert scan_files(config(name), root).rule in out
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_the_command_lists_every_fault_of_every_file(check, name, root):
    pairs = scan_files(config(name), root).findings.pairs
    assert len(pairs) >= 11
    pairs[0].label.unlink()
    pairs[1].label.unlink()
    pairs[2].image.unlink()
    pairs[3].image.write_bytes(pairs[3].image.read_bytes()[:300])
    pairs[4].label.write_bytes(b"<html>")
    TREES[name].spoil(pairs[5].label)
    save(np.zeros((HEIGHT + 1, WIDTH, 3)), pairs[6].image)
    pairs[7].image.write_bytes(b"")
    pairs[7].label.write_bytes(b"")
    code, out, err = check()
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0] == f"error: {scan_files(config(name), root).root}: " + (
        "the data have 9 faults"
    )
    heads = [line for line in lines[1:] if not line.startswith("  ")]
    heads = [f"{line.partition(':')[0]}:" for line in heads]  # what helps follows
    assert heads == [
        *("missing image (1):", "missing label (2):", "size (1):", "unknown label (1):"),
        *("unreadable image (2):", "unreadable label (2):"),
    ]
    faulty = [line.strip().partition(": ")[0] for line in lines[1:] if line.startswith("  ")]
    assert {Path(one).name for one in faulty} == {
        *(pair.image.name for pair in (pairs[0], pairs[1], pairs[3], pairs[7])),
        *(pair.label.name for pair in (pairs[2], pairs[4], pairs[5], pairs[6], pairs[7])),
    }


def test_a_study_is_stopped_by_one_line(name, root, tmp_path):
    pairs = scan_files(config(name), root).findings.pairs
    for pair in pairs[:3]:
        pair.label.unlink()
    with pytest.raises(InputError, match=r"no matching label in .*\(and 2 more\)$") as caught:
        opened(name, root, tmp_path / "cache")
    assert str(caught.value).startswith(str(pairs[0].image))
    assert not (tmp_path / "cache").exists()


def test_of_many_faults_of_one_kind_the_first_are_shown_and_all_counted(name, root):
    scan = scan_files(config(name), root)
    pairs = scan.findings.pairs
    for pair in pairs:
        pair.image.write_bytes(b"")
    head, kind, *shown, rest = list_problems(scan.check().problems, root, most=3).splitlines()
    assert head.endswith(f"{len(pairs)} faults")
    assert kind == f"unreadable image ({len(pairs)}):"
    assert len({line.partition(": ")[0] for line in shown}) == len(shown) == 3
    assert rest == f"  and {len(pairs) - 3} more"


def test_smaller_images_are_padded_with_ignored_pixels_and_never_enlarged(name, root, tmp_path):
    found = opened(name, root, tmp_path / "cache", size=[20, 18], fit="pad")
    same = opened(name, root, tmp_path / "cache", fit="pad")
    assert np.array_equal(found.test.images[:, :HEIGHT, :WIDTH], same.test.images)
    assert np.array_equal(found.test.labels[:, :HEIGHT, :WIDTH], same.test.labels)
    assert (found.test.labels[:, HEIGHT:] == 255).all()
    assert (found.test.labels[:, :, WIDTH:] == 255).all()
    assert found.test.images[0, -1, -1].tolist() == [124, 116, 104]  # the mean of ImageNet


def test_larger_images_are_shrunk_in_proportion_before_they_are_padded(name, root, tmp_path):
    found = opened(name, root, tmp_path / "cache", begun=True, size=[8, 8], fit="pad")
    assert (found.test.labels[:, 6:] == 255).all()
    assert (found.test.labels[:, :6] != 255).any()
