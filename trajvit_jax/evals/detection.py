r"""Spatio-temporal action detection: what is the person in this box doing? (paper, section 4.1)

Frame mAP at IoU 0.5 by AVA's evaluation, of all pairs of box and action; with --most-pairs=50 of
those that ActivityNet's program reads, the 50 of the highest scores of a frame. The frozen tokens
of a box (`regions`: trajectories with 80% of their mask inside, RoIAlign for the others) go through
an attention-pooling head that is trained on the boxes of the training split, with a sigmoid for
each action.

  python -m trajvit_jax.evals.detection --workdir=runs/panda4m --records=data/ava \
      --config=configs/eval/ava.py --classes=ava_action_list_v2.2_for_activitynet_2019.pbtxt
  python -m trajvit_jax.evals.detection --workdir=runs/panda4m --records=data/ava \
      --boxes=ava_detection_val_boxes_and_labels.csv

Records are clips around one annotated frame each, with `boxes` (python -m tokenization.annotations
ava --per=keyframe); that frame is always among the sampled ones. Tested are the annotated boxes,
or with --boxes those that a person detector found. A box in which no trajectory lies is no
detection: it counts as missed.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import DetectionSettings, RegionSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("detection", __doc__, DetectionSettings)

import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord, UnusableRecord, read_record
from trajvit_jax.evals import command, token_store
from trajvit_jax.evals.boxes import (
    BoxedFrame,
    GivenBoxes,
    boxed_frames,
    hash_of_file,
    read_given,
)
from trajvit_jax.evals.class_lists import check_labels, read_classes
from trajvit_jax.evals.embedding import Embedder, do_nothing, tell_bad
from trajvit_jax.evals.frame_map import (
    Detections,
    Truth,
    match,
    mean_average_precision,
    strongest,
)
from trajvit_jax.evals.probing import HeadSettings, head_settings, score_samples, train_head
from trajvit_jax.evals.protocol import Job, Protocol
from trajvit_jax.evals.regions import box_tokens, way_of, width_of
from trajvit_jax.evals.results import Measured, Metric
from trajvit_jax.evals.token_store import Features, Store
from trajvit_jax.failures import ComesAgain
from trajvit_jax.models.settings import ModelSettings

Given = Mapping[tuple[str, float], GivenBoxes]
_PAPER, _HEAD = RegionSettings(), HeadSettings(multi_label=True)


@dataclasses.dataclass(frozen=True, eq=False)
class BoxedFeatures:
    """Annotated frames, and the tokens of boxes in them.

    Attributes:
      frames: all annotated ones.
      frame: number of the frame of each box.
      corners: of each box.
      person: which of its frame's annotated boxes it is; -1 = a given one.
      tokens: a sample a box; some have none.
      bad: records that could not be used.
    """

    frames: tuple[BoxedFrame, ...]
    frame: Int64[np.ndarray, " n"]
    corners: Float32[np.ndarray, "n 4"]
    person: Int64[np.ndarray, " n"]
    tokens: Features
    bad: tuple[BadRecord, ...] = ()

    @property
    def full(self) -> Int64[np.ndarray, " _"]:
        """Numbers of the boxes that have tokens."""
        return np.flatnonzero(self.tokens.lengths)

    @property
    def labels(self) -> set[str]:
        """All that occur."""
        return {label for frame in self.frames for own in frame.labels for label in own}

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
        return self.tokens.with_tokens()

    def classes(self, names: Sequence[str]) -> Bool[np.ndarray, "n c"]:
        """What each annotated box is labelled with."""
        rows = [
            [name in self.frames[frame].labels[person] for name in names]
            for frame, person in zip(self.frame, self.person, strict=True)
        ]
        return np.array(rows, bool).reshape(len(self.frame), len(names))

    def truth(self, names: Sequence[str]) -> Truth:
        """All annotated boxes, tokens or not; several people in one box as AVA counts rows."""
        rows = [
            (number, frame.corners[person], own)
            for number, frame in enumerate(self.frames)
            for person, own in [
                *enumerate(frame.labels),
                *((person, {label}) for person, label in frame.again),
            ]
        ]
        return Truth(
            np.array([number for number, _, _ in rows], np.int64),
            np.array([corners for _, corners, _ in rows], np.float32).reshape(-1, 4),
            np.array([[name in own for name in names] for _, _, own in rows], bool).reshape(
                -1, len(names)
            ),
        )


def box_features(
    embedder: Embedder,
    source: Sequence[Record],
    settings: RegionSettings = _PAPER,
    *,
    given: Given | None = None,
    classes: Collection[str] | None = None,
    folder: str | os.PathLike[str] = "",
    about: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> BoxedFeatures:
    """The tokens of all boxes of all records that can be used.

    Args:
      embedder: with the model.
      source: records with boxes.
      settings: how tokens are found.
      given: boxes in place of the annotated ones, by video and second; frames that have none are
        frames without detections.
      classes: all labels that there are; None = any.
      folder: keeps them, as in `frozen_tokens`; '' = they stay in memory.
      about: what they depend on besides, as JSON.
      dtype: in which they are kept.

    Raises:
      ValueError: a label that is no class, more than a tenth of the records that cannot be used,
        tokens that need more room than there is, or a folder with features of something else.
      OSError: the storage cannot be read or written.
    """
    # Changed whenever frames are kept in another form: older ones are then told, not read.
    form = {"dtype": dtype, "form": 2}
    about = dict(about or {}) | dataclasses.asdict(settings) | form
    found = token_store.read(folder, about) if folder else None
    if found is None:
        found = _computed(embedder, source, settings, given, classes, folder, about)
    tokens, notes = found
    frames = tuple(map(BoxedFrame.from_json, notes["frames"]))
    if classes is not None:
        learned = sorted({label for one in frames for own in one.labels for label in own})
        check_labels(learned, classes, str(folder) or repr(source))
    return BoxedFeatures(
        frames,
        np.array(notes["frame"], np.int64),
        np.array(notes["corners"], np.float32).reshape(-1, 4),
        np.array(notes["person"], np.int64),
        tokens,
        tuple(BadRecord(**one) for one in notes["bad"]),
    )


def _computed(
    embedder: Embedder,
    source: Sequence[Record],
    settings: RegionSettings,
    given: Given | None,
    classes: Collection[str] | None,
    folder: str | os.PathLike[str],
    about: Mapping[str, Any],
) -> tuple[Features, dict[str, list[Any]]]:
    """Tokens, and as JSON which boxes they are of."""
    if given is not None:
        check_given(source, given)
    keep = functools.partial(boxed_frames, classes=classes)
    frames: list[BoxedFrame] = []
    notes: dict[str, list[Any]] = {"frame": [], "corners": [], "person": []}
    bad: list[BadRecord] = []
    width = width_of(embedder.model.settings)
    with Store(width, len(source), folder=folder, dtype=about["dtype"]).open() as store:
        done = 0
        for videos in embedder.batches(source, keep, name="tokens of boxes"):
            bad += [one for one in videos.bad if one is not None]
            asked: list[list[tuple[BoxedFrame, np.ndarray]]] = []
            for own in videos.kept:
                asked.append([])
                for frame in own or ():
                    boxes = frame.corners if given is None else _given(frame, given)
                    for person, box in enumerate(boxes):
                        asked[-1].append((frame, box))
                        notes["frame"].append(len(frames))
                        notes["person"].append(person if given is None else -1)
                        notes["corners"].append(np.asarray(box, np.float32).tolist())
                    frames.append(frame)
            done += videos.count
            found = box_tokens(embedder, videos, asked, settings)
            store.add([one for video in found for one in video], done=done)
        tell_bad(bad, len(source))
    notes["frames"] = [frame.to_json() for frame in frames]
    notes["bad"] = [dataclasses.asdict(one) for one in bad]
    return store.kept(about, notes), notes


def check_given(source: Sequence[Record], given: Given) -> None:
    """Raises ComesAgain if no annotated frame has given boxes: reads records until one has."""
    annotated: list[tuple[str, float]] = []
    for number in range(len(source)):
        try:
            frames = boxed_frames(read_record(source, number))
        except UnusableRecord:  # is told where it is left out
            continue
        annotated += [(frame.video, frame.second) for frame in frames]
        if not given.keys().isdisjoint(annotated[-len(frames) :]):
            return
    if not annotated:  # which all of the records tell later
        return
    raise ComesAgain(
        f"none of {len(given)} frames with given boxes is among the {len(annotated)} annotated "
        f"ones; the first is {next(iter(given))}, the first annotated one {annotated[0]}: videos "
        "and seconds must be the dataset's"
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
    most: int = 0,
    between: Callable[[], None] = do_nothing,
) -> Measured:
    """Trains a head on boxes and measures what it says of others.

    Args:
      train: annotated boxes.
      test: annotated or given boxes.
      head: settings of it.
      classes: actions that count; None = those of `train`.
      iou: overlap that a right detection has, at least.
      most: pairs of box and action of a frame that count, those of the highest scores; 0 = all.
      between: called after each step of the head.

    Raises:
      ValueError: a label that is no class, or no box with tokens.
      FloatingPointError: a loss that is not finite.
    """
    names = sorted(train.labels) if classes is None else list(classes)
    check_labels(sorted(train.labels), names, "training split")
    check_labels(sorted(test.labels), names, "test split")
    targets = train.classes(names)[train.full].astype(np.float32)
    model = train_head(train.features(), targets, len(names), head, between=between)
    scores = np.full((len(test.tokens), len(names)), np.nan)
    scores[test.full] = score_samples(model, test.features(), size=head.size)
    detections = strongest(Detections(test.frame, test.corners, scores), most)
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
        "pairs of box and action that count": f"{most} a frame" if most else "all",
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
    if given is not None:
        check_given(test, given)
    learned = box_features(embedder, train, regions, classes=classes)
    names = sorted(learned.labels) if classes is None else classes
    asked = box_features(embedder, test, regions, given=given, classes=names)
    yield from detect(learned, asked, head, classes=names).values()


def _wants(settings: DetectionSettings) -> Callable[[Record], Any]:
    classes = frozenset(read_classes(settings.classes)) if settings.classes else None
    return functools.partial(boxed_frames, classes=classes)


def _check(settings: DetectionSettings, model: ModelSettings) -> None:
    _head(settings, model)
    if settings.boxes:
        read_given(settings.boxes, least=settings.box_score)


def _head(own: DetectionSettings, model: ModelSettings) -> HeadSettings:
    return head_settings(
        own,
        size=own.boxes_a_step,
        width=width_of(model),
        heads=model.encoder.heads,
        multi_label=True,
    )


def _measure(job: Job[DetectionSettings]) -> Measured:
    own, model = job.settings, job.loaded.model.settings
    given = read_given(own.boxes, least=own.box_score) if own.boxes else None
    classes = list(read_classes(own.classes)) if own.classes else None
    head = _head(own, model)

    def of(split: str, classes: list[str] | None, given: Given | None = None) -> BoxedFeatures:
        about = job.about(split) if own.features else {}
        if given is not None:
            about["boxes"] = [hash_of_file(own.boxes), own.box_score]
        return box_features(
            job.embedder,
            job.open(split),
            own.regions(),
            given=given,
            classes=classes,
            folder=f"{own.features}/{split}" if own.features else "",
            about=about,
            dtype=own.feature_dtype,
        )

    if given is not None:  # before hours of training boxes
        check_given(job.open(own.split), given)
    train = of(own.train_split, classes)
    classes = sorted(train.labels) if classes is None else classes
    test = of(own.split, classes, given)
    measured = detect(
        train,
        test,
        head,
        classes=classes,
        iou=own.iou,
        most=own.most_pairs,
        between=job.between,
    )
    notes = {
        "boxes from": own.boxes or "annotations",
        "tokens by": way_of(model),
        "token width": width_of(model),
        "training records that are missing": job.absent(own.train_split),
    }
    if given is not None:
        # AVA's program counts their boxes as false positives; of other frames there is no record.
        annotated = {(frame.video, frame.second) for frame in test.frames}
        notes["given frames that are not annotated"] = len(given.keys() - annotated)
    return dataclasses.replace(measured, notes=notes | dict(measured.notes))


PROTOCOL = Protocol("detection", __doc__ or "", DetectionSettings, _measure, _wants, _check)

if __name__ == "__main__":
    command.run(PROTOCOL)
