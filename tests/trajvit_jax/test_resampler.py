"""Resampler attention: fast = reference = the plain formula, in value and gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.resampler import Resampler
from trajvit_jax.models.settings import ResamplerSettings
from trajvit_jax.ops.resampler_attention import CrossAttention, Lift, attend_frames

WIDTH, HEADS = 16, 2


def cross_attention(rng, *, rotary=True, dtype=np.float32):
    kernels = rng.normal(size=(4, WIDTH, WIDTH)) / np.sqrt(WIDTH)
    norm = rng.uniform(0.5, 1.5, WIDTH), rng.normal(size=WIDTH)
    arrays = [jnp.asarray(array.astype(dtype)) for array in (*kernels, *norm)]
    return CrossAttention(*arrays, heads=HEADS, rotary=rotary)


@functools.partial(jax.jit, static_argnames="impl")
def attended_and_gradients(weights, query, frames, lift, present, probe, *, impl):
    def probed(weights, query, frames, lift):
        out = attend_frames(weights, query, frames, present, lift=lift, impl=impl)
        return (out * probe).sum(), out

    (_, out), gradients = jax.value_and_grad(probed, argnums=(0, 1, 2, 3), has_aux=True)(
        weights, query, frames, lift
    )
    return out, gradients


def both_ways(weights, query, frames, present, lift=None):
    probe = np.random.default_rng(5).normal(size=(len(frames), query.shape[1], WIDTH))
    probe = jnp.asarray(probe.astype(frames.dtype))
    run = functools.partial(attended_and_gradients, weights, query, frames, lift, present, probe)
    return run(impl="fast"), run(impl="reference")


def drawn(rng, n, t, *, queries=1, channels=WIDTH):
    """A query, frames, and where they are seen: all, none, or half of them."""
    query = rng.normal(size=(1, queries, WIDTH)).astype(np.float32)
    frames = rng.normal(size=(n, t, channels)).astype(np.float32)
    present = rng.random((n, t)) < 0.5
    present[0], present[1] = True, False
    return jnp.asarray(query), jnp.asarray(frames), jnp.asarray(present)


def drawn_lift(rng, channels, dtype=np.float32):
    kernel = rng.normal(size=(channels, WIDTH)).astype(dtype)
    return Lift(jnp.asarray(kernel), jnp.asarray(rng.normal(size=WIDTH).astype(dtype)))


@pytest.mark.parametrize(
    ("n", "t", "rotary"),
    [(5, 1, True), (5, 16, True), (3, 64, True), (300, 2, True), (5, 16, False)],
    ids=["1 frame", "16 frames", "64 frames", "300 trajectories", "no positions"],
)
def test_fast_attention_equals_reference_in_value_and_gradient(assert_close, n, t, rotary):
    rng = np.random.default_rng(0)
    weights = cross_attention(rng, rotary=rotary)
    assert_close(*both_ways(weights, *drawn(rng, n, t)))


@pytest.mark.parametrize("seen", [False, True], ids=["nowhere", "everywhere"])
def test_fast_attention_equals_reference_where_all_are_alike(assert_close, seen):
    rng = np.random.default_rng(0)
    query, frames, present = drawn(rng, 5, 16)
    present = jnp.full_like(present, seen)
    fast, reference = both_ways(cross_attention(rng), query, frames, present)
    assert_close(fast, reference)
    assert bool(np.asarray(fast[1][2]).any()) == seen


@pytest.mark.parametrize("t", [1, 16])
def test_features_are_read_as_the_vectors_that_they_make(assert_close, t):
    rng = np.random.default_rng(0)
    weights, lift = cross_attention(rng), drawn_lift(rng, 6)
    query, features, present = drawn(rng, 5, t, channels=6)
    fast, reference = both_ways(weights, query, features, present, lift)
    assert_close(fast, reference)
    vectors, _ = both_ways(weights, query, lift(features), present)
    assert_close(fast[0], vectors[0])


@pytest.mark.parametrize("lifted", [False, True], ids=["vectors", "features"])
def test_fast_attention_is_exact_where_numbers_nearly_cancel(assert_close, lifted):
    """Frames that differ by a millionth, with a large mean, read by a query of large scores."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weights = cross_attention(rng, dtype=np.float64)
        channels = 6 if lifted else WIDTH
        lift = drawn_lift(rng, channels, np.float64) if lifted else None
        query, frames, present = drawn(rng, 5, 16, channels=channels)
        query = 100 * query.astype(np.float64)
        frames = frames.astype(np.float64)
        frames = 1e3 + frames[:1, :1] + 1e-6 * frames
        fast, reference = both_ways(weights, query, frames, present, lift)
        assert fast[0].dtype == reference[0].dtype == np.float64
        assert_close(fast, reference)


def jitted(function):
    return jax.jit(function, static_argnames="impl")


