"""Rows that do not fit their videos are told of, with the number of slots that would."""

from __future__ import annotations

import numpy as np
import pytest

from trajvit_jax.data.packing import PackingSettings, plan
from trajvit_jax.data.row_fit import RowFit, advice, best, fit, sizes_to_try
from trajvit_jax.data.schedule import SourceSettings, StreamSettings

BATCHES = [np.array([9, 9, 1, 1]), np.array([3, 5, 7, 9])]


def stream(slots: int, batch: int = 64, name: str = "video") -> StreamSettings:
    return StreamSettings(
        name=name,
        batch=batch,
        sources=(SourceSettings("records"),),
        packing=PackingSettings(8, 1, slots),
    )


def drawn(mean: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.geometric(1 / mean, 64) for _ in range(4)]


@pytest.mark.parametrize("each", [1, 2])
def test_a_fit_is_what_plans_keep(each):
    packing = PackingSettings(group=2, rows=1, slots=14)
    own = fit(BATCHES, packing, each=each)
    plans = [plan(counts, packing, each=each) for counts in BATCHES]
    kept = [int(made.kept.sum()) for made in plans]
    assert own.used == pytest.approx((sum(kept) * each + 8) / (4 * 14))
    assert own.dropped == pytest.approx(1 - sum(kept) / 44)
    assert own.worst == pytest.approx(max(1 - kept[0] / 20, 1 - kept[1] / 24))


def test_a_fit_by_hand():
    own = fit(BATCHES[:1], PackingSettings(group=2, rows=1, slots=8))
    assert (own.used, own.dropped, own.worst) == pytest.approx((1.0, 8 / 20, 8 / 20))


def test_the_best_drops_little_before_it_uses_much():
    shape = PackingSettings()
    tight, right, loose, wasteful = (
        RowFit(shape, used, dropped, dropped)
        for used, dropped in [(0.99, 0.01), (0.9, 0.0005), (0.8, 0.0), (0.5, 0.002)]
    )
    assert best([tight, loose, right]) is right
    assert best([tight, wasteful]) is wasteful


def test_sizes_to_try_surround_what_videos_need():
    sizes = [one.slots for one in sizes_to_try([np.full(8, 99)], PackingSettings(8, 1, 896))]
    assert sizes[0] <= 800 / 0.96 and sizes[-1] >= 800 / 0.85
    assert set(np.diff(sizes)) == {16}


@pytest.mark.parametrize("slots", [400, 2000])
def test_rows_that_are_too_short_or_long_are_told_of_with_better_ones(slots):
    told = advice(stream(slots), drawn(100))
    assert told is not None and f"rows of {slots} slots do not fit" in told
    better = int(told.split("slots=")[1].split()[0])
    assert 800 < better < 1000
    assert f"slots={better} " in told and advice(stream(better), drawn(100)) is None


@pytest.mark.parametrize(("name", "argument"), [("video", "slots"), ("image", "image_slots")])
def test_the_argument_that_is_told_is_the_stream_s(name, argument):
    told = advice(stream(400, name=name), drawn(100))
    assert told is not None and f" with {argument}=" in told


def test_nothing_is_told_where_there_are_no_rows_or_none_are_better():
    alone = StreamSettings(batch=64, sources=(SourceSettings("records"),))
    assert advice(alone, drawn(100)) is None
    # Rows that use more would drop most of the one large video.
    assert advice(stream(480), [np.array([400, *[1] * 63])]) is None
