"""Basic-block ResNet (He et al.): four stages of features, each half the size of the last."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.models.settings import ResNetSettings


class _ConvNorm(nnx.Module):
    """Convolution without bias, then batch normalization (torch: momentum 0.1, eps 1e-5)."""

    def __init__(self, cin: int, cout: int, size: int, stride: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            cin,
            cout,
            (size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(cout, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.norm(self.conv(x), use_running_average=not train).astype(x.dtype)


class _Block(nnx.Module):
    def __init__(self, cin: int, cout: int, stride: int, *, rngs: nnx.Rngs):
        self.first = _ConvNorm(cin, cout, 3, stride, rngs=rngs)
        self.second = _ConvNorm(cout, cout, 3, 1, rngs=rngs)
        changes = stride != 1 or cin != cout
        self.shortcut = _ConvNorm(cin, cout, 1, stride, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        residual = x if self.shortcut is None else self.shortcut(x, train=train)
        x = jax.nn.relu(self.first(x, train=train))
        return jax.nn.relu(self.second(x, train=train) + residual)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """3x3 windows, stride 2, padding 1.

    A maximum of shifted slices: on CPU its gradient takes a third of `reduce_window`'s.
    """
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    rows = functools.reduce(jnp.maximum, [x[:, i : i + h : 2] for i in range(3)])
    return functools.reduce(jnp.maximum, [rows[:, :, i : i + w : 2] for i in range(3)])


class ResNet(nnx.Module):
    """Feature pyramid at 1/4, 1/8, 1/16 and 1/32 of the input."""

    def __init__(self, settings: ResNetSettings, *, rngs: nnx.Rngs):
        self.stem = _ConvNorm(3, settings.stem, 7, 2, rngs=rngs)
        stages, cin = [], settings.stem
        for index, (width, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if index and not block else 1
                blocks.append(_Block(cin, width, stride, rngs=rngs))
                cin = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(
        self, images: Float[Array, "n h w 3"], *, train: bool
    ) -> list[Float[Array, "n _ _ _"]]:
        """Features of each stage; `train` normalizes by the statistics of this batch."""
        x = jax.nn.relu(self.stem(images, train=train))
        x = max_pool(x)
        features = []
        for stage in self.stages:
            for block in stage:
                x = block(x, train=train)
            features.append(x)
        return features
