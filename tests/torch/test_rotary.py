"""Rotary positions against a multiplication by exp(i angle) in torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.ops.rotary import rotate

pytestmark = pytest.mark.torch

FRAMES, HEADS, WIDTH = 5, 2, 12


def complex_rotation(torch, x, positions, dims):
    """Neighbouring numbers as one complex number, turned by position * 10000^(-2 pair / dims)."""
    pairs = torch.view_as_complex(x[..., :dims].reshape(*x.shape[:-1], dims // 2, 2))
    frequency = 10_000.0 ** (-torch.arange(0, dims, 2) / dims)
    angle = positions[:, None, None] * frequency
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
    return torch.cat([turned, x[..., dims:]], -1)


@pytest.mark.parametrize("dims", [WIDTH, 8, 2])
def test_rotate(torch, close, dims):
    rng = np.random.default_rng(0)
    x, probe = rng.normal(size=(2, 3, FRAMES, HEADS, WIDTH)).astype(np.float32)
    positions = np.array([0, 1, 2, 7, 15], np.float32)

    leaf = torch.tensor(x, requires_grad=True)
    expected = complex_rotation(torch, leaf, torch.tensor(positions), dims)
    expected.backward(torch.tensor(probe))

    actual, pull_back = jax.vjp(
        lambda x: rotate(x, jnp.asarray(positions), dims=dims), jnp.asarray(x)
    )
    close(actual, expected)
    close(pull_back(jnp.asarray(probe))[0], leaf.grad)
