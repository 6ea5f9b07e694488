"""A small folder data set, and what opens it."""

from __future__ import annotations

import folder_data
import pytest

from study.data import open_data


@pytest.fixture
def root(tmp_path):
    return folder_data.write_folder(tmp_path / "town")


@pytest.fixture
def open_root(root, tmp_path):
    def opened(**changes):
        return open_data(
            folder_data.config(**changes), data_root=root, cache_dir=tmp_path / "cache"
        )

    return opened
