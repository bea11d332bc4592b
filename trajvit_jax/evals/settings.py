"""What every protocol can be told. No JAX here: --help is answered before that is imported."""

from __future__ import annotations

import dataclasses

from trajvit_jax.config import require_positive
from trajvit_jax.models.settings import check_choice

CAPTIONS = ("all", "first", "paragraph")
ENSEMBLES = ("mean", "unit")
DTYPES = ("float32", "float16")  # of kept features


@dataclasses.dataclass(frozen=True)
class CommonSettings:
    """What every protocol can be told.

    Attributes:
      dataset: name of the data in the paper's tables; '' = the name of the records' folder.
      split: of the records to evaluate on.
      frames: that the model reads of a video; 0 = as many as it was trained with. Records with
        more give some of theirs.
      batch: videos at once.
      draws: of the bootstrap that gives intervals; 0 = none.
      seed: of what is drawn.
    """

    dataset: str = ""
    split: str = "test"
    frames: int = 0
    batch: int = 64
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "batch")
        for name in ("frames", "draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}={getattr(self, name)} must be at least 0")


@dataclasses.dataclass(frozen=True)
class RetrievalSettings(CommonSettings):
    """How retrieval is measured.

    Attributes:
      captions: of a video: 'all' of them, one by one; 'first'; or 'paragraph', all in one.
      dual_softmax: temperature of the dual softmax, which sees all queries at once; names of
        metrics then say so. 0 = none, as in the paper.
    """

    captions: str = "all"
    dual_softmax: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("captions", self.captions, CAPTIONS)
        if not 0 <= self.dual_softmax < float("inf"):
            raise ValueError(f"--dual-softmax={self.dual_softmax} must be a temperature, or 0")


@dataclasses.dataclass(frozen=True)
class ClassificationSettings(CommonSettings):
    """How zero-shot classification is measured.

    Attributes:
      classes: list of all classes as the dataset publishes it, or one a line: LABEL, or
        LABEL<TAB>NAME; '' = the labels that occur in the records.
      prompts: 'kinetics', 'ucf101', 'imagenet', 'actionclip', 'none' (the name alone), or a file
        of sentences with {} for the class.
      ensemble: of the sentences' unit vectors: 'mean' (released program) or 'unit', the mean
        normalized again (CLIP).
      views: of each record, whose similarities are averaged.
    """

    classes: str = ""
    prompts: str = "kinetics"
    ensemble: str = "mean"
    views: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ensemble", self.ensemble, ENSEMBLES)
        require_positive(self, "views")


@dataclasses.dataclass(frozen=True)
class TrainedHeadSettings(CommonSettings):
    """What a protocol can be told whose head learns from frozen tokens.

    Attributes:
      train_split: of the records to train the head on.
      classes: list of all classes as the dataset publishes it, or one a line; '' = the labels
        that occur in the records.
      epochs: over the training samples.
      learning_rate: of AdamW, the same for all steps.
      weight_decay: of AdamW.
      heads: of the attention pooling; 0 = as many as the encoder has.
      features: folder that keeps the tokens for other heads; '' = they stay in memory.
      feature_dtype: 'float32', or 'float16' for half of the space.
    """

    train_split: str = "train"
    classes: str = ""
    epochs: int = 12
    learning_rate: float = 1e-4
    weight_decay: float = 0.5
    heads: int = 0
    features: str = ""
    feature_dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs")
        if self.train_split == self.split:
            raise ValueError(
                f"--train-split={self.train_split} is the split that is measured: the head would "
                "be asked what it has learned from"
            )
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"--learning-rate={self.learning_rate} must be above 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"--weight-decay={self.weight_decay} must be at least 0")
        if self.heads < 0:
            raise ValueError(f"--heads={self.heads} must be at least 0, which is the encoder's")
        check_choice("feature_dtype", self.feature_dtype, DTYPES)


@dataclasses.dataclass(frozen=True)
class ProbingSettings(TrainedHeadSettings):
    """How probing is measured.

    Attributes:
      views: of each video: parts of it that follow one another.
      size: videos of a training step.
    """

    views: int = 4
    size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "views", "size")


@dataclasses.dataclass(frozen=True)
class RegionSettings:
    """How tokens are found for a box.

    Attributes:
      inside: part of a trajectory's mask that is inside the box, at least.
      size: cells a side that RoIAlign makes of a box.
    """

    inside: float = 0.8
    size: int = 7

    def __post_init__(self) -> None:
        if not 0 < self.inside <= 1 or self.size < 1:
            raise ValueError(
                f"inside={self.inside} must be within 0..1 and above 0, size={self.size} at least 1"
            )


@dataclasses.dataclass(frozen=True)
class DetectionSettings(TrainedHeadSettings):
    """How detection is measured.

    Attributes:
      classes: list of the actions that count, one a line, or AVA's .pbtxt of 60; '' = all that
        occur in the training split.
      boxes: csv of a person detector's boxes, video,second,x0,y0,x1,y1,,score; '' = the annotated
        ones.
      box_score: score that a given box has at least.
      inside: part of a trajectory's mask that is inside the box, at least.
      size: cells a side that RoIAlign makes of a box, for other tokenizations.
      iou: overlap that a right detection has with the true box, at least.
      most_pairs: pairs of box and action of a frame that count, those of the highest scores;
        ActivityNet's program reads 50. 0 = all.
      boxes_a_step: of training.
    """

    boxes: str = ""
    box_score: float = 0.8
    inside: float = 0.8
    size: int = 7
    iou: float = 0.5
    most_pairs: int = 0
    boxes_a_step: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "boxes_a_step")
        if not 0 < self.iou <= 1:
            raise ValueError(f"--iou={self.iou} must be within 0..1, and above 0")
        if self.most_pairs < 0:
            raise ValueError(f"--most-pairs={self.most_pairs} must be at least 0, which is all")
        self.regions()

    def regions(self) -> RegionSettings:
        """Of the boxes' tokens."""
        return RegionSettings(self.inside, self.size)


@dataclasses.dataclass(frozen=True)
class TemporalSettings(CommonSettings):
    """How temporal clip retrieval is measured.

    Attributes:
      least: described clips that a video has at least; of one alone nothing can be wrong, but the
        released program counts it.
    """

    least: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "least")


@dataclasses.dataclass(frozen=True)
class ScalingSettings(CommonSettings):
    """How scaling by frames is measured.

    Attributes:
      at: numbers of frames, with commas.
      captions: as in retrieval; ActivityNet's are read as a 'paragraph'.
    """

    at: str = "16,32,64"
    captions: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("captions", self.captions, CAPTIONS)
        if self.frames:
            raise ValueError(f"--frames={self.frames} is not read here: give --at={self.frames}")
        self.frame_counts()

    def frame_counts(self) -> list[int]:
        """The numbers of frames.

        Raises:
          ValueError: text that is no list of numbers from 1.
        """
        parts = [part.strip() for part in self.at.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise ValueError(f"--at={self.at} must be whole numbers from 1, as 16,32,64")
        return [int(part) for part in parts]
