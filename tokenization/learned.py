"""Settings of the learned segmenters and trackers. `backends` makes them; nothing here is heavy."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from trajvit_jax.config import nearest

Precision = Literal["auto", "bfloat16", "float32"]
SegFormerSize = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
Sam2Size = Literal["tiny", "small", "base_plus", "large"]


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """Where the learned backends run.

    Attributes:
      device: `auto` = the first CUDA device, or the CPU where there is none; or a name that
        PyTorch knows, like `cuda:1`.
      precision: `auto` = bfloat16 autocast on an accelerator, float32 on a CPU; what that is on
        the machine that starts an extraction is noted, and holds for all of its workers.
      image_batch: frames that are encoded at once.
      objects: objects that go through a tracker at once; None = what fits in half of the
        device's free memory, as measured on the first chunk (16 on a CPU). Running out of
        memory halves it.
      frames_held: frames whose features a tracker holds at once: clips of more videos are
        tracked in several rounds. One frame takes 2 MB at 512 px in bfloat16, 8 MB at 1024 px.
      compiled: encoders of images are compiled (torch.compile); the rest, whose shapes grow with
        the memory, is not. It rounds in another order. Not known to pay: not timed on a GPU yet.

    Raises:
      ValueError: a value out of its range.
    """

    device: str = "auto"
    precision: Precision = "auto"
    image_batch: int = 16
    objects: int | None = None
    frames_held: int = 512
    compiled: bool = False

    def __post_init__(self) -> None:
        _check_choice(self, "precision", get_args(Precision))
        _check_least(self, 1, "image_batch", "objects", "frames_held")


@dataclasses.dataclass(frozen=True)
class DirectSamSettings:
    """DirectSAM: a boundary map by SegFormer, whose interiors are the segments (suppl. §8).

    The defaults are those of the paper and of the released program.

    Attributes:
      size: of the SegFormer; the published DirectSAM is b5, the distilled ones are b0.
      resolution: side in pixels that frames are squashed to; a multiple of 32. The paper
        compares 512 and 1024.
      threshold: pixels with a boundary probability below it are interior.
      max_segments: the largest that are kept in a frame.
      min_area: pixels at `resolution` that a segment must exceed.
      grow_kernel: side of the square by which segments are grown back over the boundary.
      grow_rounds: how many times.

    Raises:
      ValueError: a value out of its range.
    """

    size: SegFormerSize = "b5"
    resolution: int = 512
    threshold: float = 0.2
    max_segments: int = 128
    min_area: int = 16
    grow_kernel: int = 5
    grow_rounds: int = 2

    def __post_init__(self) -> None:
        _check_choice(self, "size", get_args(SegFormerSize))
        _check_least(self, 1, "max_segments", "grow_kernel")
        _check_least(self, 0, "min_area", "grow_rounds")
        _check_multiple(self, "resolution", 32)
        _check_within(self, "threshold")


@dataclasses.dataclass(frozen=True)
class Sam2Settings:
    """SAM 2.1, as a tracker of masks and as a segmenter on a grid of points.

    Attributes:
      size: of its Hiera encoder.
      resolution: side in pixels that frames are squashed to; a multiple of 128 (64 for the
        feature maps, times 2 for its windows). It was trained at 1024; the paper uses 512.

    Raises:
      ValueError: a value out of its range.
    """

    size: Sam2Size = "small"
    resolution: int = 512

    def __post_init__(self) -> None:
        _check_choice(self, "size", get_args(Sam2Size))
        _check_multiple(self, "resolution", 128)


@dataclasses.dataclass(frozen=True)
class PointGridSettings:
    """Automatic masks: every point of a grid is a prompt, good masks are kept.

    The defaults are those of SAM 2's own automatic mask generator, but for `max_segments`.

    Attributes:
      side: points along each side of the frame.
      points: prompts that are decoded at once.
      min_quality: IoU that the model predicts for its own mask, which it must exceed.
      min_stability: IoU of the mask cut at the logits `stability_offset` and
        -`stability_offset`.
      stability_offset: see `min_stability`.
      max_overlap: IoU of boxes above which the mask of lower quality is dropped.
      max_segments: the largest that are kept in a frame.

    Raises:
      ValueError: a value out of its range.
    """

    side: int = 32
    points: int = 64
    min_quality: float = 0.8
    min_stability: float = 0.95
    stability_offset: float = 1.0
    max_overlap: float = 0.7
    max_segments: int = 128

    def __post_init__(self) -> None:
        _check_least(self, 1, "side", "points", "max_segments")
        _check_least(self, 0, "stability_offset")
        _check_within(self, "min_quality", "min_stability", "max_overlap")


@dataclasses.dataclass(frozen=True)
class EdgeTamSettings:
    """EdgeTAM, a light relative of SAM 2.

    Attributes:
      resolution: side in pixels that frames are squashed to; a multiple of 256, as its memories
        are of 16x16 windows. It was trained at 1024.

    Raises:
      ValueError: a value out of its range.
    """

    resolution: int = 1024

    def __post_init__(self) -> None:
        _check_multiple(self, "resolution", 256)


@dataclasses.dataclass(frozen=True)
class LearnedSettings:
    """Of all learned backends; only what the chosen ones need is looked at.

    Attributes:
      directsam: of the segmenter of that name.
      sam2: of the segmenter and of the tracker of that name.
      point_grid: of the segmenter `sam2`.
      edgetam: of the tracker of that name.
      running: where they run.
      sums: files of weights and their SHA-256, which they must have; extraction notes here what
        it found, so that records of other weights never get into one dataset.
      revisions: files of weights and the commit of the hub that they came from, where a download
        told it. Extraction notes it in each record; sums alone say whether weights are the same.
    """

    directsam: DirectSamSettings = dataclasses.field(default_factory=DirectSamSettings)
    sam2: Sam2Settings = dataclasses.field(default_factory=Sam2Settings)
    point_grid: PointGridSettings = dataclasses.field(default_factory=PointGridSettings)
    edgetam: EdgeTamSettings = dataclasses.field(default_factory=EdgeTamSettings)
    running: DeviceSettings = dataclasses.field(default_factory=DeviceSettings)
    sums: tuple[tuple[str, str], ...] = ()
    revisions: tuple[tuple[str, str], ...] = ()


def _check_choice(settings: object, name: str, known: tuple[str, ...]) -> None:
    value = getattr(settings, name)
    if value not in known:
        raise ValueError(f"{type(settings).__name__}.{name} = {value!r}: {nearest(value, known)}")


def _check_least(settings: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{type(settings).__name__}.{name} = {value} must be >= {least}")


def _check_multiple(settings: object, name: str, step: int) -> None:
    value = getattr(settings, name)
    if value < step or value % step:
        raise ValueError(f"{type(settings).__name__}.{name} = {value} must be a multiple of {step}")


def _check_within(settings: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(
                f"{type(settings).__name__}.{name} = {getattr(settings, name)} must be within 0..1"
            )
