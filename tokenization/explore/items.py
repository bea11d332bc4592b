"""What the viewer shows, and where it comes from: a folder of records, or a video file."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tokenization.records import ShardInfo
from tokenization.trajectories import Trajectories


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One video with its trajectories.

    Attributes:
      frames: RGB; may be of another size than the label maps.
      trajectories: of the same number of frames.
      captions: none, one or several.
      damaged: frames of a video file, see `video.Frames`; records do not tell.

    Raises:
      ValueError: frames and label maps whose numbers differ.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    trajectories: Trajectories
    captions: tuple[str, ...] = ()
    damaged: int = 0

    def __post_init__(self) -> None:
        frames, maps = len(self.frames), len(self.trajectories.labels)
        if frames != maps:
            raise ValueError(
                f"video {self.trajectories.video.id!r}: {frames} frames and {maps} label maps "
                "must agree"
            )

    @property
    def repeated(self) -> int:
        """Frames at the end that repeat the last one, because the video has too few."""
        times = self.trajectories.frame_times
        return int(np.count_nonzero(times == times[-1])) - 1


def read_records(
    directory: Path,
    *,
    split: str = "train",
    max_videos: int = 12,
    video: str | None = None,
) -> list[Item]:
    """The first `max_videos` records of a folder that `tokenization.extract` wrote.

    Args:
      directory: the dataset's folder.
      split: which split of it.
      max_videos: how many at most.
      video: only the record of this id.

    Raises:
      ValueError: a folder without records, without this split or without this video.
    """
    from tokenization import records

    source = records.open_records(directory, split)
    chosen: Sequence[int] = range(min(len(source), max_videos))
    if video is not None:
        shards = list(records.split_shards(directory, split))
        if shards:
            place = _place(shards, video, where=f"{directory}: split {split!r}")
            chosen = range(place, place + 1)
        else:  # a copy without the notes of its shards
            chosen = [place for place in range(len(source)) if source[place].id == video]
    if not chosen:
        wanted = f"record of video {video!r}" if video else "records"
        raise ValueError(f"{directory}: split {split!r} has no {wanted}")
    return [
        Item(record.frames, record.trajectories, record.captions)
        for record in (source[index] for index in chosen)
    ]


def _place(shards: Sequence[ShardInfo], video: str, where: str) -> int:
    """The number of a video's record; raises ValueError that says why there is none."""
    ids = [name for info in shards for name in info.ids]
    if video in ids:
        return ids.index(video)
    for bad in (bad for info in shards for bad in info.quarantine):
        if bad.id == video:
            raise ValueError(
                f"{where} has no record of video {video!r}, which could not be read: {bad.path} "
                f"{bad.reason}; {bad.remedy}"
            )
    close = difflib.get_close_matches(video, ids, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the first is {ids[0]!r}"
    raise ValueError(f"{where} of {len(ids)} records has no video {video!r}; {hint}")


def tokenize_file(path: Path, *, config: str | None = None) -> Item:
    """Decodes a video (or an image) and finds its trajectories, as `tokenization.extract` does.

    Args:
      path: the file.
      config: `file.py[:arg]` with the settings of an extraction; None = the defaults.

    Raises:
      OSError, ValueError: a file that cannot be decoded, or a config that cannot be read.
    """
    from tokenization import pipeline, video
    from tokenization.recorder import ExtractSettings
    from trajvit_jax import config as configs

    settings = ExtractSettings()
    if config is not None:
        settings = configs.read(ExtractSettings, config, "tokenization.extract")
    chosen = settings.pipeline
    frames = video.decode(
        path, frames=chosen.frames, between=chosen.between, max_side=chosen.max_side
    )
    found = pipeline.build(chosen).tokenize(frames)
    return Item(frames.rgb, found, damaged=frames.damaged)


def title_of(items: Sequence[Item]) -> str:
    """A page title that names what is shown."""
    names = [item.trajectories.video.id for item in items]
    return names[0] if len(names) == 1 else f"{len(names)} videos"
