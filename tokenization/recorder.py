"""One entry of a manifest -> the bytes of its record, or the reason why there is none."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging

from tokenization import shards, video
from tokenization.engines.crew import DIED, LATE
from tokenization.engines.protocol import WorkerUnfit
from tokenization.files import printable
from tokenization.manifest import Entry
from tokenization.pipeline import PipelineSettings
from tokenization.records import Boxes, Quarantined, Record
from tokenization.trajectories import Trajectories
from trajvit_jax import config as configs

_RETRY_AFTER = (1.0, 10.0)  # seconds, of storage that failed


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


def read_settings(noted: Mapping[str, Any]) -> ExtractSettings:
    """Settings as they were noted beside records, or beside a model that learned from such.

    What a note says nothing of is as it was before there was such a setting: labels were followed
    from the first frame alone.

    Raises:
      ValueError: a key that is no setting, or a value out of its range.
    """
    cut = {"discover": False, **noted.get("pipeline", {})}
    return configs.to_settings(ExtractSettings, {**noted, "pipeline": cut}, "tokenization")


class Tokenizer(Protocol):
    """What `pipeline.build` returns."""

    def tokenize(self, frames: video.Frames) -> Trajectories:
        """Trajectories of the frames."""
        ...


@runtime_checkable
class BatchTokenizer(Protocol):
    """A tokenizer for which several videos at once are less work than one by one."""

    def tokenize_batch(self, videos: Sequence[video.Frames]) -> list[Trajectories]:
        """Trajectories of each."""
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
      damaged: frames of the video, see `video.Frames`.
      quarantined: why there is no record, or None.
    """

    id: str
    seconds: float = 0.0
    data: bytes = b""
    trajectories: int = 0
    frames: int = 0
    repeated: bool = False
    damaged: int = 0
    quarantined: Quarantined | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """A record, and what is to be told of the video that it is made of.

    Attributes:
      record: of the video.
      repeated: the video is short and repeats its last frame.
      damaged: frames of the video, see `video.Frames`.
    """

    record: Record
    repeated: bool
    damaged: int

    @classmethod
    def of(cls, record: Record, frames: video.Frames) -> Made:
        """Of the frames only what is to be told: they are let go."""
        return cls(record, frames.repeated > 0, frames.damaged)


def attempt(entry: Entry, process: Callable[[Entry], Made]) -> Outcome:
    """The outcome of an entry; whatever is wrong with the entry never raises.

    Args:
      entry: to be done.
      process: gives its record.

    Raises:
      WorkerUnfit: this process is at fault: memory ran out, or as `process` raises it.
    """
    begin = time.perf_counter()
    try:
        if entry.problem is not None:
            raise video.VideoError(
                entry.path, entry.problem, "correct the manifest, or rename the file"
            )
        made = process(entry)
        outcome = Outcome(
            entry.id,
            data=shards.serialize(made.record),
            trajectories=len(made.record.trajectories),
            frames=len(made.record.frames),
            repeated=made.repeated,
            damaged=made.damaged,
        )
    except video.VideoError as error:
        outcome = _bad(entry, error.reason, error.remedy)
    except WorkerUnfit:
        raise
    except MemoryError as error:
        raise WorkerUnfit(f"memory ran out ({error})") from error
    except OSError as error:  # it has been tried again where that could help
        logging.exception("%s", entry.path)
        reason = f"cannot be read ({error.strerror or error})"
        outcome = _bad(entry, reason, "check its path and the disk")
    except Exception as error:  # one bad video never stops a run
        logging.exception("%s", entry.path)
        outcome = _bad(entry, f"{type(error).__name__}: {error}", "report this video if it plays")
    return dataclasses.replace(outcome, seconds=time.perf_counter() - begin)


