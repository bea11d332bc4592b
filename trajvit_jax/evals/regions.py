"""What a model's frozen tokens say of a box (paper, supplementary section 9).

Which way depends on the tokenization:
  trajectories  all tokens of the trajectories that have at least 80% of their mask inside the box
                in the annotated frame: none, where there is no such trajectory;
  map           the tokens as a map of space and time: tubelets as they lie, tokens that were merged
                (RLT, ToMe) on all their patches, TokenLearner's fused back; its mean over time is
                read by RoIAlign;
  factorized    ViViT: RoIAlign of its spatial map in the annotated time step, each cell with that
                step's state after it;
  weights       TokenLearner without fusers, and AutoMerge: each cell's mean of the tokens, by how
                much of it is in each. The paper has no such numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from trajvit_jax.data.evaluation import EvalVideos
from trajvit_jax.evals.boxes import BoxedFrame
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.roi_align import roi_align
from trajvit_jax.evals.settings import RegionSettings
from trajvit_jax.models.footprints import dense_by_labels, dense_by_weights
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere

_EPS = 1e-6
_PAPER = RegionSettings()


def way_of(settings: ModelSettings) -> str:
    """Which of the four ways a tokenization goes; see the module."""
    if settings.name == "trajvit":
        return "trajectories"
    if settings.name == "vivit":
        return "factorized"
    learned = settings.name == "token_learner" and not settings.token_learner.fuse
    return "weights" if learned or settings.name == "automerge" else "map"


@nnx.jit
def _states(
    model: VideoTextModel,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b t y x"],
    rows: Rows | None,
) -> Float[Array, "r s d"]:
    states, _, _ = model.encode_video(video, labels, rows)
    return everywhere(states.astype(jnp.float32))


@nnx.jit
def _maps(
    model: VideoTextModel, video: UInt8[Array, "b t h w 3"], labels: Int[Array, "b t y x"]
) -> tuple[Float[Array, "b k _ _ d"], Float[Array, "b k d"] | None]:
    """The mean over time of each video's map of tokens; or of ViViT all time steps of its map,
    and the states of these."""
    states, _, named = model.encode_video(video, labels)
    states = states.astype(jnp.float32)
    way = way_of(model.settings)
    if way == "factorized":
        shape = (*named["labels"].shape, -1)
        spatial = named["spatial"].astype(jnp.float32).reshape(shape)
        return everywhere((spatial, states[:, 1:]))
    if way == "weights":
        return everywhere(dense_by_weights(states, named["weights"]).mean(1, keepdims=True)), None
    group = len(video) // len(states)  # videos that share a row
    dense = dense_by_labels(jnp.repeat(states, group, axis=0), named["labels"])
    return everywhere(dense.mean(1, keepdims=True)), None


def box_tokens(
    embedder: Embedder,
    videos: EvalVideos,
    boxes: Sequence[Sequence[tuple[BoxedFrame, np.ndarray]]],
    settings: RegionSettings = _PAPER,
) -> list[list[Float[np.ndarray, "_ d"]]]:
    """The tokens of each box, layer-normalized; an array without rows where there are none.

    Args:
      embedder: with the model.
      videos: a batch that it reads.
      boxes: of each video that can be used, and nothing for others: the frame, and the corners.
      settings: how.
    """
    own = embedder.model.settings
    arrays = (videos.video, videos.labels, videos.rows)
    found: list[list[np.ndarray]] = [[] for _ in boxes]
    if way_of(own) == "trajectories":
        states = np.asarray(_states(embedder.model, *embedder.put(arrays)))
        place = _rows_of(videos, len(boxes))
        each = own.trajvit.tokens_each
        for number, asked in enumerate(boxes):
            for frame, corners in asked:
                labels = np.asarray(videos.labels[number][frame.frame])
                inside = gather(labels, corners, settings.inside)
                if videos.rows is None:  # labels are numbers from 1, not slots
                    inside = (inside - 1) * each + 1
                slots = (inside[:, None] + np.arange(each)).reshape(-1)
                found[number].append(_normalized(states[place[number]][slots]))
        return found
    maps, steps = _maps(embedder.model, *embedder.put(arrays[:2]))
    maps, steps = np.asarray(maps), None if steps is None else np.asarray(steps)
    for number, asked in enumerate(boxes):
        for frame, corners in asked:
            if steps is None:
                tokens = roi_align(maps[number, 0], corners, size=settings.size)
            else:
                step = frame.frame * maps.shape[1] // videos.video.shape[1]
                tokens = roi_align(maps[number, step], corners, size=settings.size)
                state = np.broadcast_to(steps[number, step], tokens.shape)
                tokens = np.concatenate([tokens, state], axis=-1)
            found[number].append(_normalized(tokens.reshape(-1, tokens.shape[-1])))
    return found


def width_of(settings: ModelSettings) -> int:
    """Of a box's tokens."""
    return settings.encoder.width * (2 if way_of(settings) == "factorized" else 1)


def gather(
    labels: Int[np.ndarray, "y x"], corners: Float[np.ndarray, " 4"], inside: float
) -> Int[np.ndarray, " _"]:
    """Labels of which so much of the area in this frame is in the box, in order.

    A cell is in the box if its centre is.
    """
    within = _centres_within(labels.shape, corners)
    area = np.bincount(labels.reshape(-1))
    part = np.bincount(labels[within], minlength=len(area))
    enough = (area > 0) & (part >= inside * area)
    enough[0] = False  # no trajectory
    return np.flatnonzero(enough)


def _centres_within(
    shape: tuple[int, ...], corners: Float[np.ndarray, " 4"]
) -> Bool[np.ndarray, "y x"]:
    h, w = shape
    x0, y0, x1, y1 = corners
    x, y = (np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h
    return ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))


def _rows_of(videos: EvalVideos, count: int) -> Int[np.ndarray, " count"]:
    """The row of states that each video is in."""
    if videos.rows is None:
        return np.arange(count)
    rows, (groups, each) = np.asarray(videos.rows.row), videos.rows.row.shape
    first = np.arange(groups)[:, None] * videos.rows.video.shape[1]
    return (rows + first).reshape(groups * each)[:count]


def _normalized(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """LayerNorm without parameters."""
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True)
    return (x / np.sqrt((x**2).mean(-1, keepdims=True) + _EPS)).astype(np.float32)
