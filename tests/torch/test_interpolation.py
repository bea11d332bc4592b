"""Bilinear and bicubic resizing against `torch.nn.functional.interpolate`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.ops.interpolation import resize_bicubic, resize_bilinear

pytestmark = pytest.mark.torch

SIZES = [
    ((7, 7), (56, 56)),
    ((14, 28), (56, 56)),
    ((5, 9), (5, 9)),
    ((5, 9), (12, 7)),
    ((56, 40), (14, 9)),
    ((1, 3), (4, 4)),
    ((6, 6), (1, 1)),
]


@pytest.mark.parametrize(
    ("mode", "resize"), [("bilinear", resize_bilinear), ("bicubic", resize_bicubic)]
)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resize(torch, close, source, target, mode, resize):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *source, 3)).astype(np.float32)
    probe = rng.normal(size=(2, *target, 3)).astype(np.float32)

    image = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.interpolate(
        image.permute(0, 3, 1, 2), size=target, mode=mode, align_corners=False
    ).permute(0, 2, 3, 1)
    expected.backward(torch.tensor(probe))

    actual, pull_back = jax.vjp(lambda x: resize(x, *target), jnp.asarray(x))
    close(actual, expected)
    close(pull_back(jnp.asarray(probe))[0], image.grad)
