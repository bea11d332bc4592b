"""One video with its trajectories, and how it is coded as an example of a TFDS dataset.

Label maps are zlib-compressed uint16: on 16 maps of 256x256 with 50 trajectories that took
52 KiB and 4 ms to read, 16-bit PNG 64 to 96 KiB and 7 ms.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from tokenization.trajectories import Trajectories, VideoInfo

VERSION = "1.0.0"
JPEG_QUALITY = 90


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Annotated boxes of a video, not those of its trajectories.

    Attributes:
      corners: (x0, y0, x1, y1) / (width, height), max exclusive.
      times: seconds from the start of the video.
      labels: one a box.
    """

    corners: Float32[np.ndarray, "m 4"]
    times: Float32[np.ndarray, " m"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.corners) == len(self.times) == len(self.labels):
            raise ValueError(
                f"{len(self.corners)} boxes, {len(self.times)} times and "
                f"{len(self.labels)} labels must agree"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One video of a dataset.

    Attributes:
      trajectories: labels at the size of the record.
      frames: RGB, squashed to the size of the record.
      captions: none, one or several.
      label: class name, or None.
      boxes: annotated boxes, or None.
      extra: what else the manifest said (JSON values only).
    """

    trajectories: Trajectories
    frames: UInt8[np.ndarray, "t h w 3"]
    captions: tuple[str, ...] = ()
    label: str | None = None
    boxes: Boxes | None = None
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.shape[:3] != self.trajectories.labels.shape:
            raise ValueError(
                f"record {self.id!r}: frames {list(self.frames.shape)} and labels "
                f"{list(self.trajectories.labels.shape)} must have the same t, h and w"
            )

    @property
    def id(self) -> str:
        """Name of the video, unique within the dataset."""
        return self.trajectories.video.id

    @classmethod
    def squash(
        cls,
        trajectories: Trajectories,
        frames: UInt8[np.ndarray, "t height width 3"],
        *,
        size: int = 256,
        **annotations: Any,
    ) -> Record:
        """Squashes frames (area) and labels (nearest) to `size` x `size`, aspect ignored.

        The sizes of frames and labels may differ; `annotations` are the fields after `frames`.
        """
        small = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames]
        return cls(trajectories.resize(size, size), np.stack(small), **annotations)

    def as_stored(self) -> Record:
        """The record as it comes back from a shard: its frames were JPEG (lossy)."""
        back = [cv2.imdecode(_to_jpeg(frame), cv2.IMREAD_COLOR) for frame in self.frames]
        rgb = [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in back]
        return dataclasses.replace(self, frames=np.stack(rgb))


def provenance(record: Record) -> str:
    """Hash of what the record was made from and how: video facts, frame times, `made_by`."""
    trajectories = record.trajectories
    digest = hashlib.sha256(
        to_json([dataclasses.asdict(trajectories.video), dict(trajectories.made_by)]).encode()
    )
    digest.update(trajectories.frame_times.tobytes())
    return digest.hexdigest()[:16]


def to_json(value: object) -> str:
    """JSON with sorted keys, for hashes and storage."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def short_hash(value: object) -> str:
    """Hash of a JSON value: 16 hexadecimal digits."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]


def features(size: int) -> Any:
    """The TFDS features of a record whose frames are `size` x `size`."""
    import tensorflow_datasets as tfds

    f = tfds.features
    return f.FeaturesDict(
        {
            "id": f.Text(),
            "frames": f.Sequence(f.Image(shape=(size, size, 3), encoding_format="jpeg")),
            "labels": f.Tensor(shape=(None, size, size), dtype=np.uint16, encoding="zlib"),
            "trajectories": f.Scalar(dtype=np.int32, doc="number of trajectories"),
            "frame_times": f.Tensor(shape=(None,), dtype=np.float32),
            "key_frames": f.Tensor(shape=(None,), dtype=np.bool_),
            "captions": f.Sequence(f.Text()),
            "label": f.Text(doc="class name; empty = none"),
            "boxes": f.Tensor(shape=(None, 4), dtype=np.float32, encoding="zlib"),
            "box_times": f.Tensor(shape=(None,), dtype=np.float32),
            "box_labels": f.Sequence(f.Text()),
            "video": f.Text(doc="JSON: id, width, height, fps, duration"),
            "made_by": f.Text(doc="JSON: segmenter, tracker, settings"),
            "extra": f.Text(doc="JSON: other keys of the manifest"),
            "provenance": f.Text(doc="hash of video and made_by"),
        }
    )


def _to_jpeg(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, " _"]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1]


def encode(record: Record) -> dict[str, Any]:
    """The record as a dict for `features(size).encode_example`; frames become JPEG (lossy)."""
    trajectories, boxes = record.trajectories, record.boxes
    if boxes is None:
        boxes = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
    return {
        "id": record.id,
        "frames": [_to_jpeg(frame).tobytes() for frame in record.frames],
        "labels": trajectories.labels,
        "trajectories": len(trajectories),
        "frame_times": trajectories.frame_times,
        "key_frames": trajectories.key_frames,
        "captions": list(record.captions),
        "label": record.label or "",
        "boxes": boxes.corners,
        "box_times": boxes.times,
        "box_labels": list(boxes.labels),
        "video": to_json(dataclasses.asdict(trajectories.video)),
        "made_by": to_json(dict(trajectories.made_by)),
        "extra": to_json(dict(record.extra)),
        "provenance": provenance(record),
    }


def decode(example: Mapping[str, Any]) -> Record:
    """Reads an example of a TFDS data source."""
    trajectories = Trajectories(
        labels=np.asarray(example["labels"]),
        frame_times=np.asarray(example["frame_times"], np.float32),
        key_frames=np.asarray(example["key_frames"], np.bool_),
        video=VideoInfo(**json.loads(text_of(example["video"]))),
        made_by=json.loads(text_of(example["made_by"])),
    )
    corners = np.asarray(example["boxes"], np.float32).reshape(-1, 4)
    boxes = Boxes(
        corners,
        np.asarray(example["box_times"], np.float32).reshape(-1),
        tuple(text_of(label) for label in example["box_labels"]),
    )
    return Record(
        trajectories=trajectories,
        frames=np.stack(example["frames"]),
        captions=tuple(text_of(caption) for caption in example["captions"]),
        label=text_of(example["label"]) or None,
        boxes=boxes if len(corners) else None,
        extra=json.loads(text_of(example["extra"])),
    )


def text_of(value: bytes | str) -> str:
    """A text of an example, which TFDS gives as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value
