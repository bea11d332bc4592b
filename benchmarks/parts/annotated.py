"""Videos whose objects are annotated, as folders of frames and of masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from tokenization import video
from tokenization.resizing import resize_labels
from tokenization.sampling import indices_between, sample_indices
from tokenization.video import Frames


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One video: an image file and a mask file for each frame, in the order of their names.

    Attributes:
      name: of the sequence.
      frames: image files.
      masks: image files; black is no object, each other colour one object.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]


def find_sequences(root: Path) -> list[Sequence]:
    """Sequences below a folder, by name.

    Either NAME/frames and NAME/masks, or the layout of DAVIS: JPEGImages/480p/NAME and
    Annotations/480p/NAME.

    Raises:
      ValueError: none there, or one without a mask for each frame.
    """
    pairs = [(path, path / "frames", path / "masks") for path in _folders(root)]
    davis = root / "JPEGImages" / "480p", root / "Annotations" / "480p"
    pairs += [(path, path, davis[1] / path.name) for path in _folders(davis[0])]
    found = []
    for path, frames, masks in pairs:
        if not (frames.is_dir() and masks.is_dir()):
            continue
        sequence = Sequence(path.name, *(tuple(sorted(f.iterdir())) for f in (frames, masks)))
        if not sequence.frames or len(sequence.frames) != len(sequence.masks):
            raise ValueError(
                f"{path} has {len(sequence.frames)} frames and {len(sequence.masks)} masks; "
                "give one mask a frame, or take the sequence away"
            )
        found.append(sequence)
    if not found:
        raise ValueError(
            f"{root} has no annotated sequences; name a folder with NAME/frames and NAME/masks, "
            "or one with JPEGImages/480p/NAME and Annotations/480p/NAME"
        )
    return sorted(found, key=lambda sequence: sequence.name)


def read_sequence(
    sequence: Sequence, *, frames: int, between: int, max_side: int
) -> tuple[Frames, Int32[np.ndarray, "t h w"]]:
    """Sampled frames, and their objects 1..k (0 = none), in the frames' size.

    Args:
      sequence: the files.
      frames: to sample, uniformly.
      between: most frames to give between two sampled ones.
      max_side: longer side of the result, in pixels.
    """
    index = sample_indices(len(sequence.frames), frames)

    def read(positions: np.ndarray) -> list[np.ndarray]:
        files = [sequence.frames[i] for i in positions.tolist()]
        return [video.decode(file, max_side=max_side).rgb[0] for file in files]

    rgb = np.stack(read(index))
    height, width = rgb.shape[1:3]
    gaps = indices_between(index, between) if between else []
    decoded = Frames(
        rgb,
        times=index.astype(np.float32),
        indices=index,
        video=video.VideoInfo(sequence.name, width, height, 1.0, float(len(sequence.frames))),
        between=tuple(np.array(read(gap), np.uint8).reshape(-1, *rgb.shape[1:]) for gap in gaps),
    )
    colours = np.stack([_colours(sequence.masks[i]) for i in index.tolist()])
    known, objects = np.unique(np.append(0, colours), return_inverse=True)
    del known
    objects = objects[1:].reshape(colours.shape).astype(np.int32)
    return decoded, resize_labels(objects, height, width)


def _colours(path: Path) -> Int32[np.ndarray, "h w"]:
    """One number a colour; 0 is black."""
    rgb = video.decode(path).rgb[0].astype(np.int32)
    return (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
