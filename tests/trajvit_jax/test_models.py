"""The token contract and the invariances that every video model owes to it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.resampler import Resampler
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Tokens, cls_states, one_video_a_row, same_video
from trajvit_jax.models.video_text import VideoTextModel, unit_length
from trajvit_jax.models.video_tokens.vit3d import tubelet_labels

VIDEOS, FRAMES, SIZE, GRID, SLOTS = 3, 4, 32, 8, 7


@nnx.jit
def run(model, video, labels):
    states, tokens, parts = model.encode_video(video, labels)
    embedding = unit_length(model.project_video(cls_states(states, tokens, VIDEOS)))
    return {"embedding": embedding, "values": tokens.values, "video": tokens.video, **parts}


@nnx.jit
def encode(model, tokens):
    return model.encoder(tokens)


@pytest.fixture(scope="module")
def trajvit(tiny, random_model):
    return random_model(tiny("trajvit"))


@pytest.fixture(scope="module")
def vit3d(tiny, random_model):
    return random_model(tiny("vit3d"))


def clips(seed=0):
    """Pixels, and labels whose trajectory 5 is nowhere and 1 lives in frames 0 and 1 only."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (VIDEOS, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    labels = rng.choice([0, 2, 3, 4], (VIDEOS, FRAMES, GRID, GRID)).astype(np.int32)
    labels[:, :2, :3] = 1
    return jnp.asarray(video), jnp.asarray(labels)


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


def test_one_video_a_row_always_keeps_its_cls():
    tokens = one_video_a_row(jnp.zeros((2, 3, 1)), jnp.asarray([[0, 1, 0], [0, 0, 0]], bool))
    np.testing.assert_array_equal(tokens.video, [[1, 1, 0], [2, 0, 0]])
    np.testing.assert_array_equal(tokens.query, [[0, 1, 1], [0, 1, 1]])


def test_permuted_trajectories_are_permuted_tokens_of_the_same_video(trajvit):
    video, labels = clips()
    order = np.array([0, 4, 1, 6, 2, 3, 5])  # label i becomes order[i]
    before, after = run(trajvit, video, labels), run(trajvit, video, jnp.asarray(order)[labels])
    for name in ("pooled", "boxes", "appearance", "position", "values"):
        np.testing.assert_allclose(
            after[name][:, order[1:]], before[name][:, 1:], atol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(after["present"][:, order[1:]], before["present"][:, 1:])
    np.testing.assert_allclose(after["embedding"], before["embedding"], atol=1e-5)


def test_other_videos_of_the_batch_change_nothing(trajvit, vit3d):
    video, labels = clips()
    other_video, other_labels = clips(seed=9)
    for model in (trajvit, vit3d):
        alone = run(model, video, labels)["embedding"][0]
        crowd = run(
            model, other_video.at[0].set(video[0]), (other_labels + 2).at[0].set(labels[0])
        )["embedding"]
        np.testing.assert_array_equal(crowd[0], alone)
        assert not np.allclose(crowd[1], run(model, video, labels)["embedding"][1], atol=1e-3)


def test_a_frame_without_the_trajectory_does_not_matter_to_it(trajvit):
    video, labels = clips()
    before = run(trajvit, video, labels)
    after = run(trajvit, video.at[:, 3].set(255 - video[:, 3]), labels)
    np.testing.assert_array_equal(after["values"][:, 1], before["values"][:, 1])
    assert not np.allclose(after["values"][:, 2], before["values"][:, 2], atol=1e-4)
    assert not before["present"][:, 1, 2:].any() and before["present"][:, 1, :2].all()
    assert not before["present"][:, [0, 5, 6]].any()


def test_a_video_without_trajectories_is_finite_and_empty(trajvit):
    video, labels = clips()
    out = run(trajvit, video, jnp.zeros_like(labels))
    np.testing.assert_array_equal(out["video"][:, 1:], 0)
    assert np.isfinite(out["embedding"]).all()


def test_what_stands_in_empty_slots_reaches_nothing(trajvit):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(2, SLOTS, 32)), jnp.float32)
    valid = jnp.asarray(np.arange(SLOTS) < np.array([[4], [SLOTS]]))
    tokens = one_video_a_row(values, valid)
    before = encode(trajvit, tokens)
    garbage = values.at[0, 4:].set(1e4).at[:, 0].set(-7.0)
    after = encode(trajvit, dataclasses.replace(tokens, values=garbage))
    np.testing.assert_array_equal(after[0, :4], before[0, :4])
    np.testing.assert_array_equal(after[1], before[1])


def test_two_videos_packed_in_a_row_equal_separate_rows(trajvit):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(2, SLOTS, 32)), jnp.float32)
    lengths = (4, 3)
    apart = one_video_a_row(values, jnp.asarray(np.arange(SLOTS) < np.array(lengths)[:, None]))
    packed = Tokens(
        jnp.concatenate([values[i, :n] for i, n in enumerate(lengths)])[None],
        jnp.asarray([[1] * 4 + [2] * 3]),
        jnp.asarray([[0, 1, 1, 1, 0, 1, 1]]),
    )
    separate, together = encode(trajvit, apart), encode(trajvit, packed)
    np.testing.assert_allclose(together[0, :4], separate[0, :4], atol=1e-5)
    np.testing.assert_allclose(together[0, 4:], separate[1, :3], atol=1e-5)
    np.testing.assert_allclose(
        cls_states(together, packed, 2), cls_states(separate, apart, 2), atol=1e-5
    )


