"""The released TrajViT, run by our layers: for parity with its outputs (RAIVNLab/trajvit).

The released program reads masks of ids a frame, and a graph that says which id each trajectory
has in each frame. Here, as there, features are pooled by id and gathered by the graph, so that
two trajectories may share an id. Its departures from the paper are settings of our model:
`sizes.released_settings` names them all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from trajvit_jax.convert import released
from trajvit_jax.convert.official_patches import encode_vit3d, encode_vivit
from trajvit_jax.convert.pieces import fill, paths, read
from trajvit_jax.convert.sizes import released_settings
from trajvit_jax.models.resnet import ResNet
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens
from trajvit_jax.ops.impl import Impl
from trajvit_jax.ops.segments import Segments

# The other released models, under one name with this one.
__all__ = ["encode_video", "encode_vit3d", "encode_vivit"]

_MOST_IDS = 65_535  # more would be no label map, and dense masks of them no memory


class ReleasedEncoder(nnx.Module):
    """The video side of the model, with the released program's way of reading masks."""

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        self.tokenizer = TrajectoryTokens(settings, rngs=rngs)
        self.encoder = Encoder(settings.encoder, rngs=rngs)


def read_frames(
    backbone: ResNet, video: Float[Array, "b t h w 3"], *, train: bool = False
) -> list[Float[Array, "b t _ _ _"]]:
    """Features of every stage.

    Args:
      backbone: of the appearance branch.
      video: normalized pixels.
      train: batch statistics in its normalization.
    """
    b, t = video.shape[:2]
    stages = backbone(video.reshape(b * t, *video.shape[2:]), train=train)
    return [stage.reshape(b, t, *stage.shape[1:]) for stage in stages]


def tokenize(
    tokenizer: TrajectoryTokens,
    features: list[Float[Array, "b t _ _ _"]],
    mask: Int[Array, "b t y x"],
    graph: Int[Array, "b n t"],
    *,
    ids: int,
) -> tuple[Float[Array, "b n d"], dict[str, jax.Array]]:
    """A token a trajectory, and the named intermediates.

    Args:
      tokenizer: of the model.
      features: every stage of the ResNet, as `read_frames` gives them.
      mask: id of each cell, 0 = none.
      graph: id of each trajectory in each frame, 0 = absent.
      ids: one more than the largest id.
    """
    assert tokenizer.position is not None  # the released program always has one
    segments = Segments.of(mask, ids)
    used = features if tokenizer.settings.hierarchical else features[-1:]
    appearance = tokenizer.appearance
    pooled = appearance.pool(used, appearance.projection(), segments)
    coordinates = tokenizer.position.coordinates(segments)
    where = (jnp.arange(graph.shape[0])[:, None, None], graph, jnp.arange(graph.shape[2]))
    gathered = pooled[where]
    vectors, parts = tokenizer.summarize(gathered, coordinates[where], graph > 0)
    named = {"pooled": pooled, "gathered": gathered, "coordinates": coordinates, **parts}
    return vectors[:, :, 0], named


def encode(
    encoder: Encoder, tokens: Float[Array, "b n d"], seen: Bool[Array, "b 1 1 s"]
) -> Float[Array, "b s d"]:
    """States of CLS and all trajectories; `seen` as `seen_slots` gives it."""
    return encoder.run(with_cls(encoder, tokens), seen)


def with_cls(encoder: Encoder, tokens: Float[Array, "b n d"]) -> Float[Array, "b s d"]:
    """What the first layer reads: CLS, then the tokens."""
    cls = jnp.broadcast_to(encoder.cls[...], (tokens.shape[0], 1, tokens.shape[2]))
    return jnp.concatenate([cls, tokens], axis=1)


def seen_slots(graph: Int[Array, "b n t"], *, mask_padding: bool) -> Bool[Array, "b 1 1 1+n"]:
    """Which slots attention sees: CLS and all trajectories, padding only if it is not masked.

    Args:
      graph: id of each trajectory in each frame, 0 = absent.
      mask_padding: whether rows of the graph without any id are hidden.
    """
    seen = jnp.pad((graph > 0).any(-1), ((0, 0), (1, 0)), constant_values=True)
    return (seen | (not mask_padding))[:, None, None]


def load(state_dict: Mapping[str, np.ndarray], settings: ModelSettings) -> ReleasedEncoder:
    """The encoder with the released arrays in it.

    Raises:
      ValueError: arrays that are missing, or of another shape.
    """
    shapes = _abstract(settings)
    arrays, report = read(released.trajvit(settings), state_dict, paths(shapes))
    report.raise_if_incomplete()
    return fill(shapes, arrays)


