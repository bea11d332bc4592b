r"""Spatio-temporal action detection: what is the person in this box doing? (paper, section 4.1)

Frame mAP at IoU 0.5 by AVA's evaluation. The frozen tokens of a box (`regions`: trajectories with
80% of their mask inside, RoIAlign for the others) go through an attention-pooling head that is
trained on the boxes of the training split, with a sigmoid for each action.

  python -m trajvit_jax.evals.detection --workdir=runs/panda4m --records=data/ava \
      --config=configs/eval/ava.py --classes=ava_actions.txt
  python -m trajvit_jax.evals.detection --workdir=runs/panda4m --records=data/ava \
      --boxes=ava_detection_val_boxes_and_labels.csv

Records are clips around one annotated frame each, with `boxes` (python -m tokenization.annotations
ava --per=keyframe); that frame is always among the sampled ones. Tested are the annotated boxes,
or with --boxes those that a person detector found. A box in which no trajectory lies is no
detection: it counts as missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from trajvit_jax.config import require_positive
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.evals import command
from trajvit_jax.evals.boxes import BoxedFrame, GivenBoxes, boxed_frames, read_given
from trajvit_jax.evals.embedding import Embedder, tell_bad
from trajvit_jax.evals.features import Features
from trajvit_jax.evals.frame_map import Detections, Truth, match, mean_average_precision
from trajvit_jax.evals.probing import HeadSettings, score_samples, train_head
from trajvit_jax.evals.prompts import check_labels, read_classes
from trajvit_jax.evals.regions import RegionSettings, box_tokens, way_of, width_of
from trajvit_jax.evals.results import Measured, Metric

Given = Mapping[tuple[str, float], GivenBoxes]
_PAPER, _HEAD = RegionSettings(), HeadSettings(multi_label=True)


@dataclasses.dataclass(frozen=True)
class DetectionSettings(command.CommonSettings):
    """How detection is measured.

    Attributes:
      train_split: of the records to train the head on.
      classes: file of the actions that count, one a line (AVA: 60); '' = all that occur in the
        training split.
      boxes: csv of a person detector's boxes, video,second,x0,y0,x1,y1,,score; '' = the annotated
        ones.
      box_score: score that a given box has at least.
      inside: part of a trajectory's mask that is inside the box, at least.
      size: cells a side that RoIAlign makes of a box, for other tokenizations.
      iou: overlap that a right detection has with the true box, at least.
      epochs: over the training boxes.
      learning_rate: of AdamW, the same for all steps.
      weight_decay: of AdamW.
      boxes_a_step: of training.
      heads: of the attention pooling; 0 = as many as the encoder has.
    """

    train_split: str = "train"
    classes: str = ""
    boxes: str = ""
    box_score: float = 0.8
    inside: float = 0.8
    size: int = 7
    iou: float = 0.5
    epochs: int = 12
    learning_rate: float = 1e-4
    weight_decay: float = 0.5
    boxes_a_step: int = 128
    heads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "boxes_a_step")
        if not 0 < self.iou <= 1:
            raise ValueError(f"--iou={self.iou} must be within 0..1, and above 0")
        self.regions()

    def regions(self) -> RegionSettings:
        """Of the boxes' tokens."""
        return RegionSettings(self.inside, self.size)

    def head(self, heads: int) -> HeadSettings:
        """Of the head; `heads` are the encoder's."""
        return HeadSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            size=self.boxes_a_step,
            heads=self.heads or heads,
            seed=self.seed,
            multi_label=True,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class BoxedFeatures:
    """Annotated frames, and the tokens of boxes in them.

    Attributes:
      frames: all annotated ones.
      frame: number of the frame of each box.
      corners: of each box.
      person: which of its frame's annotated boxes it is; -1 = a given one.
      tokens: of each box; some have none.
      bad: records that could not be used.
    """

    frames: tuple[BoxedFrame, ...]
    frame: Int64[np.ndarray, " n"]
    corners: Float32[np.ndarray, "n 4"]
    person: Int64[np.ndarray, " n"]
    tokens: tuple[Float32[np.ndarray, "_ d"], ...]
    bad: tuple[BadRecord, ...] = ()

    @property
    def full(self) -> Int64[np.ndarray, " _"]:
        """Numbers of the boxes that have tokens."""
        return np.flatnonzero([len(tokens) > 0 for tokens in self.tokens])

    def features(self) -> Features:
        """Of the boxes that have tokens.

        Raises:
          ValueError: none has.
        """
        if not len(self.full):
            raise ValueError(
                f"none of {len(self.tokens)} boxes holds a trajectory; lower --inside, or look at "
                "the records with python -m tokenization.explore"
            )
        return Features.of([self.tokens[number] for number in self.full])

    def classes(self, names: Sequence[str]) -> Bool[np.ndarray, "n c"]:
        """What each annotated box is labelled with."""
        rows = [
            [name in self.frames[frame].labels[person] for name in names]
            for frame, person in zip(self.frame, self.person, strict=True)
        ]
        return np.array(rows, bool).reshape(len(self.frame), len(names))

    def truth(self, names: Sequence[str]) -> Truth:
        """All annotated boxes, tokens or not."""
        counts = [len(frame.corners) for frame in self.frames]
        return Truth(
            np.repeat(np.arange(len(self.frames)), counts),
            np.concatenate([frame.corners for frame in self.frames]),
            np.array(
                [[name in own for name in names] for one in self.frames for own in one.labels], bool
            ).reshape(-1, len(names)),
        )


