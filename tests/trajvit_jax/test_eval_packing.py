"""Rows of an evaluation: every video whole, once, in one shape."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.trajectories import compact
from trajvit_jax.data.eval_packing import plan_evaluation
from trajvit_jax.data.evaluation import eval_videos
from trajvit_jax.data.packing import place
from trajvit_jax.models.settings import ResamplerSettings, ResNetSettings, TrajViTSettings


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    groups=st.integers(1, 3),
    group=st.integers(1, 5),
    most=st.integers(1, 30),
    each=st.sampled_from([1, 2]),
)
def test_every_video_has_its_slots_once(counts, groups, group, most, each):
    batch = group * groups
    shape, plans = plan_evaluation(np.array(counts), batch=batch, group=group, most=most, each=each)
    assert len(plans) == -(-len(counts) // batch)
    found = []
    for plan in plans:
        rows = place(plan, shape, each=each)
        assert rows.video.shape == (groups, shape.rows, shape.slots)
        for own in rows.video:
            found += np.bincount(own.reshape(-1), minlength=group + 1)[1:].tolist()
        firsts = (rows.query == 0) & (rows.video > 0)
        assert firsts.sum() == batch
        np.testing.assert_array_equal(plan.kept * each + 1, found[-batch:])
    expected = np.minimum(counts, most) * each + 1
    assert found[: len(counts)] == expected.tolist()
    assert set(found[len(counts) :]) <= {1}


def test_rows_are_as_long_as_the_largest_video_and_as_few_as_first_fit_needs():
    shape, (plan,) = plan_evaluation(np.array([9, 4, 4, 1]), batch=4, group=4, most=99)
    assert (shape.rows, shape.slots) == (3, 10)
    assert plan.row.tolist() == [0, 1, 1, 2] and plan.start.tolist() == [0, 0, 5, 0]


@pytest.mark.parametrize(("counts", "batch"), [([], 4), ([1], 5)])
def test_what_cannot_be_planned(counts, batch):
    with pytest.raises(ValueError, match=f"batches of {batch}, groups of 4"):
        plan_evaluation(np.array(counts, np.int64), batch=batch, group=4, most=9)


@pytest.mark.parametrize("queries", [1, 2])
def test_packed_videos_have_the_embeddings_of_videos_in_rows_of_their_own(
    toy_record, tiny, random_model, queries
):
    records = []
    for i in range(5):
        record = toy_record(i)
        labels = record.trajectories.labels.copy()
        labels[:, :4, : 4 * i + 4] = 3 + np.repeat(np.arange(i + 1), 4)  # videos differ in number
        labels = compact(labels).astype(np.uint16)
        changed = dataclasses.replace(record.trajectories, labels=labels)
        records.append(dataclasses.replace(record, trajectories=changed))
    model = random_model(
        tiny(
            trajvit=TrajViTSettings(
                max_trajectories=12,
                resnet=ResNetSettings(4, (8,), (1,)),
                resampler=ResamplerSettings(queries=queries),
            )
        )
    )

    embed_video = nnx.jit(type(model).embed_video)

    def embed(group: int | None) -> tuple[np.ndarray, int]:
        found, slots = [], 0
        for videos in eval_videos(records, model.settings, 4, group=group):
            rows = None if videos.rows is None else jax.tree.map(jnp.asarray, videos.rows)
            video, labels = jnp.asarray(videos.video), jnp.asarray(videos.labels)
            embedded = embed_video(model, video, labels, rows)
            found.append(np.asarray(embedded)[: videos.count])
            slots += 0 if rows is None else rows.video.size
        return np.concatenate(found), slots

    alone, _ = embed(None)
    for group in (2, 4):
        packed, slots = embed(group)
        np.testing.assert_allclose(packed, alone, atol=1e-6)
        assert slots < 8 * (12 * queries + 1) / 1.5