@functools.lru_cache(maxsize=32)
def _abstract(settings: ModelSettings) -> ReleasedEncoder:
    return nnx.eval_shape(lambda: ReleasedEncoder(settings, rngs=nnx.Rngs(0)))


def check_inputs(video: Any, mask: Any, graph: Any) -> None:
    """Checks what `encode_video` is given.

    Raises:
      ValueError: shapes that do not belong together, dtypes, negative ids, ids of the graph
        that no mask has, pixels that are not finite.
    """
    shapes = f"video {list(video.shape)}, mask {list(mask.shape)}, graph {list(graph.shape)}"
    if video.ndim != 5 or video.shape[2] != 3 or mask.ndim != 4 or graph.ndim != 3:
        raise ValueError(
            "expected video [b, t, 3, h, w], mask [b, t, h', w'] and graph [b, n, t], got " + shapes
        )
    if video.shape[:2] != mask.shape[:2] or graph.shape[::2] != video.shape[:2]:
        raise ValueError(f"videos or frames differ: {shapes}")
    if 0 in video.shape or 0 in mask.shape:
        raise ValueError(f"nothing to read: {shapes}")
    if not np.issubdtype(video.dtype, np.floating):
        raise ValueError(f"pixels must be normalized floats, got {video.dtype}: {shapes}")
    for name, array in (("mask", mask), ("graph", graph)):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must hold whole numbers, got {array.dtype}: {shapes}")
        low, high = array.min(initial=0), array.max(initial=0)
        if low < 0 or high > _MOST_IDS:
            raise ValueError(f"{name} holds ids {low}..{high}, not within 0..{_MOST_IDS}: {shapes}")
    if graph.size and graph.max() > mask.max():
        raise ValueError(f"graph names id {graph.max()}, the masks end at {mask.max()}: {shapes}")
    if not np.isfinite(video).all():
        raise ValueError(f"pixels are not finite: {shapes}")


def encode_video(
    state_dict: Mapping[str, np.ndarray],
    video: Float32[np.ndarray, "b t 3 h w"],
    mask: Int[np.ndarray, "b t y x"],
    graph: Int[np.ndarray, "b n t"],
    *,
    heads: int,
    rotary: bool = True,
    boxes: bool = False,
    encoder_passes: int = 1,
    mask_padding: bool = True,
    hierarchical: bool = True,
    roi: bool = False,
    impl: Impl = "fast",
) -> Float32[np.ndarray, "b 1+n d"]:
    """States of CLS and all trajectories, as the released program computes them.

    Args:
      state_dict: arrays under the released names.
      video: normalized pixels.
      mask: id of each cell in its frame, 0 = none.
      graph: id of each trajectory in each frame, 0 = absent. All-zero rows are padding.
      heads: attention heads.
      rotary: rotary positions in the resamplers, else the learned table.
      boxes: boxes in the position branch, else centres.
      encoder_passes: 2 = as the released forward runs.
      mask_padding: False = padding is attended to, as by the released attention.
      hierarchical: all stages of the ResNet, else the last alone.
      roi: 2x2 points of each box instead of the mean under the mask.
      impl: 'fast', or the plain formulas, 'reference'.

    Raises:
      ValueError: inputs that `check_inputs` refuses, or arrays that are not a TrajViT's.
    """
    video, mask, graph = np.asarray(video), np.asarray(mask), np.asarray(graph)
    check_inputs(video, mask, graph)
    settings = released_settings(
        state_dict,
        heads=heads,
        rotary=rotary,
        boxes=boxes,
        encoder_passes=encoder_passes,
        hierarchical=hierarchical,
        roi=roi,
        impl=impl,
    )
    model = load(state_dict, settings)
    graph = jnp.asarray(graph, jnp.int32)
    backbone = model.tokenizer.appearance.backbone
    # Parity is of float32, also where hardware would rather multiply in less.
    with jax.default_matmul_precision("highest"):
        features = read_frames_jit(backbone, jnp.asarray(video.transpose(0, 1, 3, 4, 2)))
        ids, labels = int(mask.max()) + 1, jnp.asarray(mask, jnp.int32)
        tokens, _ = tokenize_jit(model.tokenizer, features, labels, graph, ids=ids)
        seen = seen_slots(graph, mask_padding=mask_padding)
        return np.asarray(encode_jit(model.encoder, tokens, seen))


# Three programs, so that variants of the model share those in which they do not differ.
read_frames_jit = nnx.jit(read_frames, static_argnames="train")
tokenize_jit = nnx.jit(tokenize, static_argnames="ids")
encode_jit = nnx.jit(encode)
