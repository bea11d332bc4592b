"""What the models say of themselves: named intermediates, traces, and every setting's effect."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.models.settings import (
    EncoderSettings,
    HieraSettings,
    ResamplerSettings,
    ResNetSettings,
)
from trajvit_jax.models.tokens import one_video_a_row
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens

VIDEOS, FRAMES, SIZE, GRID, SLOTS, WIDTH = 3, 4, 32, 8, 7, 32


def clips(seed=0):
    """Normalized pixels and labels; trajectory 1 is in frame 0 alone, 6 is nowhere."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(VIDEOS, FRAMES, SIZE, SIZE, 3)).astype(np.float32)
    labels = rng.choice([0, 2, 3, 4, 5], (VIDEOS, FRAMES, GRID, GRID)).astype(np.int32)
    labels[:, 0, :3] = 1
    return video, labels


@nnx.jit(static_argnames="trace")
def encode(model, video, labels, *, trace=False):
    return model.encode_video(video, labels, trace=trace)


def test_every_intermediate_is_there_in_its_shape(tiny, random_model):
    video, labels = clips()
    _, tokens, parts = encode(random_model(tiny()), video, labels)
    shapes = {
        "stage0": (VIDEOS, FRAMES, 8, 8, 8),
        "stage1": (VIDEOS, FRAMES, 4, 4, 16),
        "pooled": (VIDEOS, SLOTS, FRAMES, WIDTH),
        "present": (VIDEOS, SLOTS, FRAMES),
        "coordinates": (VIDEOS, SLOTS, FRAMES, 4),
        "appearance": (VIDEOS, SLOTS, 1, WIDTH),
        "position": (VIDEOS, SLOTS, 1, WIDTH),
    }
    assert {name: array.shape for name, array in parts.items()} == shapes
    areas = np.stack([(labels == slot).sum((2, 3)) for slot in range(SLOTS)], 1)
    areas[:, 0] = 0
    np.testing.assert_array_equal(parts["present"], areas > 0)
    np.testing.assert_array_equal(tokens.video[:, 1:] > 0, (areas > 0).any(-1)[:, 1:])
    np.testing.assert_allclose(
        tokens.values, (parts["appearance"] + parts["position"])[:, :, 0], atol=1e-6
    )


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_reversed_videos_have_reversed_segments(tiny, random_model, seed):
    video, labels = clips(seed)
    model = random_model(tiny())
    before = encode(model, video, labels)[2]
    after = encode(model, video[:, ::-1], labels[:, ::-1])[2]
    for name in ("pooled", "present", "coordinates"):
        np.testing.assert_allclose(after[name][:, :, ::-1], before[name], atol=1e-5)
    assert not np.allclose(after["appearance"], before["appearance"], atol=1e-3)