@pytest.mark.parametrize(
    ("run", "impl"),
    [(jitted, "fast"), (jitted, "reference"), (lambda f: f, "fast")],
    ids=["fast", "reference", "fast, eager"],
)
@pytest.mark.parametrize("lifted", [False, True], ids=["vectors", "features"])
def test_bfloat16_attention_is_near_float32_in_value_and_gradient(run, impl, lifted):
    rng = np.random.default_rng(0)
    channels = 6 if lifted else WIDTH
    weights, lift = cross_attention(rng), drawn_lift(rng, channels) if lifted else None
    query, frames, present = drawn(rng, 5, 16, channels=channels)

    def loss(weights, frames, *, impl):
        out = attend_frames(
            weights, query.astype(frames.dtype), frames, present, lift=lift, impl=impl
        )
        return jnp.square(out.astype(jnp.float32)).mean()

    value_and_gradients = jax.value_and_grad(loss, argnums=(0, 1))
    exact, slope = jitted(value_and_gradients)(weights, frames, impl="reference")
    narrow = frames.astype(jnp.bfloat16)
    value, gradient = run(value_and_gradients)(weights, narrow, impl=impl)
    np.testing.assert_allclose(value, exact, rtol=0.02)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient, slope)), strict=True):
        ours = np.asarray(ours, np.float32)
        np.testing.assert_allclose(ours, theirs, atol=0.04 * np.abs(theirs).max())


@pytest.mark.parametrize("mean", [0, 10, 100])
def test_a_mean_over_channels_costs_bfloat16_no_digits(mean):
    rng = np.random.default_rng(0)
    weights, (query, frames, present) = cross_attention(rng), drawn(rng, 40, 16)
    query, frames = query.astype(jnp.bfloat16), (frames + mean).astype(jnp.bfloat16)
    attend = jitted(attend_frames)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (weights, query))
        vectors = jnp.asarray(np.asarray(frames, np.float64))
        exact = np.asarray(attend(*wide, vectors, present, impl="reference"))
    fast, reference = (
        np.abs(np.asarray(attend(weights, query, frames, present, impl=impl), np.float64) - exact)
        for impl in ("fast", "reference")
    )
    assert fast.max() <= 2 * reference.max()
    assert fast.max() <= 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("impl", ["fast", "reference"])
@pytest.mark.parametrize("lifted", [False, True], ids=["vectors", "features"])
def test_no_product_is_left_to_what_hardware_takes_for_float32(impl, lifted):
    rng = np.random.default_rng(0)
    channels = 6 if lifted else WIDTH
    weights, lift = cross_attention(rng), drawn_lift(rng, channels) if lifted else None
    inputs = drawn(rng, 5, 4, channels=channels)

    def loss(weights):
        return attend_frames(weights, *inputs, lift=lift, impl=impl).sum()

    lines = jax.jit(jax.value_and_grad(loss)).lower(weights).as_text().splitlines()
    products = [line for line in lines if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)


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


def plain_resampler(module, frames, present):
    """One trajectory, in float64; only the frames where it is present are looked at.

    Also what the last layer's queries read of each frame, the mean over heads.
    """
    queries, d = np.asarray(module.query[...], np.float64), frames.shape[-1]
    frames = frames.astype(np.float64)
    if module.positions is not None:
        frames = frames + np.asarray(module.positions[...])[: len(frames)]
    for layer in module.layers:
        normed = layer_norm(queries, layer.norm_query)
        inputs = np.concatenate([normed, layer_norm(frames, layer.norm_frames)[present]])
        positions = [*range(len(queries)), *(np.flatnonzero(present) + len(queries))]
        if not layer.rotary:
            positions = [0] * len(positions)
        key_kernel, value_kernel = np.split(np.asarray(layer.to_key_value.kernel[...]), 2, axis=1)
        keys = (inputs @ key_kernel).reshape(-1, HEADS, d // HEADS)
        keys = np.stack([turn(k, p) for k, p in zip(keys, positions, strict=True)])
        values = (inputs @ value_kernel).reshape(-1, HEADS, d // HEADS)
        out, shares = [], np.zeros((len(queries), len(frames)))
        for number, (query, position) in enumerate(zip(normed, positions, strict=False)):
            q = turn((query @ np.asarray(layer.to_query.kernel[...])).reshape(HEADS, -1), position)
            scores = np.exp((keys * q).sum(-1) / np.sqrt(d // HEADS))
            alpha = scores / scores.sum(0)
            out.append(np.einsum("kh,khe->he", alpha, values).reshape(d))
            shares[number, present] = alpha[len(queries) :].mean(1)
        queries = queries + np.array(out) @ np.asarray(layer.to_out.kernel[...])
    return layer_norm(queries, module.norm), shares


def make_resampler(**changes):
    """A resampler with random numbers in every parameter."""
    settings = ResamplerSettings(**changes)
    shapes = nnx.eval_shape(lambda: Resampler(WIDTH, HEADS, settings, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(shapes)
    rng = np.random.default_rng(0)
    return nnx.merge(
        graph,
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 4, jnp.float32), state),
    )


@nnx.jit(static_argnames="impl")
def resampled_and_gradients(module, frames, present, probe, *, impl):
    def probed(module, frames):
        out = module(frames, present, impl=impl)
        return (out * probe).sum(), out

    return nnx.value_and_grad(probed, argnums=(0, 1), has_aux=True)(module, frames)


def slots_of_frames(t):
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(2, 3, t, WIDTH)).astype(np.float32)
    present = rng.random((2, 3, t)) < 0.5
    present[0, 0], present[1, 2] = True, False
    return frames, present


RESAMPLERS = {
    "one layer": {},
    "two layers, learned positions": {"depth": 2, "frame_positions": "learned"},
    "four queries": {"queries": 4},
    "two of both": {"depth": 2, "queries": 2},
}


@pytest.mark.parametrize("changes", RESAMPLERS.values(), ids=RESAMPLERS.keys())
def test_resamplers_equal_the_plain_formula_both_ways(assert_close, changes):
    module = make_resampler(**changes)
    frames, present = slots_of_frames(5)
    queries = module.query.shape[0]
    probe = np.random.default_rng(1).normal(size=(2, 3, queries, WIDTH)).astype(np.float32)
    (_, out), gradients = resampled_and_gradients(module, frames, present, probe, impl="fast")
    (_, reference), expected = resampled_and_gradients(
        module, frames, present, probe, impl="reference"
    )
    assert_close((out, gradients), (reference, expected))
    for index in np.ndindex(2, 3):
        plain, _ = plain_resampler(module, frames[index], present[index])
        np.testing.assert_allclose(out[index], plain, atol=1e-5)


@pytest.mark.parametrize("changes", RESAMPLERS.values(), ids=RESAMPLERS.keys())
def test_attention_is_what_the_plain_formula_reads_of_each_frame(changes):
    module = make_resampler(**changes)
    frames, present = slots_of_frames(5)
    shares = np.asarray(nnx.jit(Resampler.attention)(module, frames, present))
    assert shares.shape == (2, 3, module.query.shape[0], 5)
    for index in np.ndindex(2, 3):
        _, plain = plain_resampler(module, frames[index], present[index])
        np.testing.assert_allclose(shares[index], plain, atol=1e-5)
    assert not shares[~np.broadcast_to(present[:, :, None], shares.shape)].any()
    assert (shares.sum(-1) < 1).all() and shares[0, 0].min() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"depth": 2, "frame_positions": "learned"}])
