"""The progress of decoding a data set, shown on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MANY_IMAGES = 1000


@contextmanager
def progress(
    what: str, num_images: int, *, many: int = MANY_IMAGES
) -> Iterator[Callable[[], object]]:
    """Show a bar while the block runs; yields the function to call after each image.

    If stderr is not a terminal, prints one line at the start if there are `many` images or more.
    """
    if not sys.stderr.isatty():
        if num_images >= many:
            print(f"{what}: {num_images} images", file=sys.stderr, flush=True)
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(desc=what, total=num_images, unit="image", leave=False) as bar:
        yield bar.update
