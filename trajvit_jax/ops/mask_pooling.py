"""Mean feature under each trajectory's mask, frame by frame: eq. (1) of the paper.

Each stage of the backbone is projected to one width, layer-normalized over channels (one
LayerNorm for all), upsampled to the grid of the masks and summed; the mean of that map under a
mask is the segment's vector. `pool_stages` computes it two ways that are equal:

'reference' builds the map, as the formula reads.

'fast' never builds it. Upsampling and pooling are linear, and so is LayerNorm after a projection,
but for one number a cell, its factor (see `layer_norm`). So each cell's narrow features times that
factor are summed over a segment, and projected afterwards, once a segment. A stage of few cells is
cheaper the other way round, and is projected cell by cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from trajvit_jax.ops.impl import EXACT, Impl, check_impl
from trajvit_jax.ops.interpolation import resize_bilinear
from trajvit_jax.ops.layer_norm import at_least_float32, centre, layer_norm, mapped_factor
from trajvit_jax.ops.segments import Segments


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Projection:
    """Every stage's linear map to width d, and the LayerNorm that they share.

    Attributes:
      kernels: one [c, d] a stage.
      biases: one [d] a stage.
      scale: [d], the LayerNorm's.
      bias: [d], the LayerNorm's.
      eps: the LayerNorm's, added to the variance.
    """

    kernels: tuple[Float[Array, "c d"], ...]
    biases: tuple[Float[Array, " d"], ...]
    scale: Float[Array, " d"]
    bias: Float[Array, " d"]
    eps: float = struct.field(pytree_node=False, default=1e-5)


def project_stage(
    features: Float[Array, "*b c"], projection: Projection, stage: int
) -> Float[Array, "*b d"]:
    """One stage's features, projected and layer-normalized, at least float32."""
    kernel, bias = projection.kernels[stage], projection.biases[stage]
    x = jnp.matmul(at_least_float32(features), kernel, precision=EXACT) + bias
    return layer_norm(x, projection.scale, projection.bias, projection.eps)


def feature_map(
    stages: Sequence[Float[Array, "b t _ _ _"]], projection: Projection, grid: tuple[int, int]
) -> Float[Array, "b t h w d"]:
    """The sum of all stages, projected, normalized and upsampled to `grid`."""
    parts = [
        resize_bilinear(project_stage(stage, projection, index), *grid)
        for index, stage in enumerate(stages)
    ]
    return sum(parts[1:], parts[0])


def pool_stages(
    stages: Sequence[Float[Array, "b t _ _ _"]],
    projection: Projection,
    segments: Segments,
    *,
    eps: float = 1e-6,
    impl: Impl = "fast",
) -> Float[Array, "r s t d"]:
    """Mean feature of each segment, at least float32; exactly zero where a trajectory is absent.

    Args:
      stages: the backbone's features, channels last, any grid each.
      projection: what brings them to one width.
      segments: the trajectories' masks.
      eps: added to the area, in cells.
      impl: 'fast' or 'reference': equal up to rounding, which `mapped_factor` says is more where
        projections nearly cancel.

    Raises:
      ValueError: an unknown `impl`.
    """
    check_impl(impl)
    if impl == "fast":
        total = _fast_sums(stages, projection, segments)
    else:
        total = segments.sums(feature_map(stages, projection, segments.grid))
    return total / (segments.areas()[..., None] + eps)


def _fast_sums(
    stages: Sequence[jax.Array], projection: Projection, segments: Segments
) -> jax.Array:
    """Sum over each segment of the feature map, without the map."""
    normalized, sums, maps = jnp.zeros((), jnp.float32), [], []
    for stage, kernel, bias in zip(stages, projection.kernels, projection.biases, strict=True):
        features, linear = at_least_float32(stage), centre(kernel, bias)
        cells, span = stage.shape[2] * stage.shape[3], segments.span
        own = segments.rows * segments.slots / segments.labels.shape[0]
        if cells_are_few(cells, *kernel.shape, span=span, own=own):
            normalized += _project_then_sum(features, *linear, projection.eps, segments)
        else:
            sums.append(_scaled_sums(features, *linear, projection.eps, segments))
            maps.append(jnp.concatenate([linear[0], linear[1][None]]))
    if sums:
        # One product for all: what each stage would add is never made.
        all_sums, all_maps = jnp.concatenate(sums, -1), jnp.concatenate(maps)
        normalized += jnp.matmul(all_sums, all_maps, precision=EXACT)
    area = segments.areas()[..., None]
    return normalized * projection.scale + len(stages) * projection.bias * area


