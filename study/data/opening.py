"""Opens the data set of a task, and lists its faults and what limits its use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from study.config.task import (
    CamvidData,
    CityscapesData,
    Data,
    DeepglobeData,
    FactoryData,
    FactoryModel,
    FileData,
    FolderData,
    SmpModel,
    SyntheticData,
    SynthiaData,
    VocData,
)
from study.core.errors import InputError
from study.core.files import expanded
from study.data.cache import open_cached
from study.data.pairing import pairing_warnings
from study.data.presence import check_labelled, class_faults, class_warnings
from study.data.repeats import REFUSE, repeat_fault, repeat_warnings, repeats_of_arrays
from study.data.resizing import resizing_warnings, stride_warnings, surveyed
from study.data.scan import Scan
from study.data.sequences import sequence_warnings
from study.data.splits import SegmentationData


def open_data(
    config: Data,
    *,
    data_root: Path | None = None,
    cache_dir: Path | None = None,
    on_progress: Callable[[], object] | None = None,
    begun: bool = False,
) -> SegmentationData:
    """Open the data set that a task describes.

    The first call on a machine decodes the images into a cache of memory-mapped arrays, which all
    processes share. A `factory` data set is used as its factory returns it, without the cache.

    Args:
        config: the `data:` block of a task.
        data_root: the folder that holds the files; overrides `root` of the task. Only for data that
            is read from files.
        cache_dir: the folder of the cache; default $STUDY_CACHE_DIR, else
            ~/.cache/segmentation-loss-study.
        on_progress: called after each image that is decoded, and while another process decodes.
        begun: whether this continues a study or a training that has begun with these data; then
            data with the faults that `data_faults` lists are accepted, too.

    Returns:
        The train, val and test splits, each with images (N, H, W, 3) uint8 RGB and labels (N, H, W)
        uint8.

    Raises:
        InputError: one line, for any fault of the files or the factory, for a split whose pixels
            are all ignored, and for the first of `data_faults`.

    Examples:
        >>> from study.config.task import SyntheticData
        >>> from study.data import open_data
        >>> config = SyntheticData(
        ...     format="synthetic", size=(32, 48), num_train=8, num_val=4, num_test=4
        ... )
        >>> data = open_data(config)
        >>> data.train.images.shape, data.train.labels.shape, data.num_classes
        ((8, 32, 48, 3), (8, 32, 48), 11)
    """
    if data_root is not None and not isinstance(config, FileData):
        hint = "leave --data-root out"
        raise InputError("the task reads no data folder", hint=hint, key="--data-root")
    if isinstance(config, SyntheticData):
        from study.data.synthetic.source import synthetic_source

        return check_labelled(open_cached(synthetic_source(config), cache_dir, on_progress))
    if isinstance(config, FactoryData):
        data = check_labelled(_from_factory(config))
    else:
        source = scan_files(config, data_root).source()
        data = check_labelled(open_cached(source, cache_dir, on_progress))
    if not begun and (faults := data_faults(data, config)):
        raise faults[0]
    return data


def data_faults(data: SegmentationData, config: Data) -> list[InputError]:
    """What a study must not begin with: an image in two splits, unless the task has `duplicates:
    warn`; labels of one class alone; a class without a training pixel that `absent` does not name.
    Generated data have none of these by design, or all."""
    if isinstance(config, SyntheticData):
        return []
    repeated = [repeat_fault(data)] if config.duplicates == REFUSE else []
    return [*filter(None, repeated), *class_faults(data, config)]


def data_warnings(
    data: SegmentationData, model: SmpModel | FactoryModel | None = None
) -> list[str]:
    """Warn of what limits the use of the data, by the model too, or what their figures mean."""
    data = surveyed(data)
    return [
        *data.warnings,
        *class_warnings(data),
        *resizing_warnings(data),
        *(stride_warnings(data, model) if model is not None else ()),
        *repeat_warnings(data),
        *sequence_warnings(data),
        *pairing_warnings(data),
    ]


def scan_files(config: FileData, data_root: Path | None = None) -> Scan:
    """List and pair the files under the data root, as the format prescribes; decode nothing.

    Raises InputError if the root is missing or does not hold a tree of that format.
    """
    from study.data.formats.camvid import camvid_scan
    from study.data.formats.cityscapes import cityscapes_scan
    from study.data.formats.deepglobe import deepglobe_scan
    from study.data.formats.folder import folder_scan
    from study.data.formats.synthia import synthia_scan
    from study.data.formats.voc import voc_scan

    root = _root(config, data_root)
    match config:
        case FolderData():
            return folder_scan(config, root)
        case CityscapesData():
            return cityscapes_scan(config, root)
        case VocData():
            return voc_scan(config, root)
        case SynthiaData():
            return synthia_scan(config, root)
        case DeepglobeData():
            return deepglobe_scan(config, root)
        case CamvidData():
            return camvid_scan(config, root)
    raise TypeError(f"no format reads {type(config).__name__}")


def _root(config: FileData, data_root: Path | None) -> Path:
    given = data_root if data_root is not None else config.root
    if given is None:
        hint = "add it, or give --data-root DIR"
        raise InputError("missing required key 'root'", hint=hint, key="data/root")
    root = expanded(given, "data/root" if data_root is None else "--data-root")
    if not os.path.isdir(root):
        message = "must be a folder, got a file" if os.path.exists(root) else "does not exist"
        raise InputError(f"the data root {message}", file=root)
    return root


def _from_factory(config: FactoryData) -> SegmentationData:
    from study.core.factories import call_factory

    data = call_factory(config.factory, config.kwargs, key="data/factory")
    if not isinstance(data, SegmentationData):
        raise InputError(
            f"{config.factory} must return a study.data.SegmentationData, "
            f"got {type(data).__name__}",
            hint="SegmentationData.from_arrays makes one",
            key="data/factory",
        )
    return replace(data, repeats=repeats_of_arrays(data))
