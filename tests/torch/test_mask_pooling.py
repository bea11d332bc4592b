"""Mask pooling by segments against dense one-hot masks in torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.ops.mask_pooling import Projection, pool_stages
from trajvit_jax.ops.segments import Segments

pytestmark = pytest.mark.torch

SLOTS, WIDTH, EPS = 5, 6, 1e-6
GRIDS = {(8, 6): 4, (4, 3): 5, (1, 2): 3}  # of each stage, with its channels


def dense_pooling(torch, stages, kernels, biases, scale, bias, masks):
    """Eq. (1) of the paper with the feature map and every mask written out."""
    features = 0
    for stage, kernel, shift in zip(stages, kernels, biases, strict=True):
        x = torch.nn.functional.layer_norm(stage @ kernel + shift, (WIDTH,), scale, bias)
        b, t, h, w, d = x.shape
        x = torch.nn.functional.interpolate(
            x.reshape(b * t, h, w, d).permute(0, 3, 1, 2), size=masks.shape[2:4], mode="bilinear"
        )
        features = features + x.permute(0, 2, 3, 1).reshape(b, t, *masks.shape[2:4], d)
    sums = torch.einsum("bthws,bthwd->bstd", masks, features)
    return sums / (masks.sum((2, 3)).transpose(1, 2)[..., None] + EPS)


@pytest.mark.parametrize("impl", ["fast", "reference"])
def test_pool_stages(torch, close, impl):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    labels = rng.choice([0, 1, 2, 4], (2, 3, 8, 6))  # nobody owns slot 3
    labels[0, 1] = 2  # one slot owns a whole frame
    stages = [normal(2, 3, *grid, c) for grid, c in GRIDS.items()]
    kernels = [normal(c, WIDTH) for c in GRIDS.values()]
    biases = [normal(WIDTH) for _ in GRIDS]
    arrays = (stages, kernels, biases, normal(WIDTH), normal(WIDTH))
    probe = normal(2, SLOTS, 3, WIDTH)

    leaves = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), arrays)
    masks = torch.nn.functional.one_hot(torch.tensor(labels), SLOTS).float()
    masks[..., 0] = 0  # label 0 is no trajectory
    expected = dense_pooling(torch, *leaves, masks)
    expected.backward(torch.tensor(probe))

    def pool(stages, kernels, biases, scale, bias):
        projection = Projection(tuple(kernels), tuple(biases), scale, bias)
        segments = Segments.of(jnp.asarray(labels), SLOTS)
        return pool_stages(stages, projection, segments, eps=EPS, impl=impl)

    actual, pull_back = jax.vjp(jax.jit(pool), *jax.tree.map(jnp.asarray, arrays))
    close(actual, expected)
    for gradient, leaf in zip(
        jax.tree.leaves(pull_back(jnp.asarray(probe))), jax.tree.leaves(leaves), strict=True
    ):
        close(gradient, leaf.grad)