def test_attention_to_features_is_that_to_the_vectors_that_they_make(changes):
    module, lift = make_resampler(**changes), drawn_lift(np.random.default_rng(2), 6)
    frames, present = slots_of_frames(5)
    features = jnp.asarray(frames[..., :6])
    attend = nnx.jit(Resampler.attention)
    shares = attend(module, features, present, lift=lift)
    np.testing.assert_allclose(shares, attend(module, lift(features), present), atol=1e-6)


@nnx.jit
def resample(module, frames, present):
    return module(frames, present)


@pytest.mark.parametrize("changes", [{}, {"latent_block": True, "queries": 2}])
def test_slots_and_unseen_frames_do_not_meet(changes):
    module = make_resampler(**changes)
    frames, present = slots_of_frames(4)
    before = resample(module, frames, present)
    garbage = np.where(present[..., None], frames, 1e3).astype(np.float32)
    np.testing.assert_array_equal(resample(module, garbage, present), before)
    order = np.array([2, 0, 1])
    after = resample(module, frames[:, order], present[:, order])
    np.testing.assert_allclose(after, before[:, order], atol=1e-6)
    other = np.concatenate([frames[:, :1], 3 + frames[:, 1:]], axis=1)
    np.testing.assert_array_equal(resample(module, other, present)[:, 0], before[:, 0])


def test_a_learned_table_serves_short_clips_and_is_stretched_for_long_ones():
    module = make_resampler(frame_positions="learned")
    table = module.positions[...]
    assert table.shape == (16, WIDTH)
    zeros, seen = np.zeros((1, 1, 32, WIDTH), np.float32), np.ones((1, 1, 32), bool)
    short = resample(module, zeros[:, :, :4], seen[:, :, :4])
    module.positions[...] = table.at[4:].set(1e3)
    np.testing.assert_array_equal(resample(module, zeros[:, :, :4], seen[:, :, :4]), short)
    # A table of equal rows stays what it is, however long the clip.
    module.positions[...] = jnp.tile(table[:1], (16, 1))
    long, frame = resample(module, zeros, seen), zeros + np.asarray(table[0])
    module.positions[...] = jnp.zeros_like(table)
    np.testing.assert_allclose(resample(module, frame, seen), long, atol=1e-5)


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_does_not_fit_is_refused():
    def build(width, heads, **changes):
        Resampler(width, heads, ResamplerSettings(**changes), rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match="width 18 does not divide into 4 heads whose halves"):
        build(18, 4)
    with pytest.raises(ValueError, match=r"width 15 does not divide into 2 heads$"):
        build(15, 2, frame_positions="learned")
    with pytest.raises(ValueError, match=r"ResamplerSettings\.depth must be .* got 0"):
        build(16, 2, depth=0)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="got 'plain'"):
        attend_frames(cross_attention(rng), *drawn(rng, 2, 2), impl="plain")
