"""ResNet (He et al.): four stages of features, each half the size of the last."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from trajvit_jax.models.batch_norm import BatchNorm
from trajvit_jax.models.linear import Conv
from trajvit_jax.models.settings import ResNetSettings


class _ConvNorm(nnx.Module):
    """Convolution without bias, then batch normalization."""

    def __init__(
        self, cin: int, cout: int, size: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.conv = Conv(
            cin,
            cout,
            (size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            kernel_init=nnx.initializers.he_normal(),
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(cout, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool, valid: jax.Array | None) -> jax.Array:
        return self.norm(self.conv(x), train=train, valid=valid)


class _Block(nnx.Module):
    """Two or three convolutions around which the input is added."""

    def __init__(
        self, cin: int, cout: int, stride: int, *, kind: str, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        narrow = cout // 4
        shapes = {
            "basic": [(cin, cout, 3, stride), (cout, cout, 3, 1)],
            "bottleneck": [
                (cin, narrow, 1, 1),
                (narrow, narrow, 3, stride),
                (narrow, cout, 1, 1),
            ],
        }[kind]
        self.convs = nnx.List([_ConvNorm(*shape, dtype=dtype, rngs=rngs) for shape in shapes])
        changes = stride != 1 or cin != cout
        self.shortcut = _ConvNorm(cin, cout, 1, stride, dtype=dtype, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array, *, train: bool, valid: jax.Array | None) -> jax.Array:
        mode = {"train": train, "valid": valid}
        residual = x if self.shortcut is None else self.shortcut(x, **mode)
        for conv in self.convs[:-1]:
            x = jax.nn.relu(conv(x, **mode))
        return jax.nn.relu(self.convs[-1](x, **mode) + residual)


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

    def __init__(self, settings: ResNetSettings, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        shared = {"dtype": dtype, "rngs": rngs}
        self.remat = settings.remat
        self.stem = _ConvNorm(3, settings.stem, 7, 2, **shared)
        stages, cin = [], settings.stem
        for index, (width, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if index and not block else 1
                blocks.append(_Block(cin, width, stride, kind=settings.block, **shared))
                cin = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(
        self,
        images: Float[Array, "n h w 3"],
        *,
        train: bool,
        valid: Bool[Array, " n"] | None = None,
    ) -> list[Float[Array, "n _ _ _"]]:
        """Features of each stage.

        Args:
          images: normalized pixels.
          train: normalize by the statistics of this batch.
          valid: images that count in those statistics; None = all.
        """
        x = self.embed(images, train=train, valid=valid)
        features = []

        def run(stage: nnx.List, x: jax.Array) -> jax.Array:
            for block in stage:
                x = block(x, train=train, valid=valid)
            return x

        if self.remat:
            run = nnx.remat(run)
        for stage in self.stages:
            x = run(stage, x)
            features.append(x)
        return features

    def embed(
        self,
        images: Float[Array, "n h w 3"],
        *,
        train: bool,
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n _ _ c"]:
        """What the first stage reads: a quarter of the size."""
        return max_pool(jax.nn.relu(self.stem(images, train=train, valid=valid)))
