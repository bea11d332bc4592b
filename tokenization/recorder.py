"""One entry of a manifest -> the bytes of its record, or the reason why there is none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from absl import logging

from tokenization import shards, video
from tokenization.files import printable
from tokenization.manifest import Entry
from tokenization.pipeline import PipelineSettings
from tokenization.records import Boxes, Quarantined, Record
from tokenization.trajectories import Trajectories


@dataclasses.dataclass(frozen=True)
class ExtractSettings:
    """What makes the records of a dataset; all of its shards share it.

    Attributes:
      pipeline: from frames to trajectories.
      record_size: side of stored frames and label maps, in pixels.
      shard_size: entries of the input in a shard.
    """

    pipeline: PipelineSettings = dataclasses.field(default_factory=PipelineSettings)
    record_size: int = 256
    shard_size: int = 64

    def __post_init__(self) -> None:
        if self.record_size < 1 or self.shard_size < 1:
            raise ValueError(
                f"record_size={self.record_size} and shard_size={self.shard_size} must be >= 1"
            )


class Tokenizer(Protocol):
    """What `pipeline.build` returns."""

    def tokenize(self, frames: video.Frames) -> Trajectories:
        """Trajectories of the frames."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One entry processed.

    Attributes:
      id: of the entry.
      seconds: processing time.
      data: the serialized record; empty if quarantined.
      trajectories: in the record.
      frames: in the record.
      repeated: the video is short and repeats its last frame.
      quarantined: why there is no record, or None.
    """

    id: str
    seconds: float = 0.0
    data: bytes = b""
    trajectories: int = 0
    frames: int = 0
    repeated: bool = False
    quarantined: Quarantined | None = None


class Recorder:
    """Decodes and tokenizes entries; one a process."""

    def __init__(
        self, settings: ExtractSettings, build: Callable[[PipelineSettings], Tokenizer]
    ) -> None:
        self._settings = settings
        self._tokenizer = build(settings.pipeline)

    def __call__(self, entry: Entry) -> Outcome:
        """Never raises, but for Ctrl-C."""
        begin = time.perf_counter()
        try:
            outcome = self._process(entry)
        except video.VideoError as error:
            outcome = _bad(entry, error.reason, error.remedy)
        except Exception as error:  # one bad video never stops a run
            logging.exception("%s", entry.path)
            outcome = _bad(
                entry, f"{type(error).__name__}: {error}", "report this video if it plays"
            )
        return dataclasses.replace(outcome, seconds=time.perf_counter() - begin)

    def _process(self, entry: Entry) -> Outcome:
        if entry.problem is not None:
            raise video.VideoError(
                entry.path, entry.problem, "correct the manifest, or rename the file"
            )
        settings = self._settings
        frames = video.decode(
            entry.path,
            frames=settings.pipeline.frames,
            start=entry.start,
            end=entry.end,
            video_id=entry.id,
            max_side=settings.pipeline.max_side,
            threads=1,
        )
        extra = dict(entry.extra)
        record = Record.squash(
            self._tokenizer.tokenize(frames),
            frames.rgb,
            size=settings.record_size,
            captions=entry.captions,
            label=entry.label,
            boxes=read_boxes(extra.pop("boxes", None)),
            extra=extra,
        )
        return Outcome(
            entry.id,
            data=shards.serialize(record),
            trajectories=len(record.trajectories),
            frames=len(frames.rgb),
            repeated=frames.repeated > 0,
        )


def read_boxes(value: Any) -> Boxes | None:
    """Reads a manifest's `"boxes": [{"time": 1.0, "box": [x0, y0, x1, y1], "label": "run"}]`.

    Raises:
      ValueError: boxes of another form.
    """
    if not value:
        return None
    try:
        corners = np.array([box["box"] for box in value], np.float32).reshape(-1, 4)
        times = np.array([box["time"] for box in value], np.float32)
        return Boxes(corners, times, tuple(str(box.get("label", "")) for box in value))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"its boxes cannot be read ({error}); each must be like "
            '{"time": 1.0, "box": [0.1, 0.2, 0.5, 0.9], "label": "run"}'
        ) from error


def _bad(entry: Entry, reason: str, remedy: str) -> Outcome:
    return Outcome(
        entry.id, quarantined=Quarantined(entry.id, printable(entry.path), reason, remedy)
    )


def died(entry: Entry) -> Outcome:
    """The outcome of an entry whose process died."""
    return _bad(
        entry,
        "the process that read it died (out of memory, or a crash in a library)",
        "use fewer --workers, or convert the video",
    )
