"""Batch normalization with the running statistics that PyTorch keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


class BatchNorm(nnx.Module):
    """Normalizes channels by the batch's statistics (Ioffe and Szegedy), or by running ones.

    Unlike `flax.nnx.BatchNorm`, the running variance is the unbiased one, as in PyTorch, and
    what is padding stays out of both statistics.

    Attributes:
      momentum: share of the running statistics that one step replaces (PyTorch's meaning).
    """

    def __init__(
        self, channels: int, *, momentum: float = 0.1, epsilon: float = 1e-5, rngs: nnx.Rngs
    ):
        del rngs  # nothing here is random; layers are all made alike
        self.momentum, self.epsilon = momentum, epsilon
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))

    def __call__(
        self,
        x: Float[Array, "n h w c"],
        *,
        train: bool,
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n h w c"]:
        """Normalized `x`, in its dtype; statistics are float32.

        Args:
          x: features.
          train: normalize by this batch, and move the running statistics.
          valid: images that count in the statistics; None = all. Where none does, the running
            ones normalize, and stay.

        Raises:
          ValueError: `valid` of another number of images, whose sums would be of some pixels and
            their count of others.
        """
        if valid is not None and valid.shape != x.shape[:1]:
            raise ValueError(f"valid {list(valid.shape)} is not of the {x.shape[0]} images")
        mean, var = self.mean[...], self.var[...]
        if train:
            batch_mean, batch_var, count = _statistics(x, valid)
            unbiased = batch_var * count / jnp.maximum(count - 1, 1)
            keep = jnp.where(count > 0, 1 - self.momentum, 1.0)
            self.mean[...] = keep * mean + (1 - keep) * batch_mean
            self.var[...] = keep * var + (1 - keep) * unbiased
            mean, var = jnp.where(count > 0, batch_mean, mean), jnp.where(count > 0, batch_var, var)
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        # In float32: scale and shift cancel where a channel's mean is large.
        return (x * scale + (self.bias[...] - mean * scale)).astype(x.dtype)


def _statistics(
    x: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array | int]:
    """Mean, biased variance and how many values of a channel they were taken from."""
    _, h, w, _ = x.shape
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if valid is None:
        return x.mean((0, 1, 2)), x.var((0, 1, 2)), x.shape[0] * h * w
    counts = valid[:, None, None, None]
    count = valid.sum() * h * w
    over = jnp.maximum(count, 1)
    mean = jnp.where(counts, x, 0).sum((0, 1, 2)) / over
    return mean, jnp.where(counts, jnp.square(x - mean), 0).sum((0, 1, 2)) / over, count
