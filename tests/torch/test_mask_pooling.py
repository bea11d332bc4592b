"""Mask pooling by segment sums against dense one-hot masks in torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.ops.mask_pooling import pool_masks

pytestmark = pytest.mark.torch

SLOTS, EPS = 5, 1e-6


def dense_pooling(torch, features, labels):
    """Eq. (1) of the paper with every mask written out."""
    masks = torch.nn.functional.one_hot(labels, SLOTS).to(features.dtype)
    sums = torch.einsum("bthws,bthwd->bstd", masks, features)
    return sums / (masks.sum((2, 3)).transpose(1, 2)[..., None] + EPS)


def test_pool_masks(torch, close):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 8, 6, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 4], features.shape[:-1])  # nobody owns slot 3
    labels[0, 1] = 2  # one slot owns a whole frame
    probe = rng.normal(size=(2, SLOTS, 3, 4)).astype(np.float32)

    leaf = torch.tensor(features, requires_grad=True)
    expected = dense_pooling(torch, leaf, torch.tensor(labels))
    expected.backward(torch.tensor(probe))

    actual, pull_back = jax.vjp(
        lambda x: pool_masks(x, jnp.asarray(labels), SLOTS, eps=EPS), jnp.asarray(features)
    )
    close(actual, expected)
    close(pull_back(jnp.asarray(probe))[0], leaf.grad)