class Recorder:
    """Decodes and tokenizes entries; one a process.

    Entries that go through the tokenizer together are decoded `ahead`, while those before them are
    in the tokenizer: a GPU need not wait for them. Single ones are not, as of two videos that are
    in work nobody could tell which one killed the process. Records of a group are made side by
    side, but before the next group is tokenized: a second worker on the GPU fills that gap.
    """

    def __init__(
        self, settings: ExtractSettings, build: Callable[[PipelineSettings], Tokenizer]
    ) -> None:
        self._settings = settings
        self._tokenizer = build(settings.pipeline)
        shards.serializer(settings.record_size)
        self._decoding: dict[tuple[str, ...], dict[str, Future[video.Frames]]] = {}

    def one(self, entry: Entry) -> Outcome:
        """See `attempt`."""
        return attempt(entry, self._process)

    def ahead(self, entries: Sequence[Entry]) -> None:
        """Begins to decode entries that will come, if they go through the tokenizer at once."""
        if len(entries) > 1 and isinstance(self._tokenizer, BatchTokenizer):
            threads = ThreadPoolExecutor(len(entries), "decode")
            self._decoding[_ids(entries)] = {
                entry.id: threads.submit(self._decode, entry)
                for entry in entries
                if entry.problem is None
            }
            threads.shutdown(wait=False)  # its threads end with their work

    def __call__(self, entries: Sequence[Entry]) -> list[Outcome]:
        """The outcome of each, which all go through the tokenizer at once if it can do that."""
        begin = time.perf_counter()
        decoded = self._decode_together(entries) if len(entries) > 1 else {}
        ready = self._tokenize_together(decoded)

        def record(entry: Entry) -> Made:
            return self._record(entry, decoded[entry.id].result(), ready[entry.id])

        def alone(entry: Entry) -> Made:
            return self._process(entry, decoded.get(entry.id))

        # Nothing here holds Python's lock for long, and the device waits until it is done.
        with ThreadPoolExecutor(len(entries), "record") as threads:
            made = {
                entry.id: threads.submit(attempt, entry, record)
                for entry in entries
                if entry.id in ready
            }
        # Side by side they wait for each other: what each took is no processing time.
        share = (time.perf_counter() - begin) / len(entries)
        outcomes = [
            dataclasses.replace(made[entry.id].result(), seconds=0.0)
            if entry.id in made
            else attempt(entry, alone)
            for entry in entries
        ]
        return [dataclasses.replace(one, seconds=one.seconds + share) for one in outcomes]

    def _decode_together(self, entries: Sequence[Entry]) -> dict[str, Future[video.Frames]]:
        """By id, the frames of each, or what was wrong; none for a tokenizer of single videos."""
        if _ids(entries) not in self._decoding:
            self.ahead(entries)
        decoded = self._decoding.pop(_ids(entries), {})
        wait(decoded.values())
        return decoded

    def _tokenize_together(
        self, decoded: Mapping[str, Future[video.Frames]]
    ) -> dict[str, Trajectories]:
        """By id, what went well; the rest is for `_process`, which tells what is wrong."""
        frames = {name: one.result() for name, one in decoded.items() if one.exception() is None}
        if not frames or not isinstance(self._tokenizer, BatchTokenizer):
            return {}
        try:
            found = self._tokenizer.tokenize_batch(list(frames.values()))
        except (WorkerUnfit, MemoryError):
            raise
        except Exception:
            logging.exception("%d videos at once failed; they go one by one", len(frames))
            return {}
        return dict(zip(frames, found, strict=True))

    def _decode(self, entry: Entry) -> video.Frames:
        """Its frames; what storage may give later is tried again."""
        for seconds in _RETRY_AFTER:
            try:
                return self._decode_once(entry)
            except (video.StorageError, OSError) as error:
                logging.warning("%s; trying again in %g s", error, seconds)
                time.sleep(seconds)
        return self._decode_once(entry)

    def _decode_once(self, entry: Entry) -> video.Frames:
        if entry.extra.get("boxes") and "frame_times" in entry.extra:
            raise video.VideoError(
                entry.path,
                "has boxes at seconds of the video that it is a copy of, at another rate",
                "give it to python -m tokenization.import_official",
            )
        return video.decode(
            entry.path,
            frames=self._settings.pipeline.frames,
            between=self._settings.pipeline.between,
            start=entry.start,
            end=entry.end,
            annotated=_annotated_seconds(entry),
            video_id=entry.id,
            max_side=self._settings.pipeline.max_side,
            threads=1,
        )

    def _process(self, entry: Entry, decoded: Future[video.Frames] | None = None) -> Made:
        """Alone; what was decoded beside others is not again, unless memory was too small for all.

        Storage that failed has had its time by then.
        """
        if decoded is None or isinstance(decoded.exception(), MemoryError):
            frames = self._decode(entry)
        else:
            frames = decoded.result()
        return self._record(entry, frames, self._tokenizer.tokenize(frames))

    def _record(self, entry: Entry, frames: video.Frames, trajectories: Trajectories) -> Made:
        return Made.of(annotated(entry, trajectories, frames, self._settings.record_size), frames)


def _ids(entries: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(entry.id for entry in entries)


def annotated(entry: Entry, trajectories: Trajectories, frames: video.Frames, size: int) -> Record:
    """The record of a video, with what its entry says of it.

    Raises:
      VideoError: boxes of another form than `read_boxes` takes.
    """
    extra = dict(entry.extra)
    try:
        boxes = read_boxes(extra.pop("boxes", None))
    except ValueError as error:
        raise video.VideoError(entry.path, str(error), "correct the manifest") from error
    return Record.squash(
        trajectories,
        frames.rgb,
        size=size,
        captions=entry.captions,
        label=entry.label,
        boxes=boxes,
        extra=extra,
    )


def _annotated_seconds(entry: Entry) -> list[float]:
    """When the entry has boxes, if they can be read: `read_boxes` tells where they cannot."""
    try:
        boxes = read_boxes(entry.extra.get("boxes"))
    except ValueError:
        return []
    return [] if boxes is None else np.unique(boxes.times).tolist()


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


def gave_up(entry: Entry, troubles: tuple[str, ...]) -> Outcome:
    """The outcome of an entry that no worker could finish; `troubles` are those of its tries."""
    counted = collections.Counter(troubles)
    reason = "; ".join(f"{what} ({times}x)" for what, times in counted.items())
    remedies = {
        DIED: "memory ran out, or a library crashed: use fewer --workers, or convert the video",
        LATE: "raise --time_limit, or convert the video",
    }
    return _bad(entry, reason, "; ".join(remedies[what] for what in counted))
