"""Packed rows: several videos in a row are what they are alone, and so is the whole model."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.models.settings import EncoderSettings, ResamplerSettings
from trajvit_jax.models.tokens import (
    Rows,
    Tokens,
    cls_states,
    one_video_a_row,
    same_video,
    unpack,
)
from trajvit_jax.models.transformer import Encoder, encode_rows
from trajvit_jax.models.video_text import unit_length
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens
from trajvit_jax.ops.impl import check_impl

VIDEOS, FRAMES, SIZE, GRID = 3, 4, 32, 8
COUNTS = (4, 1, 2)  # trajectories planned for each video
GROUPS = ((2, 0), (1,))  # videos 3 and 1 share a row, in that order


def plan(groups, counts, slots, *, each=1):
    """Rows as a loader would plan them, and the CLS slot of each video."""
    video, query = np.zeros((2, len(groups), slots), np.int32)
    row, first = np.zeros((2, len(counts)), np.int32)
    for r, group in enumerate(groups):
        slot = 0
        for number in group:
            end = slot + 1 + counts[number] * each
            row[number], first[number] = r, slot
            video[r, slot:end] = number + 1
            query[r, slot + 1 : end] = np.arange(end - slot - 1) % each + 1
            slot = end
    return Rows(*(jnp.asarray(part)[None] for part in (video, query, row))), first


def in_slots(labels, first, *, each=1):
    """Labels 1..n of each video as the first slots of its trajectories."""
    return np.where(labels > 0, first[:, None, None, None] + 1 + (labels - 1) * each, 0)


def clips(seed=0, frames=FRAMES, counts=COUNTS):
    """Normalized pixels and labels: of the first video, the second trajectory is nowhere."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(len(counts), frames, SIZE, SIZE, 3)).astype(np.float32)
    shape = (frames, GRID, GRID)
    labels = np.stack([rng.integers(0, count + 1, shape) for count in counts]).astype(np.int32)
    labels[0][labels[0] == 2] = 0
    return video, labels


@nnx.jit
def run(model, video, labels, rows):
    states, tokens, _ = model.encode_video(video, labels, rows)
    cls = cls_states(states, tokens, len(video))
    return unit_length(model.project_video(cls)), tokens, states


@nnx.jit
def run_with_gradients(model, video, labels, rows, probe):
    def probed(model, video):
        embedding = model.embed_video(video, labels, rows)
        return (embedding * probe).sum(), embedding

    return nnx.value_and_grad(probed, argnums=(0, 1), has_aux=True)(model, video)


def test_slots_attend_to_their_own_video_only():
    tokens = Tokens(jnp.zeros((1, 5, 2)), jnp.asarray([[1, 1, 2, 0, 2]]), jnp.zeros((1, 5), int))
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1],
    ]
    np.testing.assert_array_equal(same_video(tokens)[0, 0], np.array(expected, bool))


def test_cls_states_come_in_the_order_of_the_batch():
    states = jnp.arange(12.0).reshape(2, 6, 1)
    video = jnp.asarray([[3, 3, 1, 1, 0, 0], [2, 2, 2, 0, 0, 0]])
    query = jnp.asarray([[0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0]])
    tokens = Tokens(states, video, query)
    np.testing.assert_array_equal(cls_states(states, tokens, 3)[:, 0], [2, 6, 0])


def test_a_row_knows_where_its_videos_begin(tiny):
    rows, first = plan(GROUPS, COUNTS, 16)
    np.testing.assert_array_equal(rows.first(), first[None])
    two = Rows(*(jnp.concatenate([part, part]) for part in (rows.video, rows.query, rows.row)))
    np.testing.assert_array_equal(two.first(), [first, first])
    np.testing.assert_array_equal(two.merged().first(), [[*first, *first]])
    # A row's slots are many videos': what each could have bounds the cost of pooling.
    tokenizer = nnx.eval_shape(lambda: TrajectoryTokens(tiny(), rngs=nnx.Rngs(0)))
    _, labels = clips()
    segments = tokenizer.segments(jnp.asarray(in_slots(labels, first)), rows)
    assert (segments.slots, segments.span) == (16, 7)
    np.testing.assert_array_equal(segments.first, first)