def cells_are_few(
    cells: int, channels: int, width: int, *, span: int, own: float | None = None
) -> bool:
    """Whether projecting a stage first takes fewer multiplications, for a frame of one video.

    Args:
      cells: of the stage.
      channels: of its features.
      width: that they are projected to.
      span: slots that a video could have; in packed rows its sums are taken over all of them.
      own: slots that it has, its share of the row, which are projected; None = `span`.
    """
    own = span if own is None else own
    project_first = cells * (channels + span) * width
    return project_first < span * cells * channels + own * channels * width


def _project_then_sum(
    features: jax.Array, kernel: jax.Array, bias: jax.Array, eps: float, segments: Segments
) -> jax.Array:
    x = jnp.matmul(features.reshape(-1, features.shape[-1]), kernel, precision=EXACT) + bias
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps)
    return segments.upsampled_sums(x.reshape(*features.shape[:-1], -1))


def _scaled_sums(
    features: jax.Array, kernel: jax.Array, bias: jax.Array, eps: float, segments: Segments
) -> jax.Array:
    """Sums [r, s, t, c + 1] of the features times their factor, and of the factor."""
    cells = features.reshape(-1, features.shape[-1])
    scale = mapped_factor(cells, kernel, bias, eps)[:, None]
    scaled = jnp.concatenate([cells * scale, scale], -1).reshape(*features.shape[:-1], -1)
    return segments.upsampled_sums(scaled)


def pool_corners(
    features: Float[Array, "b t h w d"], segments: Segments, size: int
) -> Float[Array, "r s t points d"]:
    """Masked features at `size` x `size` points spread over each segment's box, corners included.

    The alternative to the mean that the released program offers (`roi_size`). Points between
    cells are bilinear; cells outside the mask count as zero. Rows hold one video each.

    Raises:
      ValueError: packed segments.
    """
    if segments.row is not None:
        raise ValueError("corner pooling reads one video a row; pool packed rows by mean")
    height, width = segments.grid
    scale = jnp.asarray([width, height, width, height], jnp.float32)
    low_x, low_y, high_x, high_y = jnp.moveaxis(segments.boxes() * scale, -1, 0)
    fraction = jnp.linspace(0.0, 1.0, size)
    x = low_x[..., None] + fraction * jnp.maximum(high_x - 1 - low_x, 0)[..., None]
    y = low_y[..., None] + fraction * jnp.maximum(high_y - 1 - low_y, 0)[..., None]
    slot = jnp.arange(segments.slots)[None, :, None, None, None]
    video = jnp.arange(segments.rows)[:, None, None, None, None]
    frame = jnp.arange(segments.frames)[None, None, :, None, None]
    total = jnp.zeros((), jnp.float32)
    for row, row_weight in _neighbours(y, height):
        for column, column_weight in _neighbours(x, width):
            where = (video, frame, row[..., :, None], column[..., None, :])
            weight = row_weight[..., :, None] * column_weight[..., None, :]
            weight = jnp.where((segments.labels[where] == slot) & (slot > 0), weight, 0.0)
            total += at_least_float32(features[where]) * weight[..., None]
    return total.reshape(*total.shape[:3], size * size, -1)


def _neighbours(position: jax.Array, size: int) -> list[tuple[jax.Array, jax.Array]]:
    low = jnp.floor(position)
    weight = position - low
    first = low.astype(jnp.int32)
    return [(first, 1 - weight), (jnp.minimum(first + 1, size - 1), weight)]
