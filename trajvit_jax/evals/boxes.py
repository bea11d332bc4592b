"""Annotated boxes of records, and given ones, as detection reads them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from trajvit_jax.data.clips import SAME
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import UnusableRecord
from trajvit_jax.evals.class_lists import check_labels
from trajvit_jax.evals.text_files import read_text


@dataclasses.dataclass(frozen=True, eq=False)
class BoxedFrame:
    """The boxes of one annotated frame of a record.

    Attributes:
      record: its id.
      video: that it is from: frames of one video are not independent.
      second: of the annotation, as the dataset counts.
      frame: number of the frame among those of the record.
      corners: one row a person: (x0, y0, x1, y1) / size; people in one box are one.
      labels: of each person.
      again: (person, label) of rows that occur once more: of several people in one box, who are
        several true boxes of that label.
    """

    record: str
    video: str
    second: float
    frame: int
    corners: Float32[np.ndarray, "n 4"]
    labels: tuple[frozenset[str], ...]
    again: tuple[tuple[int, str], ...] = ()

    def to_json(self) -> dict[str, object]:
        """As JSON has it; `from_json` reads it."""
        return dataclasses.asdict(self) | {
            "corners": self.corners.tolist(),
            "labels": [sorted(labels) for labels in self.labels],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BoxedFrame:
        """What `to_json` made."""
        return cls(
            **dict(values)
            | {
                "corners": np.array(values["corners"], np.float32).reshape(-1, 4),
                "labels": tuple(map(frozenset, values["labels"])),
                "again": tuple((person, label) for person, label in values["again"]),
            }
        )


def boxed_frames(
    record: Record, *, classes: Collection[str] | None = None
) -> tuple[BoxedFrame, ...]:
    """All annotated frames of a record, in the order of time.

    Args:
      record: with boxes.
      classes: all labels that there are; None = any.

    Raises:
      ValueError: a label that is no class.
      UnusableRecord: no boxes, a box that is empty or leaves the frame, or an annotated frame
        that is not among those of the record.
    """
    boxes = record.boxes
    if boxes is None:
        raise UnusableRecord(
            f"record {record.id!r} has no boxes; add 'boxes' to its manifest line (python -m "
            "tokenization.annotations ava) and extract again"
        )
    low, high = boxes.corners[:, :2], boxes.corners[:, 2:]
    wrong = ~((low >= 0) & (high <= 1) & (low < high)).all(1)
    if wrong.any():
        corners = np.round(boxes.corners[wrong][0], 4).tolist()
        raise UnusableRecord(
            f"record {record.id!r} has a box {corners} that is empty or leaves the frame; corners "
            "are (x0, y0, x1, y1) / size, within 0..1"
        )
    if classes is not None:  # at the first record, not after hours
        check_labels(boxes.labels, classes, f"record {record.id!r}")
    found = []
    for second in np.unique(boxes.times):
        own = np.flatnonzero(boxes.times == second)
        people: dict[tuple[float, ...], set[str]] = {}
        again: list[tuple[int, str]] = []
        for number in own:
            corners, label = tuple(boxes.corners[number].tolist()), boxes.labels[number]
            if label in people.setdefault(corners, set()):
                again.append((list(people).index(corners), label))
            people[corners].add(label)
        found.append(
            BoxedFrame(
                record.id,
                str(record.extra.get("video", record.id)),
                float(record.extra.get("second", second)),  # pyright: ignore[reportArgumentType]
                _frame_at(record, float(second)),
                np.array(list(people), np.float32),
                tuple(frozenset(labels) for labels in people.values()),
                tuple(again),
            )
        )
    return tuple(found)


def _frame_at(record: Record, second: float) -> int:
    """The frame that was annotated."""
    times = record.trajectories.frame_times
    frame = int(np.searchsorted(times, second + SAME, "right")) - 1
    fps = record.trajectories.video.fps
    if frame < 0 or second - float(times[frame]) > (1 / fps if fps else 0) + SAME:
        nearest = times[int(np.abs(times - second).argmin())]
        raise UnusableRecord(
            f"record {record.id!r} is annotated at {second:.3f} s, its nearest frame is at "
            f"{nearest:.3f} s: extract again, one annotated frame a record (python -m "
            "tokenization.annotations ava --per=keyframe)"
        )
    return frame


@dataclasses.dataclass(frozen=True, eq=False)
class GivenBoxes:
    """Boxes that a person detector found in a frame.

    Attributes:
      corners: (x0, y0, x1, y1) / size.
      scores: of the detector.
    """

    corners: Float64[np.ndarray, "n 4"]
    scores: Float64[np.ndarray, " n"]


def hash_of_file(path: str) -> str:
    """16 hexadecimal digits of what a file holds."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_given(path: str, *, least: float) -> Mapping[tuple[str, float], GivenBoxes]:
    """Reads a detector's boxes, by video and second.

    Rows are video,second,x0,y0,x1,y1,score, or with a column of actions before the score, which
    is not read: the forms in which detections on AVA are passed on.

    Args:
      path: of the csv file, without a header.
      least: score that a box has at least.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is not UTF-8, a row of another form, or a box that leaves the frame;
        the message names it. Or no box has such a score.
    """
    text = read_text(path, "--boxes names a csv file of boxes")
    found: dict[tuple[str, float], list[list[float]]] = {}
    highest = -math.inf
    for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
        try:
            if len(row) not in (7, 8):
                raise ValueError(f"{len(row)} fields")
            second, *corners = map(float, row[1:6])
            score = float(row[-1])
            x0, y0, x1, y1 = corners
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise ValueError(f"the box {corners} is empty or leaves the frame")
        except ValueError as error:
            raise ValueError(
                f"{path} line {number}: {error}; each should be like "
                "1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,,0.995"
            ) from error
        highest = max(highest, score)
        if score >= least:
            found.setdefault((row[0], second), []).append([*corners, score])
    if highest == -math.inf:
        raise ValueError(f"{path} has no box: --boxes names a csv file of boxes")
    if not found:
        raise ValueError(
            f"{path} has no box with a score of {least:g} or more, the highest is {highest:g}; "
            "lower --box-score"
        )
    return {
        key: GivenBoxes(np.array(rows)[:, :4], np.array(rows)[:, 4]) for key, rows in found.items()
    }
