"""Data sets: opened from a task's `data:` block, decoded once per machine, shared by all trials."""

from __future__ import annotations

from pathlib import Path

from study.config import FactoryData, FolderData, SyntheticData
from study.data.cache import default_cache_dir, open_cached
from study.data.splits import SegmentationData, Split, check_labelled
from study.errors import InputError

__all__ = ["SegmentationData", "Split", "default_cache_dir", "open_data"]


def open_data(
    config: SyntheticData | FolderData | FactoryData,
    *,
    data_root: Path | None = None,
    cache_dir: Path | None = None,
) -> SegmentationData:
    """The data set that a task describes.

    data_root: where the files are; goes before the `root` that the task may state.
    cache_dir: by default $STUDY_CACHE_DIR, else ~/.cache/segmentation-loss-study.

    Raises InputError, one line, for everything that is wrong with the files or the factory, and
    for a split whose pixels are all ignored.
    """
    if data_root is not None and not isinstance(config, FolderData):
        message = "only a task whose data lies in a folder takes a data root"
        raise InputError(message, key="--data-root")
    if isinstance(config, FactoryData):
        return check_labelled(_from_factory(config))
    if isinstance(config, SyntheticData):
        from study.data.synthetic import synthetic_source

        return check_labelled(open_cached(synthetic_source(config), cache_dir))
    from study.data.folder import folder_source

    return check_labelled(open_cached(folder_source(config, data_root), cache_dir))


def _from_factory(config: FactoryData) -> SegmentationData:
    from study.factories import call_factory

    data = call_factory(config.factory, config.kwargs, key="data/factory")
    if not isinstance(data, SegmentationData):
        raise InputError(
            f"{config.factory} must return a study.data.SegmentationData (see its from_arrays), "
            f"but returned {type(data).__name__}",
            key="data/factory",
        )
    return data