def test_one_video_a_row_always_keeps_its_cls():
    valid = jnp.asarray([[0, 1, 0, 1, 1], [0] * 5], bool)
    tokens = one_video_a_row(jnp.zeros((2, 5, 1)), valid, queries=2)
    np.testing.assert_array_equal(tokens.video, [[1, 1, 0, 1, 1], [2, 0, 0, 0, 0]])
    np.testing.assert_array_equal(tokens.query, [[0, 1, 2, 1, 2]] * 2)


def interleaved(rng, width):
    """Three videos in two rows, one out of order and with empty slots between."""
    video = np.array([[2, 2, 1, 0, 2, 1, 1], [0, 3, 0, 3, 3, 0, 0]])
    query = np.array([[1, 0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0, 1]])
    values = rng.normal(size=(*video.shape, width)).astype(np.float32)
    return Tokens(*map(jnp.asarray, (values, video, query)))


def test_unpacked_tokens_keep_their_order():
    tokens = interleaved(np.random.default_rng(0), 3)
    alone, slot = unpack(tokens, 3)
    for number in (1, 2, 3):
        mine = np.asarray(tokens.video) == number
        np.testing.assert_array_equal(np.asarray(slot)[mine], np.arange(mine.sum()))
        for name in ("values", "query"):
            placed = np.asarray(getattr(alone, name))[number - 1, : mine.sum()]
            np.testing.assert_array_equal(placed, np.asarray(getattr(tokens, name))[mine])
        expected = np.where(np.arange(7) < mine.sum(), number, 0)
        np.testing.assert_array_equal(alone.video[number - 1], expected)


def test_encoded_rows_equal_reference_in_value_and_gradient(assert_close):
    rng = np.random.default_rng(0)
    make = EncoderSettings(width=16, depth=1, heads=2, mlp=24, init_std=0.2)
    encoder = Encoder(make, rngs=nnx.Rngs(0))
    tokens = interleaved(rng, 16)
    probe = rng.normal(size=tokens.values.shape).astype(np.float32)
    probe *= np.asarray(tokens.video > 0)[..., None]

    @nnx.jit(static_argnames="impl")
    def encode(encoder, tokens, *, impl):
        def probed(encoder, values):
            states = encode_rows(encoder, tokens.replace(values=values), 3, impl=impl)
            states = jnp.where((tokens.video > 0)[..., None], states, 0)
            return (states * probe).sum(), states

        return nnx.value_and_grad(probed, argnums=(0, 1), has_aux=True)(encoder, tokens.values)

    fast, reference = (encode(encoder, tokens, impl=impl) for impl in ("fast", "reference"))
    assert_close(fast, reference)


@pytest.mark.usefixtures("annotations_unchecked")
def test_unknown_impl():
    with pytest.raises(ValueError, match="got 'slow'"):
        check_impl("slow")


