"""Windows that together show a picture: each pixel once, without a seam."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from study.inference.windows import spans, windowed


@given(length=st.integers(1, 400), window=st.integers(8, 150), part=st.floats(0, 0.49))
@settings(max_examples=200, deadline=None)
def test_each_pixel_is_used_once_and_away_from_inner_edges(
    length: int, window: int, part: float
) -> None:
    margin = min(int(part * window), (window - 1) // 2)
    found = spans(length, window, margin)
    assert [x for one in found for x in range(one.first, one.end)] == list(range(length))
    for one in found:
        assert one.start >= 0
        assert one.first - one.start >= (margin if one.start else 0)
        ends_inside = one.start + window < length
        assert one.end <= one.start + window - (margin if ends_inside else 0)


def test_windows_begin_on_the_coarsest_grid() -> None:
    assert {one.start % 32 for one in spans(500, 128, 20)} == {0}


def test_margins_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"margin must be below half of the window \(20\), got 10"):
        spans(100, 20, 10)


@pytest.mark.parametrize("size", [(100, 131), (61, 40), (33, 200), (40, 40)])
def test_a_network_that_sees_no_farther_than_the_margin_leaves_no_seam(
    size: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 5, padding=2)]  # sees 4
    network = nn.Sequential(*layers).eval()
    image = torch.randn(3, *size)
    with torch.inference_mode():
        whole = network(image[None])[0]
        for margin, equal in ((4, True), (1, size == (40, 40))):
            found = torch.full_like(whole, torch.nan)
            for rows, columns, logits in windowed(network, image, (40, 48), margin):
                assert found[:, rows, columns].isnan().all()
                found[:, rows, columns] = logits
            inner = (slice(None), slice(0, size[0] - 4), slice(0, size[1] - 4))  # beyond are zeros
            assert torch.allclose(found[inner], whole[inner], atol=1e-5) == equal
