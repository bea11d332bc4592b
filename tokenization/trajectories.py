"""The contract between the two packages: a video's trajectories as one integer map.

`labels[t, h, w]` says which trajectory owns each space-time cell: 0 is none, i >= 1 is
trajectory i. NumPy only; nothing here opens a video, a pickle or a device.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, Integer, UInt16

from tokenization.files import replacing
from tokenization.resizing import resize_labels

MAX_TRAJECTORIES = np.iinfo(np.uint16).max

# What np.load and the parts of a file raise when it is something else, truncated or changed.
_UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What is known of the video that the frames come from.

    Attributes:
      id: unique name within a dataset.
      width: pixels, as displayed (rotation applied).
      height: pixels, as displayed.
      fps: average frames a second; 0 for an image.
      duration: seconds; 0 for an image.
    """

    id: str
    width: int
    height: int
    fps: float
    duration: float


def compact(labels: Integer[np.ndarray, "t h w"]) -> UInt16[np.ndarray, "t h w"]:
    """Renumbers labels to 1..n in the order of their old numbers; 0 stays 0.

    Raises:
      ValueError: a negative label, or more than 65,535 trajectories.
    """
    # Frame by frame: numbers of pixels are 8 bytes each, four times the labels.
    old = np.unique(np.concatenate([labels[:0].reshape(-1), *map(np.unique, labels)]))
    if old.size and old[0] < 0:
        raise ValueError(f"labels must be >= 0 (0 = no trajectory), found {old[0]}")
    old = old[old > 0]
    if old.size > MAX_TRAJECTORIES:
        raise ValueError(
            f"{old.size} trajectories do not fit uint16 labels ({MAX_TRAJECTORIES} at most); "
            "raise the segmenter's minimum area or take fewer frames"
        )
    if old.size and old[-1] == old.size and labels.dtype == np.uint16:
        return labels
    new = np.zeros(labels.shape, np.uint16)
    for its, found in zip(new, labels, strict=True):
        np.add(np.searchsorted(old, found), 1, out=its, where=found > 0, casting="unsafe")
    return new


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectories:
    """Panoptic sub-object trajectories of one video (paper §3.1).

    Attributes:
      labels: 0 = no trajectory; 1..n, each present somewhere (dense).
      frame_times: seconds from the start of the video, not decreasing.
      key_frames: True where a clip starts; always True at frame 0.
      video: what the frames were taken from.
      made_by: segmenter, tracker, their settings, and a content hash (JSON values only).

    Raises:
      ValueError: no frames, an empty frame, labels that are not dense, or parts whose
        number of frames differ.
    """

    labels: UInt16[np.ndarray, "t h w"]
    frame_times: Float32[np.ndarray, " t"]
    key_frames: Bool[np.ndarray, " t"]
    video: VideoInfo
    made_by: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        frames, height, width = self.labels.shape
        return f"<{len(self)} Trajectories of {self.video.id}, {frames} x {height} x {width}>"

    def __post_init__(self) -> None:
        if self.labels.dtype != np.uint16 or self.labels.ndim != 3:
            raise ValueError(
                f"video {self.video.id!r}: labels must be uint16[t,h,w], "
                f"got {self.labels.dtype}{list(self.labels.shape)}"
            )
        if 0 in self.labels.shape:
            raise ValueError(f"video {self.video.id!r} is empty: labels {list(self.labels.shape)}")
        frames = self.labels.shape[0]
        if self.frame_times.shape != (frames,) or self.key_frames.shape != (frames,):
            raise ValueError(
                f"video {self.video.id!r}: {frames} label maps, {self.frame_times.shape[0]} "
                f"frame times and {self.key_frames.shape[0]} key-frame flags must agree"
            )
        if not self.key_frames[0]:
            raise ValueError(f"video {self.video.id!r}: frame 0 must be a key frame")
        most = int(self.labels.max()) + 1
        counts = np.sum(
            [np.bincount(frame.reshape(-1), minlength=most) for frame in self.labels], 0
        )
        missing = np.flatnonzero(counts[1:] == 0) + 1
        if missing.size:
            raise ValueError(
                f"video {self.video.id!r}: labels must be dense, but trajectory {missing[0]} of "
                f"{counts.size - 1} owns no pixel; build with Trajectories.from_labels"
            )

    @classmethod
    def from_labels(
        cls,
        labels: Integer[np.ndarray, "t h w"],
        *,
        frame_times: Float32[np.ndarray, " t"],
        key_frames: Bool[np.ndarray, " t"],
        video: VideoInfo,
        made_by: Mapping[str, object] | None = None,
    ) -> Trajectories:
        """Builds from any non-negative integer labels, renumbering them to 1..n."""
        return cls(compact(labels), frame_times, key_frames, video, dict(made_by or {}))

    @classmethod
    def from_official(
        cls,
        mask: Integer[np.ndarray, "t h w"],
        graph: Integer[np.ndarray, "m t"],
        *,
        frame_times: Float32[np.ndarray, " t"],
        key_frames: Bool[np.ndarray, " t"],
        video: VideoInfo,
        made_by: Mapping[str, object] | None = None,
    ) -> Trajectories:
        """Reads the released program's pair, `_mask.npz` and `_graph.npz`.

        Pixels whose id no trajectory has become 0; trajectories without a pixel are dropped.

        Args:
          mask: ids of each frame; 0 = none.
          graph: id of trajectory m in frame t; 0 = absent.

        Raises:
          ValueError: an empty video, parts whose number of frames differ, negative ids, or two
            trajectories with one id in one frame.
        """
        if mask.size == 0:
            raise ValueError(f"video {video.id!r} is empty: mask {list(mask.shape)}")
        if graph.shape[1] != len(mask):
            raise ValueError(
                f"video {video.id!r}: the mask has {len(mask)} frames, the graph {graph.shape[1]}"
            )
        if mask.min() < 0 or graph.min(initial=0) < 0:
            raise ValueError(f"video {video.id!r}: mask and graph hold ids >= 0 (0 = none)")
        row, frame = np.nonzero((graph > 0) & (graph <= mask.max()))
        ids = graph[row, frame].astype(np.int64)
        trajectory = np.zeros((len(mask), int(mask.max()) + 1), np.int64)
        np.maximum.at(trajectory, (frame, ids), row + 1)
        clash = np.flatnonzero(trajectory[frame, ids] != row + 1)
        if clash.size:
            one, t = row[clash[0]], frame[clash[0]]
            other = trajectory[t, ids[clash[0]]] - 1
            raise ValueError(
                f"video {video.id!r}: rows {one} and {other} of the graph share id "
                f"{ids[clash[0]]} in frame {t}; a pixel belongs to one trajectory"
            )
        labels = np.take_along_axis(trajectory, mask.reshape(len(mask), -1).astype(np.int64), 1)
        return cls.from_labels(
            labels.reshape(mask.shape),
            frame_times=frame_times,
            key_frames=key_frames,
            video=video,
            made_by=made_by,
        )

    def to_official(self) -> tuple[UInt16[np.ndarray, "t h w"], Int64[np.ndarray, "n t"]]:
        """The released program's pair (mask, graph), see `from_official`, which inverts it.

        Ids count the trajectories seen in a frame: 1, 2, ... They are 16 bits wide; the
        released program stores 8, in which ids above 255 wrap.
        """
        presence = self.presence()
        graph = np.cumsum(presence, axis=0) * presence
        ids = np.vstack([np.zeros(len(self.labels), np.int64), graph]).astype(np.uint16)
        return ids[self.labels, np.arange(len(self.labels))[:, None, None]], graph

    def __len__(self) -> int:
        """Number of trajectories, n."""
        return self._count

    @functools.cached_property
    def _count(self) -> int:
        return int(self.labels.max())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectories):
            return NotImplemented
        return (
            np.array_equal(self.labels, other.labels)
            and np.array_equal(self.frame_times, other.frame_times)
            and np.array_equal(self.key_frames, other.key_frames)
            and self.video == other.video
            and dict(self.made_by) == dict(other.made_by)
        )

    def areas(self) -> Int[np.ndarray, "n t"]:
        """Pixels of every trajectory in every frame."""
        frames, n = self.labels.shape[0], len(self)
        offset = np.arange(frames, dtype=np.int64)[:, None, None] * (n + 1)
        counts = np.bincount((self.labels + offset).reshape(-1), minlength=frames * (n + 1))
        return counts.reshape(frames, n + 1)[:, 1:].T

    def presence(self) -> Bool[np.ndarray, "n t"]:
        """Where each trajectory is seen."""
        return self.areas() > 0

    def boxes(self) -> Float32[np.ndarray, "n t 4"]:
        """(x0, y0, x1, y1) / (width, height) of each segment, max exclusive; 0 where absent."""
        frames, height, width = self.labels.shape
        n = len(self)
        low = np.full((2, frames, n + 1), np.iinfo(np.int64).max)
        high = np.full((2, frames, n + 1), -1)
        t, y, x = np.nonzero(self.labels)
        ids = self.labels[t, y, x]
        for axis, where in enumerate((x, y)):
            np.minimum.at(low[axis], (t, ids), where)
            np.maximum.at(high[axis], (t, ids), where + 1)
        boxes = np.stack([low[0] / width, low[1] / height, high[0] / width, high[1] / height], -1)
        boxes = np.where((high[0] > 0)[..., None], boxes, 0.0)
        return boxes[:, 1:].transpose(1, 0, 2).astype(np.float32)

    def padded_masks(self, n_max: int) -> Bool[np.ndarray, "n_max t h w"]:
        """One mask a trajectory, padded with empty ones up to `n_max`.

        Raises:
          ValueError: more than `n_max` trajectories; none is dropped silently.
        """
        if len(self) > n_max:
            raise ValueError(
                f"video {self.video.id!r} has {len(self)} trajectories, more than n_max={n_max}"
            )
        ids = np.arange(1, n_max + 1, dtype=np.int64)[:, None, None, None]
        return self.labels[None] == ids

    def resize(self, height: int, width: int) -> Trajectories:
        """Nearest-neighbour resize; trajectories that vanish are dropped and ids renumbered.

        Raises:
          ValueError: a side under one pixel.
        """
        if height < 1 or width < 1:
            raise ValueError(f"cannot resize video {self.video.id!r} to {height}x{width}")
        return dataclasses.replace(self, labels=compact(resize_labels(self.labels, height, width)))

    def take_frames(self, frames: Sequence[int] | Int[np.ndarray, " k"]) -> Trajectories:
        """The chosen frames in the given order, renumbered; the first becomes a key frame.

        Raises:
          ValueError: no frame chosen, or one outside the video.
        """
        index = np.asarray(frames, np.int64).reshape(-1)
        count = self.labels.shape[0]
        if index.size == 0:
            raise ValueError(
                f"video {self.video.id!r}: a selection of 0 frames has no trajectories"
            )
        if index.min() < -count or index.max() >= count:
            raise ValueError(
                f"video {self.video.id!r} has frames 0..{count - 1}, asked for {index.tolist()}"
            )
        key_frames = self.key_frames[index].copy()
        key_frames[0] = True
        return dataclasses.replace(
            self,
            labels=compact(self.labels[index]),
            frame_times=self.frame_times[index],
            key_frames=key_frames,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one .npz; a reader never sees half of it."""
        meta = {"video": dataclasses.asdict(self.video), "made_by": dict(self.made_by)}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                labels=self.labels,
                frame_times=self.frame_times,
                key_frames=self.key_frames,
                meta=np.array(json.dumps(meta)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectories:
        """Reads what `save` wrote; never opens a pickle.

        Raises:
          ValueError: a file that is not such an .npz (the message names it).
          OSError: a file that cannot be opened.
        """
        with Path(path).open("rb") as stream:
            try:
                with np.load(stream, allow_pickle=False) as file:
                    meta = json.loads(str(file["meta"]))
                    return cls(
                        labels=file["labels"],
                        frame_times=file["frame_times"],
                        key_frames=file["key_frames"],
                        video=VideoInfo(**meta["video"]),
                        made_by=meta["made_by"],
                    )
            except _UNREADABLE as error:
                raise ValueError(
                    f"{os.fspath(path)} is not a trajectories file, or is damaged "
                    f"({error}); extract the video again"
                ) from error