def test_what_stands_in_empty_slots_reaches_nothing(tiny, random_model):
    encode = nnx.jit(lambda model, tokens: model.encoder(tokens))
    model, tokens = random_model(tiny()), interleaved(np.random.default_rng(0), 32)
    before = encode(model, tokens)
    ignored = ((tokens.video == 0) | (tokens.query == 0))[..., None]
    garbage = dataclasses.replace(tokens, values=jnp.where(ignored, 1e4, tokens.values))
    used = np.asarray(tokens.video) > 0
    after = np.asarray(encode(model, garbage))
    np.testing.assert_array_equal(after[used], np.asarray(before)[used])


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_videos_packed_in_a_row_equal_rows_of_their_own(tiny, random_model, queries):
    own = dataclasses.replace(tiny().trajvit, resampler=ResamplerSettings(queries=queries))
    model, (video, labels) = random_model(tiny(trajvit=own)), clips()
    apart, tokens, _ = run(model, video, labels, None)
    slots_a_row = max(16, 8 * queries)
    rows, first = plan(GROUPS, COUNTS, slots_a_row, each=queries)
    packed = in_slots(labels, first, each=queries)
    together, packed_tokens, _ = run(model, video, packed, rows)
    np.testing.assert_allclose(together, apart, atol=1e-5)

    vanished = np.zeros((2, slots_a_row), bool)
    vanished[0, first[0] + 1 + queries :][:queries] = True
    expected = np.where(vanished, 0, rows.video[0])
    np.testing.assert_array_equal(packed_tokens.video, expected)
    np.testing.assert_array_equal(packed_tokens.query, rows.query[0])
    for number, count in enumerate(COUNTS):
        slots = slice(first[number] + 1, first[number] + 1 + count * queries)
        np.testing.assert_allclose(
            packed_tokens.values[rows.row[0, number], slots],
            tokens.values[number, 1 : 1 + count * queries],
            atol=1e-5,
        )

    # Without the slots of the trajectory that is nowhere: the same videos.
    rows, first = plan(GROUPS, (3, 1, 2), slots_a_row, each=queries)
    renumbered = labels.copy()
    renumbered[0] -= labels[0] > 2
    without, _, _ = run(model, video, in_slots(renumbered, first, each=queries), rows)
    np.testing.assert_allclose(without, together, atol=1e-5)


@pytest.fixture(scope="module")
def embed(tiny, random_model):
    model = random_model(tiny())
    return lambda *inputs: run(model, *inputs)[0]


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 2**32 - 1))
def test_other_videos_of_the_row_change_nothing(embed, seed):
    rows, first = plan(GROUPS, COUNTS, 16)
    video, labels = clips()
    before = embed(video, in_slots(labels, first), rows)
    other_video, other_labels = clips(seed)
    other_video[0], other_labels[0] = video[0], labels[0]
    after = embed(other_video, in_slots(other_labels, first), rows)
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.allclose(after[1:], before[1:], atol=1e-4)


@pytest.mark.parametrize("queries", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_whole_model_equals_reference_in_value_and_gradient(
    assert_close, tiny, random_model, queries
):
    """A trajectory that is nowhere, one that covers everything, and a video without any."""
    video, labels = clips()
    labels[1], labels[2] = 1, 0
    rows, first = plan(GROUPS, COUNTS, 2 + 7 * queries, each=queries)
    labels = in_slots(labels, first, each=queries)
    own = dataclasses.replace(tiny().trajvit, resampler=ResamplerSettings(queries=queries))
    probe = np.random.default_rng(1).normal(size=(VIDEOS, 16)).astype(np.float32)
    fast, reference = (
        run_with_gradients(random_model(tiny(impl=impl, trajvit=own)), video, labels, rows, probe)
        for impl in ("fast", "reference")
    )
    assert_close(jax.tree.leaves(fast), jax.tree.leaves(reference))


@nnx.jit
def tokenize(tokenizer, video, labels):
    return tokenizer(video, labels, train=False)[0]


@pytest.mark.parametrize(
    ("frames", "count"), [(1, 6), (16, 300), (64, 6)], ids=["1 frame", "300 trajectories", "64"]
)
def test_tokens_equal_reference_at_other_lengths(assert_close, tiny, randomized, frames, count):
    own = dataclasses.replace(tiny().trajvit, max_trajectories=count)
    video, labels = clips(frames=frames, counts=(count,))
    made = (tiny(frames=frames, trajvit=own, impl=impl) for impl in ("fast", "reference"))
    fast, reference = (
        tokenize(randomized(lambda s=s: TrajectoryTokens(s, rngs=nnx.Rngs(0))), video, labels)
        for s in made
    )
    assert_close(fast, reference)
    assert 0 < np.asarray(fast.video).sum() < count + 1