def box_features(
    embedder: Embedder,
    source: Sequence[Record],
    settings: RegionSettings = _PAPER,
    *,
    given: Given | None = None,
) -> BoxedFeatures:
    """The tokens of all boxes of all records that can be used.

    Args:
      embedder: with the model.
      source: records with boxes.
      settings: how tokens are found.
      given: boxes in place of the annotated ones, by video and second; frames that have none are
        frames without detections.

    Raises:
      ValueError: more than a tenth of the records cannot be used.
      OSError: the storage cannot be read.
    """
    frames: list[BoxedFrame] = []
    numbers: list[int] = []
    persons: list[int] = []
    corners: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    bad: list[BadRecord] = []
    for videos in embedder.batches(source, boxed_frames, name="tokens of boxes"):
        bad += [one for one in videos.bad if one is not None]
        asked: list[list[tuple[BoxedFrame, np.ndarray]]] = []
        for own in videos.kept:
            asked.append([])
            for frame in own or ():
                number = len(frames)
                frames.append(frame)
                boxes = frame.corners if given is None else _given(frame, given)
                for person, box in enumerate(boxes):
                    asked[-1].append((frame, box))
                    numbers.append(number)
                    persons.append(person if given is None else -1)
                    corners.append(box)
        tokens += [one for video in box_tokens(embedder, videos, asked, settings) for one in video]
    tell_bad(bad, len(source))
    if given is not None and not numbers:
        first, own = next(iter(given), None), frames[0] if frames else None
        raise ValueError(
            f"none of {len(given)} frames with given boxes is among the {len(frames)} annotated "
            f"ones; the first is {first}, the first annotated one "
            f"{own and (own.video, own.second)}: videos and seconds must be the dataset's"
        )
    return BoxedFeatures(
        tuple(frames),
        np.array(numbers, np.int64),
        np.array(corners, np.float32).reshape(-1, 4),
        np.array(persons, np.int64),
        tuple(tokens),
        tuple(bad),
    )


def _given(frame: BoxedFrame, given: Given) -> Float[np.ndarray, "n 4"]:
    key = (frame.video, frame.second)
    return given[key].corners if key in given else np.zeros((0, 4))


def detect(
    train: BoxedFeatures,
    test: BoxedFeatures,
    head: HeadSettings,
    *,
    classes: Sequence[str] | None = None,
    iou: float = 0.5,
) -> Measured:
    """Trains a head on boxes and measures what it says of others.

    Args:
      train: annotated boxes.
      test: annotated or given boxes.
      head: settings of it.
      classes: actions that count; None = those of `train`.
      iou: overlap that a right detection has, at least.

    Raises:
      ValueError: a label that is no class, or no box with tokens.
      FloatingPointError: a loss that is not finite.
    """
    learned = [label for frame in train.frames for own in frame.labels for label in own]
    asked = [label for frame in test.frames for own in frame.labels for label in own]
    names = sorted(set(learned)) if classes is None else list(classes)
    check_labels(learned, names, "training split")
    check_labels(asked, names, "test split")
    targets = train.classes(names)[train.full].astype(np.float32)
    model = train_head(train.features(), targets, len(names), head)
    scores = np.full((len(test.tokens), len(names)), np.nan)
    scores[test.full] = score_samples(model, test.features(), size=head.size)
    detections = Detections(test.frame, test.corners, scores)
    count = len(test.frames)
    matched = match(detections, test.truth(names), frames=count, iou=iou)
    # Frames of one video are not independent: videos are drawn.
    videos, video_of = np.unique([frame.video for frame in test.frames], return_inverse=True)

    def of_videos(drawn: np.ndarray) -> float:
        weights = np.bincount(drawn, minlength=len(videos)).astype(np.float64)
        return 100 * mean_average_precision(matched, weights[video_of])

    each = [one.average_precision() for one in matched]
    value = 100 * mean_average_precision(matched)
    notes = {
        "frames": count,
        "boxes": len(test.tokens),
        "boxes without a token": len(test.tokens) - len(test.full),
        "frames without a box": count - len(np.unique(test.frame)),
        "training records left out": len({one.id for one in train.bad}),
        "training boxes": len(train.full),
        "training boxes without a token": len(train.tokens) - len(train.full),
        "classes": len(names),
        "classes with a box": sum(not np.isnan(one) for one in each),
        "average precision": {
            name: round(100 * one, 2) for name, one in zip(names, each, strict=True) if one == one
        },
    }
    return Measured([Metric("map", value, len(videos), of_videos)], count, test.bad, notes)


def evaluate(
    embedder: Embedder,
    train: Sequence[Record],
    test: Sequence[Record],
    head: HeadSettings = _HEAD,
    regions: RegionSettings = _PAPER,
    *,
    classes: Sequence[str] | None = None,
    given: Given | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): the mAP in percent. Args and errors: `box_features` and `detect`."""
    learned = box_features(embedder, train, regions)
    asked = box_features(embedder, test, regions, given=given)
    yield from detect(learned, asked, head, classes=classes).values()


def _measure(job: command.Job[DetectionSettings]) -> Measured:
    own, model = job.settings, job.loaded.model.settings
    given = read_given(own.boxes, least=own.box_score) if own.boxes else None
    classes = list(read_classes(own.classes)) if own.classes else None
    train = box_features(job.embedder, job.open(own.train_split), own.regions())
    test = box_features(job.embedder, job.open(own.split), own.regions(), given=given)
    head = own.head(model.encoder.heads)
    measured = detect(train, test, head, classes=classes, iou=own.iou)
    notes = {
        "boxes from": own.boxes or "annotations",
        "tokens by": way_of(model),
        "token width": width_of(model),
    }
    return dataclasses.replace(measured, notes=notes | dict(measured.notes))


PROTOCOL = command.Protocol("detection", __doc__ or "", DetectionSettings, _measure)

if __name__ == "__main__":
    command.run(PROTOCOL)
