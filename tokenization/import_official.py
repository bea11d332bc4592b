"""Trajectories that the released TrajViT program made -> records.

  python -m tokenization.import_official --input=MSRVTT/videos --output=records
  python -m tokenization.import_official --input=train.jsonl --output=records --split=train
  python -m tokenization.export_official --records=records --output=tree     # the way back

NAME_mask.npz and NAME_graph.npz are found beside NAME.mp4 or its copy of sampled frames,
NAME_short.mp4; a line of a manifest may name them: {"id": "a", "path": "a.mp4", "mask":
"a_mask.npz", "graph": "a_graph.npz", "captions": ["..."]}, and "frame_times", the seconds of the
sampled frames in the video that they are from, where the file is a copy at another rate. As many
frames as the mask has are sampled from the video by the released program's rule. A pair that is
missing, damaged or does not fit its video goes to `quarantine.jsonl` with the reason and stops
nothing. All else is as for `python -m tokenization.extract`: shards, splits, engines, going on
after an interruption.

What the pair does not say stays open: the first frame alone is a key frame, and where masks
overlapped, the released program added their ids, so such pixels may belong to another trajectory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float32

from tokenization import command, manifest, video
from tokenization.engines import choice
from tokenization.engines.crew import Patience
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import Engine
from tokenization.manifest import Entry
from tokenization.official_files import SHORT, Pair
from tokenization.recorder import Made, Outcome, annotated, attempt
from tokenization.splits import Job, OneByOne, build_split
from tokenization.summary import Summary
from tokenization.trajectories import Trajectories

_MADE_BY = {"segmenter": "released program", "tracker": "released program"}
_OURS = ("mask", "graph", "frame_times")  # what a line of a manifest may say for the import alone
_SAME_SHAPE = 0.1  # by how much the aspect of a mask and a video may differ


@dataclasses.dataclass(frozen=True)
class ImportSettings:
    """What makes the records of a dataset; all of its shards share it.

    Attributes:
      version: the --version_ext that the released program was given.
      max_side: longer side of decoded frames, in pixels.
      record_size: side of stored frames and label maps, in pixels.
      shard_size: entries of the input in a shard.
      source: marks the dataset, so that no extraction is mixed with it.

    Raises:
      ValueError: a size under one.
    """

    version: str = ""
    max_side: int = 512
    record_size: int = 256
    shard_size: int = 64
    source: str = "released program"

    def __post_init__(self) -> None:
        for name in ("max_side", "record_size", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"ImportSettings.{name} = {getattr(self, name)} must be >= 1")


class Importer:
    """Reads videos and their pairs; one a process."""

    def __init__(self, settings: ImportSettings) -> None:
        self._settings = settings

    def __call__(self, entry: Entry) -> Outcome:
        """See `recorder.attempt`."""
        return attempt(entry, self._process)

    def _process(self, entry: Entry) -> Made:
        settings = self._settings
        mask, graph = pair_of(entry, settings.version).read()
        frames = video.decode(
            entry.path,
            frames=len(mask),
            start=entry.start,
            end=entry.end,
            video_id=entry.id,
            max_side=settings.max_side,
            threads=1,
        )
        _check_shape(entry, mask, frames)
        try:
            trajectories = Trajectories.from_official(
                mask,
                graph,
                frame_times=frame_times(entry, frames),
                key_frames=np.arange(len(frames.times)) == 0,
                video=frames.video,
                made_by=_MADE_BY,
            )
        except ValueError as error:
            raise video.VideoError(
                entry.path, f"has a pair that does not fit: {error}", "make the pair again"
            ) from error
        extra = {k: v for k, v in entry.extra.items() if k not in _OURS}
        entry = dataclasses.replace(entry, extra=extra)
        return Made.of(annotated(entry, trajectories, frames, settings.record_size), frames)


def pair_of(entry: Entry, version: str = "") -> Pair:
    """The files that an entry names, or those beside its video.

    Raises:
      VideoError: names that are no text.
    """
    pair = Pair.of_video(entry.path, version)
    named: dict[str, Path] = {}
    for key in ("mask", "graph"):
        name = entry.extra.get(key)
        if name is None:
            continue
        if not isinstance(name, str) or not name or "\0" in name:
            raise video.VideoError(
                entry.path, f"has {name!r} as its {key!r}, no path", "correct the manifest"
            )
        named[key] = entry.path.parent / name
    return dataclasses.replace(pair, **named)


def frame_times(entry: Entry, frames: video.Frames) -> Float32[np.ndarray, " t"]:
    """Seconds of the frames: those that the entry says, or else those of the file.

    Raises:
      VideoError: what it says are no seconds of that many frames in order.
    """
    noted = entry.extra.get("frame_times")
    if noted is None:
        return frames.times
    try:
        times = np.asarray(noted, np.float32)
    except (TypeError, ValueError):
        times = np.zeros(0, np.float32)
    in_order = times.shape == frames.times.shape and bool((np.diff(times) >= 0).all())
    if not (in_order and np.isfinite(times).all()):
        raise video.VideoError(
            entry.path,
            f"has 'frame_times' that are no seconds of its {len(frames.times)} frames in order",
            "correct the manifest",
        )
    return times


def _check_shape(entry: Entry, mask: np.ndarray, frames: video.Frames) -> None:
    """Refuses masks that were made of the video lying on its side."""
    of_mask = mask.shape[2] / max(1, mask.shape[1])
    of_video = frames.video.width / frames.video.height
    lying = abs(of_mask * of_video - 1) < _SAME_SHAPE
    if lying and abs(of_mask / of_video - 1) > 2 * _SAME_SHAPE:
        raise video.VideoError(
            entry.path,
            f"is {frames.video.width}x{frames.video.height}, its mask "
            f"{mask.shape[2]}x{mask.shape[1]}: one of them lies on its side",
            "make the pair again, of the video as it is displayed",
        )


def fingerprint(entries: Iterable[Entry], *, version: str) -> list[Any]:
    """As `manifest.fingerprint`, and of the pairs, too."""
    entries = list(entries)
    values: list[Any] = []
    for entry, value in zip(entries, manifest.fingerprint(entries), strict=True):
        with contextlib.suppress(OSError, ValueError):  # the run says what is wrong
            pair = pair_of(entry, version)
            for path in (pair.mask, pair.graph):
                status = path.stat()
                value = {**value, path.name: [status.st_size, status.st_mtime_ns]}
        values.append(value)
    return values


def read_entries(source: str | os.PathLike[str]) -> list[Entry]:
    """As `manifest.read_entries`; in a folder, no short copies beside their videos.

    A short copy whose video is not there stands for it, under its name.
    """
    entries = manifest.read_entries(source, keep_images=True)  # they may have pairs, too
    if os.fspath(source).endswith(".jsonl"):
        return entries
    names = {entry.id for entry in entries}
    return [
        dataclasses.replace(entry, id=entry.id.removesuffix(SHORT))
        for entry in entries
        if not (entry.id.endswith(SHORT) and entry.id.removesuffix(SHORT) in names)
    ]


def import_official(
    entries: Sequence[Entry],
    output: str | os.PathLike[str],
    settings: ImportSettings | None = None,
    *,
    split: str = "train",
    engine: Engine | None = None,
    patience: Patience | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
) -> Summary:
    """Turns videos and their pairs into a split of a dataset of records.

    Args:
      entries: the videos; `extra` may name "mask" and "graph", relative to the video's folder.
      output: folder of the dataset; what is finished in it is kept.
      settings: see `ImportSettings`.
      split: name of the split.
      engine: where the work is done; None = processes of this machine.
      patience: when a video is given up.
      overwrite: remove records of other settings, of all splits, and videos that are not among
        the entries or whose files are gone, instead of raising.
      retry_quarantined: try quarantined entries again.

    Raises:
      OutputError, FolderInUse, ValueError, EngineError, OSError: see `splits.build_split`.
    """
    settings = settings or ImportSettings()
    job = Job(
        settings,
        OneByOne(functools.partial(Importer, settings)),
        functools.partial(fingerprint, version=settings.version),
        title="import",
    )
    return build_split(
        entries,
        output,
        job,
        engine=engine or LocalEngine(),
        split=split,
        patience=patience,
        overwrite=overwrite,
        retry_quarantined=retry_quarantined,
    )


def define_flags() -> None:
    """Defines the command's flags; not at import, where they would clash with other commands."""
    command.define_flags()
    flags.adopt_module_key_flags(command)  # or --help would not name them
    flags.DEFINE_string("version_ext", "", "As given to the released program: NAME_mask_v2.npz.")
    flags.DEFINE_integer("record_size", 256, "Side of stored frames and label maps.", 1)
    flags.DEFINE_integer("shard_size", 64, "Videos in a shard.", 1)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command.finish(argv, _import)


def _import() -> Summary:
    flag = flags.FLAGS
    return import_official(
        read_entries(flag.input),
        flag.output,
        ImportSettings(flag.version_ext, record_size=flag.record_size, shard_size=flag.shard_size),
        split=flag.split,
        engine=choice.chosen_engine(wants_gpu=False),
        patience=choice.chosen_patience(),
        overwrite=flag.overwrite,
        retry_quarantined=flag.retry_quarantined,
    )


if __name__ == "__main__":
    command.start(define_flags, main)
