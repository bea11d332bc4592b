"""Tracks by walking from patch to patch (Jabri et al. 2020, "contrastive random walk").

The paper's tracking-only ablation (§4.5) follows 16x16 patches with that model. A patch of a
frame asks the patches near it in earlier frames, and takes over the labels of those most like it:

    L_t(j) = sum_i softmax_i(<x_i, x_j> / temperature) L(i),   i among the `nearest` of the context

Vectors x come from any function of frames, which is given in Python; no config names one, as the
weights of that model's authors have no loader here. `colour_features`, the default, needs none:

    own = pipeline.PipelineSettings(segmenter="patches", tracker="patches")
    tracker = PatchTracker(own.walk, function)
    tokenizer = dataclasses.replace(pipeline.build(own), tracker=tracker)

The numbers of the settings are those with which its authors propagate labels on DAVIS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float32, Int, Int32, UInt8

from tokenization.protocols import Clip
from tokenization.segmenters.patches import patch_numbers

PatchFeatures = Callable[[UInt8[np.ndarray, "t h w 3"], int], Float32[np.ndarray, "t p c"]]
"""Frames and the side of a patch -> a unit vector a patch, row by row."""

_CELLS = 4  # of a patch's side, for its colours


@dataclasses.dataclass(frozen=True)
class WalkSettings:
    """How labels walk.

    Attributes:
      patch: side in pixels.
      radius: how far a patch may have come between two frames of the walk, in pixels.
      context: frames before a frame that are asked, beside the clip's first.
      nearest: patches that are heard.
      temperature: of their weights.

    Raises:
      ValueError: a value out of its range.
    """

    patch: int = 16
    radius: float = 96.0
    context: int = 20
    nearest: int = 10
    temperature: float = 0.05

    def __post_init__(self) -> None:
        for name in ("patch", "context", "nearest"):
            if getattr(self, name) < 1:
                raise ValueError(f"WalkSettings.{name} = {getattr(self, name)} must be >= 1")
        for name in ("radius", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"WalkSettings.{name} = {getattr(self, name)} must be > 0")


class PatchTracker:
    """Every patch of a frame continues a segment of the first; none is born.

    Args:
      settings: of the walk.
      features: of patches.
    """

    name = "patches"
    gives_birth = True  # a shot is tracked in one piece: grids of two key frames need no linking

    def __init__(
        self, settings: WalkSettings = WalkSettings(), features: PatchFeatures | None = None
    ):
        self.settings, self._features = settings, features or colour_features

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "t h w"]]:
        """See `Tracker`; a patch has the label that most of its pixels had in the first frame."""
        return [self._track(clip) for clip in clips]

    def _track(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        own = self.settings
        first = clip.segments[0]
        h, w = first.shape
        cells = patch_numbers(h, w, own.patch)
        ids, start = np.unique(_majority(first, cells), return_inverse=True)
        masses = walk(self._features(clip.frames, own.patch), start, near(h, w, own), own)
        owners = np.stack([of_frame.argmax(-1) for of_frame in masses])
        labels = ids[owners].astype(np.int32)[:, cells]
        labels[0] = first
        return labels


def near(h: int, w: int, settings: WalkSettings) -> Bool[np.ndarray, "p p"]:
    """Which patches of a frame are within the radius of which."""
    size = settings.patch
    rows, columns = np.mgrid[0 : -(-h // size), 0 : -(-w // size)].reshape(2, -1) * size
    away = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    return away <= settings.radius


def walk(
    features: Float32[np.ndarray, "t p c"],
    start: Int[np.ndarray, " p"],
    near: Bool[np.ndarray, "p p"],
    settings: WalkSettings,
) -> Iterator[Float32[np.ndarray, "p m"]]:
    """How much of each label every patch has, frame by frame.

    Memory grows with the context, not with the frames: what is out of it is forgotten.

    Args:
      features: unit vectors.
      start: label of each patch of the first frame, 0..m-1.
      near: patches that may hear each other.
      settings: of the walk.
    """
    t, p, _ = features.shape
    first = np.zeros((p, int(start.max()) + 1), np.float32)
    first[np.arange(p), start] = 1
    yield first
    known = {0: first}
    # Of each patch those near it, then others that fill its row up.
    around = np.argsort(~near, axis=1, kind="stable")[:, : int(near.sum(1).max())]
    others = ~np.take_along_axis(near, around, 1)
    rows = np.arange(p)[:, None]
    for frame in range(1, t):
        known.pop(frame - settings.context - 1 or -1, None)
        likeness = np.empty((p, len(known), around.shape[1]), np.float32)
        for place, asked in enumerate(known):
            likeness[:, place] = (features[frame] @ features[asked].T)[rows, around]
        likeness[np.broadcast_to(others[:, None], likeness.shape)] = -np.inf
        likeness = likeness.reshape(p, -1)
        heard = np.argpartition(-likeness, min(settings.nearest, likeness.shape[1]) - 1, axis=1)
        heard = heard[:, : settings.nearest]
        weights = np.take_along_axis(likeness, heard, 1) / settings.temperature
        weights = np.exp(weights - weights.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        place, neighbour = np.divmod(heard, around.shape[1])
        masses = np.zeros_like(first)
        for index, asked in enumerate(known.values()):
            its = np.where(place == index, weights, 0)
            columns = around[rows, neighbour]
            heard_of_it = scipy.sparse.coo_array(
                (its.ravel(), (np.broadcast_to(rows, its.shape).ravel(), columns.ravel())), (p, p)
            )
            masses += heard_of_it.tocsr() @ asked
        known[frame] = masses
        yield masses


def colour_features(
    frames: UInt8[np.ndarray, "t h w 3"], size: int
) -> Float32[np.ndarray, "t p c"]:
    """The colours of 4x4 cells of each patch, less the clip's mean colour, as unit vectors."""
    t, h, w, _ = frames.shape
    rows, columns = -(-h // size), -(-w // size)
    padding = ((0, 0), (0, rows * size - h), (0, columns * size - w), (0, 0))
    grid = (columns * _CELLS, rows * _CELLS)
    cells = np.stack(
        [
            cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), grid, interpolation=cv2.INTER_AREA)
            for frame in np.pad(frames, padding, mode="edge")
        ]
    ).astype(np.float32)
    cells -= cells.mean((0, 1, 2))
    patches = cells.reshape(t, rows, _CELLS, columns, _CELLS, 3).transpose(0, 1, 3, 2, 4, 5)
    vectors = patches.reshape(t, rows * columns, -1)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, 1e-6)


def _majority(
    labels: Int32[np.ndarray, "h w"], cells: Int32[np.ndarray, "h w"]
) -> Int32[np.ndarray, " p"]:
    """The most frequent label of each cell; of several, the smallest."""
    ids, inverse = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(cells.max()) + 1, ids.size), np.int64)
    np.add.at(counts, (cells.reshape(-1), inverse.reshape(-1)), 1)
    return ids[counts.argmax(1)].astype(np.int32)
