"""Layers that compute in their dtype, with gradients that are summed in the parameters'.

Names, shapes and starts of parameters are those of Flax's layers, of whose arguments the ones
are left that are heeded here: others are refused. See `trajvit_jax.ops.wide_gradients`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from trajvit_jax.ops.wide_gradients import add, convolve, product

Start = Callable[..., jax.Array]

_KERNEL, _BIAS = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()
_AXES = "abefgij"  # of a batch; none that names channels below


class _LastAxis:
    """The arguments that both linear layers heed."""

    def __init__(
        self,
        in_features: int,
        out_features: int | tuple[int, int],
        *,
        use_bias: bool = True,
        kernel_init: Start = _KERNEL,
        bias_init: Start = _BIAS,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        starts = {"kernel_init": kernel_init, "bias_init": bias_init}
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, rngs=rngs, **starts
        )


class Linear(_LastAxis, nnx.Linear):
    """`x @ kernel + bias` over the last axis."""

    def __call__(self, inputs: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        x, axes = inputs.astype(self.dtype or inputs.dtype), _AXES[: inputs.ndim - 1]
        y = product(f"{axes}c,cd->{axes}d", x, self.kernel[...])
        return y if self.bias is None else add(y, self.bias[...])


class LinearGroups(_LastAxis, nnx.LinearGeneral):
    """Several linear maps of the same inputs, side by side in one kernel [c, groups, d]."""

    def __call__(self, inputs: Float[Array, "*b c"]) -> Float[Array, "*b groups d"]:
        x, axes = inputs.astype(self.dtype or inputs.dtype), _AXES[: inputs.ndim - 1]
        y = product(f"{axes}c,chd->{axes}hd", x, self.kernel[...])
        return y if self.bias is None else add(y, self.bias[...])


class Conv(nnx.Conv):
    """A convolution of images, by one stride and padded by as many pixels on every side."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int],
        *,
        strides: int = 1,
        padding: int,
        use_bias: bool = True,
        kernel_init: Start = _KERNEL,
        bias_init: Start = _BIAS,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        starts = {"kernel_init": kernel_init, "bias_init": bias_init}
        shape = {"kernel_size": kernel_size, "strides": strides, "padding": padding}
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, rngs=rngs, **shape, **starts
        )

    def __call__(self, inputs: Float[Array, "n h w c"]) -> Float[Array, "n _ _ d"]:
        x = inputs.astype(self.dtype or inputs.dtype)
        padding = ((self.padding, self.padding),) * 2
        y = convolve(x, self.kernel[...], (self.strides, self.strides), padding)
        return y if self.bias is None else add(y, self.bias[...])