@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
@pytest.mark.parametrize(("passes", "final_norm"), [(1, True), (2, False)])
def test_traces_end_in_the_states_and_stay_within_a_video(
    assert_close, tiny, random_model, name, passes, final_norm
):
    encoder = dataclasses.replace(tiny().encoder, passes=passes, final_norm=final_norm)
    model, (video, labels) = random_model(tiny(name, encoder=encoder)), clips()
    states, tokens, parts = encode(model, video, labels, trace=True)
    if name == "vit3d":
        assert parts["patches"].shape == (VIDEOS, 8, WIDTH)
    used = np.asarray(tokens.video) > 0
    layers = encoder.depth * passes
    assert parts["states"].shape == (layers + 1, *tokens.values.shape)
    last = parts["states"][-1]
    assert_close((model.encoder.norm(last) if final_norm else last)[used], states[used])
    read = model.encoder.read(tokens)
    np.testing.assert_allclose(parts["states"][0], read, atol=1e-6)
    np.testing.assert_array_equal(read[:, 0], np.tile(model.encoder.cls[...], (VIDEOS, 1)))

    attention = np.asarray(parts["attention"])
    assert attention.shape == (layers, VIDEOS, encoder.heads, *used.shape[1:], *used.shape[1:])
    for video_attention, slots in zip(np.moveaxis(attention, 1, 0), used, strict=True):
        np.testing.assert_allclose(video_attention[:, :, slots].sum(-1), 1, atol=1e-5)
        assert not video_attention[:, :, slots][..., ~slots].any()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["appearance", "position"]),
        ({"feature_width": 8, "pooling": "corners", "position": "none"}, ["appearance"]),
        ({"appearance": "mean", "position_features": "released"}, ["position"]),
        (
            {"resampler": ResamplerSettings(queries=2, depth=2), "position_reader": "mlp"},
            ["appearance"],
        ),
        ({"attend_padding": True}, ["appearance", "position"]),
    ],
    ids=["default", "corners", "mean", "two queries", "padding attended"],
)
def test_traces_tell_what_queries_read_of_frames(tiny, random_model, changes, names):
    own = dataclasses.replace(tiny().trajvit, resnet=ONE_STAGE, **changes)
    encoder = dataclasses.replace(tiny().encoder, depth=1)
    model, (video, labels) = random_model(tiny(trajvit=own, encoder=encoder)), clips()
    _, tokens, parts = encode(model, video, labels, trace=True)
    present = np.asarray(parts["present"])
    if own.attend_padding:  # of a trajectory that is nowhere, up to ten frames
        present = present | ~present.any(-1, keepdims=True)
    assert [f"{name}_attention" in parts for name in ("appearance", "position")] == [
        name in names for name in ("appearance", "position")
    ]
    expected, tokenizer = {}, model.tokenizer
    if "appearance" in names:
        vectors, seen = parts["pooled"], present
        if own.pooling == "corners":  # four points a frame, each like a clip of its own
            vectors = jnp.concatenate(jnp.split(vectors, 4, axis=-1), axis=2)
            seen = np.concatenate([present] * 4, axis=2)
        if own.feature_width:
            vectors = tokenizer.appearance.widen(vectors)
        read = tokenizer.appearance.summary.attention(vectors, jnp.asarray(seen))
        read = np.asarray(read)
        expected["appearance"] = sum(np.split(read, read.shape[-1] // FRAMES, axis=-1))
    if "position" in names:
        position = tokenizer.position
        vectors, _ = position.features(parts["coordinates"])
        if position.linear is not None:
            vectors = position.linear(vectors)
        expected["position"] = position.summary.attention(vectors, jnp.asarray(present))
    for name in names:
        shares = np.asarray(parts[f"{name}_attention"])
        slots = tokens.values.shape[1]
        assert shares.shape == (VIDEOS, slots, own.resampler.queries, FRAMES)
        np.testing.assert_allclose(shares, expected[name], atol=1e-6)
        assert not shares[~np.broadcast_to(present[:, :, None], shares.shape)].any()
        assert (shares.sum(-1) < 1).all() and shares.max() > 0.1


ONE_STAGE = ResNetSettings(8, (8,), (1,))  # what is left out of a program need not be compiled
ABLATIONS = {
    "narrow features": {"feature_width": 8},
    "corners": {"pooling": "corners"},
    "mean over frames": {"appearance": "mean"},
    "no position": {"position": "none"},
    "centers": {"position": "centers"},
    "released position": {"position_features": "released"},
    "position by MLP": {"position_reader": "mlp"},
    "position by sinusoids": {"position_reader": "sinusoids"},
    "deeper position": {"position_depth": 2},
    "learned frame positions": {"resampler": ResamplerSettings(frame_positions="learned")},
    "latent block": {"resampler": ResamplerSettings(depth=2, queries=2, latent_block=True)},
    "two queries": {"resampler": ResamplerSettings(queries=2)},
    "two summed": {"resampler": ResamplerSettings(queries=2), "queries_as": "sum"},
    "padding attended": {"attend_padding": True},
    "bottlenecks": {"resnet": ResNetSettings(8, (8,), (1,), "bottleneck")},
    "two stages": {"resnet": ResNetSettings(8, (8, 16), (1, 1))},
    "the last stage alone": {
        "resnet": ResNetSettings(8, (8, 16), (1, 1)),
        "hierarchical": False,
    },
    "Hiera": {
        "backbone": "hiera",
        "hiera": HieraSettings(
            image_size=32, width=8, depths=(1, 1), heads=(1, 2), unit_attention=(True, False)
        ),
    },
}


@nnx.jit
def tokens_and_gradients(tokenizer, video, labels):
    def probed(tokenizer):
        tokens, _ = tokenizer(video, labels, train=False)
        # No symmetric probe: behind a LayerNorm, a plain sum has no gradient.
        probe = jnp.cos(jnp.arange(tokens.values.size)).reshape(tokens.values.shape)
        used = (tokens.video > 0) & (tokens.query > 0)
        return (tokens.values * probe * used[..., None]).sum(), tokens

    return nnx.grad(probed, has_aux=True)(tokenizer)


@pytest.fixture(scope="module")
def tokenizer(tiny, randomized):
    """The default one, or one of other settings."""

    def make(**changes):
        own = dataclasses.replace(tiny().trajvit, **({"resnet": ONE_STAGE} | changes))
        return randomized(lambda: TrajectoryTokens(tiny(trajvit=own), rngs=nnx.Rngs(0)))

    return make


@pytest.fixture(scope="module")
def default_tokens(tokenizer):
    return tokens_and_gradients(tokenizer(), *clips())[1]


def by_name(state):
    return {".".join(map(str, path)): np.asarray(leaf) for path, leaf in nnx.to_flat_state(state)}


@pytest.mark.parametrize("changes", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_every_setting_learns_and_makes_a_difference(tokenizer, default_tokens, changes):
    changed = tokenizer(**changes)
    own = changed.settings
    stages = own.resnet.widths if own.backbone == "resnet" else own.hiera.widths
    assert len(changed.appearance.project) == (len(stages) if own.hierarchical else 1)
    gradients, tokens = tokens_and_gradients(changed, *clips())
    assert tokens.values.shape == (VIDEOS, 1 + 6 * own.tokens_each, WIDTH)
    assert np.isfinite(tokens.values).all()
    for name, gradient in by_name(gradients).items():
        assert np.isfinite(gradient).all(), name
        assert gradient.any(), f"{name} learns nothing"
    if own.tokens_each == 1:
        slots = slice(1, None)
        difference = tokens.values[:, slots] - default_tokens.values[:, slots]
        assert np.abs(difference).max() > 1e-3
    else:
        first, second = tokens.values[:, 1::2], tokens.values[:, 2::2]
        assert np.abs(first - second).max() > 1e-3
        # Each is read of its own trajectory's frames, as one alone is.
        assert np.abs(first[:, 0] - first[:, 1]).max() > 1e-3


def test_encoder_settings_change_what_they_say_and_no_more(assert_close, randomized):
    plain = EncoderSettings(width=16, depth=2, heads=2, mlp=24, init_std=0.2)
    rng = np.random.default_rng(0)
    valid = jnp.asarray(np.arange(5) < np.array([[5], [3]]))
    tokens = one_video_a_row(jnp.asarray(rng.normal(size=(2, 5, 16)), jnp.float32), valid)

    def build(**changes):
        changed = dataclasses.replace(plain, **changes)
        return randomized(lambda: Encoder(changed, rngs=nnx.Rngs(0)))

    def run(**changes):
        return nnx.jit(lambda encoder: encoder(tokens))(build(**changes))

    def gradients(**changes):
        probe = jnp.cos(jnp.arange(tokens.values.size)).reshape(tokens.values.shape)
        probe = probe * (tokens.video > 0)[..., None]
        grad = nnx.jit(nnx.grad(lambda encoder: (encoder(tokens) * probe).sum()))
        return by_name(grad(build(**changes)))

    expected = run()
    assert_close(run(unroll=2), expected)
    for other in ({"passes": 2}, {"final_norm": False}):
        assert np.abs(run(**other) - expected).max() > 1e-2
    kept = gradients()
    assert all(np.isfinite(gradient).all() and gradient.any() for gradient in kept.values())
    assert_close(gradients(remat="layers"), kept)
    assert_close(gradients(remat="products"), kept)


@nnx.jit
def embeddings(model, video, labels, ids, mask):
    return {"video": model.embed_video(video, labels), "text": model.embed_text(ids, mask)}


def test_bfloat16_keeps_float32_parameters_and_nearly_the_embeddings(tiny, random_model):
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 64, (VIDEOS, 8)), jnp.int32)
    narrow, full = (random_model(tiny(dtype=dtype)) for dtype in ("bfloat16", "float32"))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(narrow))} == {jnp.dtype("float32")}
    expected, actual = (
        embeddings(model, *clips(), ids, jnp.ones(ids.shape, bool)) for model in (full, narrow)
    )
    for name, embedding in actual.items():
        assert embedding.dtype == jnp.float32
        assert (np.asarray(embedding) * np.asarray(expected[name])).sum(-1).min() > 0.99
        assert np.abs(embedding - expected[name]).max() > 1e-5, "computed in float32 after all"
    states, tokens, parts = encode(narrow, *clips())
    assert states.dtype == tokens.values.dtype == parts["stage1"].dtype == jnp.bfloat16
    assert parts["pooled"].dtype == parts["coordinates"].dtype == jnp.float32
