"""The contrastive loss against its plain formula under autograd."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.losses import blockwise_contrastive_loss

pytestmark = pytest.mark.torch

IDS = {"each caption once": range(6), "shared captions": [0, 1, 0, 2, 1, 0]}


def plain_loss(torch, video, text, temperature, ids):
    """Cross-entropy with soft targets in both directions; equal ids share the mass."""
    logits = video @ text.T / temperature
    targets = (ids[:, None] == ids[None]).float()
    targets = targets / targets.sum(1, keepdim=True)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_contrastive_loss(torch, close, ids):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 6, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    inputs = (*vectors, np.float32(0.07))
    ids = np.array(ids)

    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = plain_loss(torch, *leaves, torch.tensor(ids))
    expected.backward()

    graded = jax.value_and_grad(blockwise_contrastive_loss, argnums=(0, 1, 2), has_aux=True)
    (actual, _), gradients = graded(*map(jnp.asarray, inputs), jnp.asarray(ids)[:, None])
    close(actual, expected)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        close(gradient, leaf.grad)
