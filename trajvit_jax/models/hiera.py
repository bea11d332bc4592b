"""Hiera (Ryali et al. 2023): four stages of features from plain transformer blocks.

The authors keep the tokens of a mask unit together in memory through the network. Here maps keep
their spatial order, and only the blocks that attend within mask units cut and mend them: four of
the sixteen blocks of Hiera-S.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.linear import Conv, Linear
from trajvit_jax.models.settings import HieraSettings
from trajvit_jax.ops.interpolation import resize_bicubic
from trajvit_jax.ops.wide_gradients import add
from trajvit_jax.ops.windows import attend_in_windows

_PATCH, _STRIDE = 7, 4
# The authors' initialization. PyTorch truncates it at +-2, which nothing reaches.
_INIT = nnx.initializers.normal(0.02)
_BIAS_INIT = nnx.initializers.constant(0.02)


def pool(x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """Maxima of 2x2 cells.

    A maximum of slices: on CPU its gradient takes two thirds of a reduction's time.
    """
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


class _Block(nnx.Module):
    """Pre-norm attention and MLP; where the width changes, the grid halves by query pooling."""

    def __init__(
        self,
        cin: int,
        cout: int,
        heads: int,
        window: int | None,
        settings: HieraSettings,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads, self.window = heads, window
        norm = functools.partial(
            LayerNorm,
            epsilon=settings.layer_norm_eps,
            bias_init=_BIAS_INIT,
            dtype=dtype,
            rngs=rngs,
        )
        linear = functools.partial(
            Linear, kernel_init=_INIT, bias_init=_BIAS_INIT, dtype=dtype, rngs=rngs
        )
        mlp = int(cout * settings.mlp_ratio)
        self.norm_attention = norm(cin)
        self.query_key_value = linear(cin, 3 * cout)
        self.attention_out = linear(cout, cout)
        self.shortcut = linear(cin, cout) if cin != cout else None
        self.norm_mlp = norm(cout)
        self.mlp_in = linear(cout, mlp)
        self.mlp_out = linear(mlp, cout)

    def _attend(self, x: jax.Array) -> jax.Array:
        query, key, value = jnp.split(self.query_key_value(x), 3, axis=-1)
        if self.shortcut is not None:
            query = pool(query)
        out = attend_in_windows(query, key, value, heads=self.heads, window=self.window)
        return self.attention_out(out)

    def _mlp(self, x: jax.Array) -> jax.Array:
        return self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))

    def __call__(self, x: jax.Array) -> jax.Array:
        normed = self.norm_attention(x)
        residual = x if self.shortcut is None else pool(self.shortcut(normed))
        x = residual + self._attend(normed)
        return x + self._mlp(self.norm_mlp(x))


def _check(settings: HieraSettings) -> None:
    stages = len(settings.depths)
    for name in ("heads", "unit_attention"):
        values = getattr(settings, name)
        if len(values) != stages:
            raise ValueError(f"hiera: {name}={values} must have {stages} entries, as depths has")
    for width, heads in zip(settings.widths, settings.heads, strict=True):
        if width % heads:
            raise ValueError(
                f"hiera: {heads} heads cannot share {width} channels; set width or heads "
                f"so that every one of heads={settings.heads} divides its stage's channels"
            )


class Hiera(nnx.Module):
    """Feature pyramid at 1/4, 1/8, 1/16 and 1/32 of the input.

    Parameters are float32; the computation is in `dtype`, LayerNorm's statistics and the
    softmax in float32. Without dropout and stochastic depth.

    Raises:
      ValueError: settings of different lengths, or heads that do not divide the channels.
    """

    def __init__(self, settings: HieraSettings, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        _check(settings)
        self.settings = settings
        side = settings.image_size // _STRIDE
        self.patches = Conv(
            3,
            settings.width,
            (_PATCH, _PATCH),
            strides=_STRIDE,
            padding=_PATCH // 2,
            kernel_init=_INIT,
            bias_init=_BIAS_INIT,
            dtype=dtype,
            rngs=rngs,
        )
        self.position = nnx.Param(_INIT(rngs.params(), (side, side, settings.width)))
        stages, cin, unit, previous_in_units = [], settings.width, settings.unit, False
        for width, depth, heads, in_units in zip(
            settings.widths, settings.depths, settings.heads, settings.unit_attention, strict=True
        ):
            blocks = []
            for block in range(depth):
                stays = in_units or (previous_in_units and block == 0)
                window = unit if stays else None
                blocks.append(_Block(cin, width, heads, window, settings, dtype=dtype, rngs=rngs))
                if cin != width:
                    unit //= 2
                cin = width
            stages.append(nnx.List(blocks))
            previous_in_units = in_units
        self.stages = nnx.List(stages)

    def __call__(
        self, images: Float[Array, "n h w 3"], *, train: bool
    ) -> list[Float[Array, "n _ _ _"]]:
        """Features of each stage; `train` changes nothing here, other pyramids need it.

        Sides other than `settings.image_size` interpolate the position table bicubically.

        Raises:
          ValueError: sides that mask units do not tile.
        """
        del train
        _, height, width, _ = images.shape
        tile = _STRIDE * self.settings.unit
        if height % tile or width % tile or not height * width:
            raise ValueError(
                f"hiera: images of {height}x{width} pixels; both sides must be multiples of "
                f"{tile}, so that mask units tile them: resize or pad the images"
            )
        x = self.patches(images)
        position = resize_bicubic(self.position[...], height // _STRIDE, width // _STRIDE)
        x = add(x, position)
        features = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            features.append(x)
        return features
