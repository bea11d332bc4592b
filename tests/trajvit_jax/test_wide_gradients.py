"""Gradients of float32 parameters that bfloat16 activations meet: summed in float32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

from trajvit_jax.models.settings import NAMES, ResamplerSettings, TrajViTSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.wide_gradients import add, convolve, product

OPERATIONS = {
    "product": (
        lambda x, w: product("abc,cd->abd", x, w),
        lambda x, w: jnp.einsum("abc,cd->abd", x, w),
        ((5, 4, 6), (6, 3)),
    ),
    "heads": (
        lambda x, w: product("hnc,hcd->hnd", x, w),
        lambda x, w: jnp.einsum("hnc,hcd->hnd", x, w),
        ((2, 5, 4), (2, 4, 3)),
    ),
    "add": (add, lambda x, b: x + b, ((5, 4, 3), (3,))),
    "add repeated": (add, lambda x, b: x + b, ((5, 4, 3), (1, 4, 1))),
    "convolve": (
        lambda x, w: convolve(x, w, (2, 2), ((1, 1), (1, 1))),
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        ((3, 6, 6, 2), (3, 3, 2, 4)),
    ),
}


def probed(function, x, parameter):
    def number(x, parameter):
        out = function(x, parameter)
        return (out.astype(jnp.float32) * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum()

    return jax.jit(jax.value_and_grad(number, argnums=(0, 1)))(x, parameter)


@pytest.mark.parametrize("name", OPERATIONS)
def test_in_float32_they_are_the_plain_operations(name, assert_close):
    function, plain, shapes = OPERATIONS[name]
    rng = np.random.default_rng(0)
    inputs = [jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
    assert_close(probed(function, *inputs), probed(plain, *inputs))


@pytest.mark.parametrize("name", OPERATIONS)
def test_in_float32_they_have_forward_derivatives_too(name, assert_close):
    function, plain, shapes = OPERATIONS[name]
    rng = np.random.default_rng(0)
    at, along = (
        tuple(jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in shapes)
        for _ in range(2)
    )
    assert_close(jax.jvp(function, at, along), jax.jvp(plain, at, along))


@pytest.mark.parametrize("name", OPERATIONS)
def test_in_bfloat16_a_parameter_s_gradient_is_float32(name):
    """As near to the exact sum of its bfloat16 addends as float32 is; but for a convolution's."""
    function, plain, shapes = OPERATIONS[name]
    rng = np.random.default_rng(0)
    x, parameter = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in shapes)
    x = x.astype(jnp.bfloat16)
    _, (to_x, found) = probed(function, x, parameter)
    assert (to_x.dtype, found.dtype) == (jnp.bfloat16, jnp.float32)

    def exact(x, parameter):  # with the gradient that reaches the operation, in bfloat16
        out = plain(x.astype(jnp.float32), parameter)
        probe = jnp.cos(jnp.arange(out.size).reshape(out.shape)).astype(jnp.bfloat16)
        return (out * probe.astype(jnp.float32)).sum()

    narrow = parameter.astype(jnp.bfloat16).astype(jnp.float32)
    expected = jax.jit(jax.grad(exact, argnums=1))(x, narrow)
    bound = 2**-8 if name == "convolve" else 1e-5
    np.testing.assert_allclose(found, expected, rtol=bound, atol=bound * np.abs(expected).max())


def test_a_common_word_s_gradient_is_no_sum_in_bfloat16(tiny, random_model):
    """A thousand equal addends: in bfloat16 the sum stops growing at 256 of them."""
    graph, state = nnx.split(random_model(tiny(dtype="bfloat16")).text)

    def number(state, ids):
        states = nnx.merge(graph, state).embed(ids).astype(jnp.float32)
        return (states * jnp.cos(jnp.arange(states.shape[-1]))).sum()

    run = jax.jit(jax.grad(number))
    many, one = (
        run(state, jnp.full((count, 1), 3, jnp.int32))["word"]["embedding"][3]
        for count in (1000, 1)
    )
    np.testing.assert_allclose(many, 1000 * one, rtol=1e-3)


def jaxprs(of: Jaxpr) -> Iterator[Jaxpr]:
    yield of
    for equation in of.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(value, ClosedJaxpr):
                yield from jaxprs(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from jaxprs(value)


def widened(model_settings) -> set[tuple[int, ...]]:
    """Shapes of what is made float32 of bfloat16 in the gradient of the model's embeddings."""
    model = nnx.eval_shape(lambda: VideoTextModel(model_settings, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    side, frames = model_settings.image_size, model_settings.frames

    def loss(params, rest, video, labels, ids):
        model = nnx.merge(graph, params, rest, copy=True)
        video = model.embed_video(video, labels, train=True)
        return (video * model.embed_text(ids, ids > 0)).sum()

    shapes = [
        jax.ShapeDtypeStruct((5, frames, side, side, 3), jnp.uint8),
        jax.ShapeDtypeStruct((5, frames, side // 4, side // 4), jnp.int32),
        jax.ShapeDtypeStruct((5, model_settings.text.length), jnp.int32),
    ]
    traced = jax.make_jaxpr(jax.grad(loss))(params, rest, *shapes)
    return {
        equation.outvars[0].aval.shape
        for jaxpr in jaxprs(traced.jaxpr)
        for equation in jaxpr.eqns
        if equation.primitive.name == "convert_element_type"
        and equation.invars[0].aval.dtype == jnp.bfloat16
        and equation.outvars[0].aval.dtype == jnp.float32
    }


VARIANTS = {
    "several queries, widened": (
        "trajvit",
        {
            "trajvit": TrajViTSettings(
                max_trajectories=6,
                feature_width=24,
                resampler=ResamplerSettings(depth=2, queries=2, latent_block=True),
            )
        },
    ),
    "learned positions": (
        "trajvit",
        {
            "trajvit": TrajViTSettings(
                max_trajectories=6, resampler=ResamplerSettings(frame_positions="learned")
            )
        },
    ),
}


@pytest.mark.parametrize("name", [*NAMES, *VARIANTS])
def test_no_gradient_of_a_parameter_is_narrow_in_any_model(name, tiny):
    """Convolutions apart, whose gradients are widened on each device: see below."""
    name, changes = VARIANTS.get(name, (name, {}))
    if name == "vit":
        changes = {"frames": 1, "vit3d": tiny().vit3d.__class__(tubelet=1)}
    settings = tiny(name, dtype="bfloat16", **changes)
    model = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
    shapes = {leaf.shape for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))}
    shapes |= {shape[1:] for shape in shapes}  # of one layer of a stack
    found = {shape for shape in widened(settings) & shapes if len(shape) != 4}
    assert not found - {()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
def test_devices_add_up_gradients_in_float32(name):
    """In the partitioned program, before a compiler for the CPU widens what it exchanges."""
    script = Path(__file__).with_name("partitioned.py")
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, str(script), name],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    backward = [one for one in found if "transpose(jvp" in one["name"]]
    assert len(backward) > 10  # the search finds them
    assert not [one for one in backward if "bf16" in one["result"]]
