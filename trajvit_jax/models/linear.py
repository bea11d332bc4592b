"""Flax's layers, computing in their dtype, with gradients that are summed in the parameters'.

Names, shapes and starts of parameters are Flax's. See `trajvit_jax.ops.wide_gradients`.
"""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.ops.wide_gradients import add, convolve, product

_AXES = "abefgij"  # of a batch; none that names channels below


class Linear(nnx.Linear):
    """`x @ kernel + bias` over the last axis."""

    def __call__(self, inputs: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        x, axes = inputs.astype(self.dtype or inputs.dtype), _AXES[: inputs.ndim - 1]
        y = product(f"{axes}c,cd->{axes}d", x, self.kernel[...])
        return y if self.bias is None else add(y, self.bias[...])


class LinearGroups(nnx.LinearGeneral):
    """Several linear maps of the same inputs, side by side in one kernel [c, groups, d]."""

    def __call__(self, inputs: Float[Array, "*b c"]) -> Float[Array, "*b groups d"]:
        x, axes = inputs.astype(self.dtype or inputs.dtype), _AXES[: inputs.ndim - 1]
        y = product(f"{axes}c,chd->{axes}hd", x, self.kernel[...])
        return y if self.bias is None else add(y, self.bias[...])


class Conv(nnx.Conv):
    """A convolution of images, padded by as many pixels on every side."""

    def __call__(self, inputs: Float[Array, "n h w c"]) -> Float[Array, "n _ _ d"]:
        x = inputs.astype(self.dtype or inputs.dtype)
        strides, padding = (
            (value, value) if isinstance(value, int) else tuple(value)
            for value in (self.strides, self.padding)
        )
        y = convolve(x, self.kernel[...], strides, tuple((size, size) for size in padding))
        return y if self.bias is None else add(y, self.bias[...])
