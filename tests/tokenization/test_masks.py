"""Which masks stay, against a plain loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_boxes import iou
from tokenization.segmenters.masks import suppress

BOXES = st.lists(st.tuples(*[st.integers(0, 8)] * 4, st.integers(0, 4)), max_size=12)


@settings(deadline=None)
@given(BOXES, st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_suppression(rows, max_overlap):
    rows = np.array(rows, np.float64).reshape(-1, 5)
    corners = np.sort(rows[:, :4].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    kept = []
    for index in sorted(range(len(rows)), key=lambda i: -rows[i, 4]):
        if all(iou(corners[index], corners[other]) <= max_overlap for other in kept):
            kept.append(index)
    assert suppress(corners, rows[:, 4], max_overlap).tolist() == kept