def count(module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_parameters_at_the_size_of_the_paper():
    model = nnx.eval_shape(lambda: VideoTextModel(ModelSettings(), rngs=nnx.Rngs(0)))
    assert count(model.tokenizer.resnet) == 11_176_512
    assert count(model.encoder.layers) == 302_309_376
    # Four bias-free projections, two layer norms and one at the end, a query.
    assert count(model.tokenizer.appearance) == 4 * 1024**2 + 3 * 2 * 1024 + 1024
    assert count(model.tokenizer.position) == count(model.tokenizer.appearance)
    stages = count(model.tokenizer.project) + count(model.tokenizer.norm)
    assert stages == 989_184
    # BERT-base without its pooler and token types.
    assert count(model.text) == 109_482_240 - 2 * 768 - (768 * 768 + 768) - (512 - 77) * 768


def layer_norm(x, module):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(module.scale[...]) + np.asarray(module.bias[...])


def turn(x, position):
    """Rotates interleaved pairs of the first half of each head, as complex numbers."""
    half = x.shape[-1] // 2
    pairs = x[..., :half:2] + 1j * x[..., 1:half:2]
    pairs = pairs * np.exp(1j * position * 10_000.0 ** (-np.arange(0, half, 2) / half))
    turned = np.stack([pairs.real, pairs.imag], -1).reshape(*x.shape[:-1], half)
    return np.concatenate([turned, x[..., half:]], -1)


def plain_resampler(module, frames, present, heads):
    """One trajectory; only the frames where it is present are looked at."""
    d = frames.shape[-1]
    query = np.asarray(module.query[...])
    for layer in module.layers:
        normed = layer_norm(query, layer.norm_query)
        inputs = [normed, *layer_norm(frames, layer.norm_frames)[present]]
        positions = [0, *(np.flatnonzero(present) + 1)]
        q = (normed @ np.asarray(layer.to_query.kernel[...])).reshape(heads, -1)
        scores, values = [], []
        for x, position in zip(inputs, positions, strict=True):
            k, v = np.split(x @ np.asarray(layer.to_key_value.kernel[...]), 2)
            k = turn(k.reshape(heads, -1), position)
            scores.append((q * k).sum(-1) / np.sqrt(d // heads))
            values.append(v.reshape(heads, -1))
        weights = np.exp(scores) / np.exp(scores).sum(0)
        out = np.einsum("th,thd->hd", weights, np.array(values)).reshape(d)
        query = query + out @ np.asarray(layer.to_out.kernel[...])
    return layer_norm(query, module.norm)


def test_resampler_equals_the_plain_formula():
    width, heads, t = 16, 2, 5
    module = nnx.jit(lambda: Resampler(width, heads, 2, rotary=True, rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(2, 3, t, width)).astype(np.float32)
    present = rng.random((2, 3, t)) < 0.5
    present[0, 0], present[1, 2] = True, False
    out = nnx.jit(lambda m, x, p: m(x, p))(module, jnp.asarray(frames), jnp.asarray(present))
    for index in np.ndindex(2, 3):
        expected = plain_resampler(module, frames[index], present[index], heads)
        np.testing.assert_allclose(out[index], expected, atol=2e-5)


def test_tubelets_come_in_the_order_of_their_labels(tiny, random_model):
    model = random_model(tiny("vit3d"))
    tubelet, patch = model.settings.vit3d.tubelet, model.settings.vit3d.patch
    inputs = 3 * tubelet * patch**2
    kernel = np.zeros((inputs, 32), np.float32)
    kernel[np.arange(inputs), np.arange(inputs) % 3] = 3 / inputs  # mean of each channel
    embed = model.tokenizer.embed
    embed.kernel[...], embed.bias[...] = jnp.asarray(kernel), jnp.zeros(32)
    video = np.random.default_rng(0).normal(size=(1, FRAMES, SIZE, SIZE, 3)).astype(np.float32)
    unused = jnp.zeros((1, FRAMES, GRID, GRID), jnp.int32)
    _, parts = nnx.jit(lambda m, v: m.tokenizer(v, unused, train=False))(model, jnp.asarray(video))
    labels = tubelet_labels(FRAMES, SIZE, SIZE, tubelet=tubelet, patch=patch)
    assert set(np.unique(labels)) == set(range(1, model.tokenizer.count + 1))
    for channel in range(3):
        sums = np.bincount(labels.ravel(), video[0, ..., channel].ravel())[1:]
        means = sums / np.bincount(labels.ravel())[1:]
        np.testing.assert_allclose(parts["patches"][0, :, channel], means, atol=1e-5)


def test_padding_never_changes_a_caption(trajvit):
    embed = nnx.jit(lambda model, ids, mask: model.embed_text(ids, mask))
    ids = jnp.asarray([[2, 9, 8, 3, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 10, 3]])
    mask = jnp.asarray(np.arange(8) < np.array([[4], [8]]))
    before = embed(trajvit, ids, mask)
    after = embed(trajvit, ids.at[0, 4:].set(33), mask)
    np.testing.assert_array_equal(after, before)
    alone = embed(trajvit, ids[:1, :4], mask[:1, :4])
    np.testing.assert_allclose(alone[0], before[0], atol=1e-5)
    assert not np.allclose(embed(trajvit, ids.at[0, 2].set(33), mask)[0], before[0], atol=1e-3)


def test_unknown_models_are_refused_with_the_nearest_name(tiny):
    with pytest.raises(ValueError, match="did you mean 'vit3d'"):
        VideoTextModel(tiny("vit3"), rngs=nnx.Rngs(0))


def test_tubelets_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ValueError, match="5 frames of 32 px"):
        VideoTextModel(tiny("vit3d", frames=5), rngs=nnx.Rngs(0))
