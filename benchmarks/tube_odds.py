"""How likely touching pieces of a video are parts of one thing: fits `trackers.tubes.ODDS`.

  python -m benchmarks.tube_odds --davis=DAVIS      # prints ODDS and BIAS, to be pasted

On the annotated sequences that settings are chosen on (`tokenization_quality.TUNED`), with the
default pipeline. Its pieces are merged by the weights at hand until few are left; all pairs that
are weighed on the way and of which one lies in the object for the most part are examples: of one
thing where both do, of two where one does. What is outside is not annotated and tells nothing.
An example weighs as the root of its smaller volume, and less where a piece is in part inside;
classes and sequences weigh alike. Logistic regression with a weak ridge, and once more on what
its own merging meets. Each sequence is also judged with weights fitted on the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, Int64

from benchmarks import annotated
from benchmarks.tokenization_quality import TUNED
from benchmarks.tracking_metrics import best_cover, overlaps
from tokenization import pipeline
from tokenization.protocols import Clip
from tokenization.trackers.flow import FlowTracker
from tokenization.trackers.tubes import ODDS, Merging, Tubes, TubeSettings, evidence, merge_tubes
from tokenization.video import Frames

# What the first merging goes by: alike in colour and motion, small first.
START = (-1.0, 0.0, -0.7, -1.2, 0.8, -0.5, -0.25, -0.4, 2.0, 0.0)
_FEWEST = 20  # pieces at which merging stops
_RIDGE = 0.01  # on standardized evidence
_NEWTON = 25


class _Recorded(Merging):
    """Merging that notes the evidence of every pair that the annotation tells something of."""

    def __init__(
        self, tubes: Tubes, inside: Float64[np.ndarray, " n"], weights: np.ndarray, bias: float
    ) -> None:
        self._inside = inside.copy()
        self.examples: list[np.ndarray] = []
        super().__init__(tubes, weights, bias)

    def join(self, a: int, b: int) -> None:
        self._inside[[a, b]] = self._inside[a] + self._inside[b]
        super().join(a, b)

    def _odds(
        self, a: np.ndarray, b: np.ndarray, borders: np.ndarray, steps: np.ndarray
    ) -> list[float]:
        seen = evidence(self.tubes, a, b, borders, steps)
        volumes = np.stack([self.tubes.volumes[a], self.tubes.volumes[b]])
        shares = np.stack([self._inside[a], self._inside[b]]) / volumes
        sure = np.sqrt(volumes.min(0)) * np.abs(2 * shares - 1).min(0)
        rows = np.column_stack([seen, shares.min(0) > 0.5, sure])
        self.examples.append(rows[shares.max(0) > 0.5])
        return (seen @ self._weights + self._bias).tolist()


def examples(
    tubes: Tubes, inside: Float64[np.ndarray, " n"], weights: np.ndarray, bias: float
) -> Float64[np.ndarray, "m f+2"]:
    """Evidence, whether it is of one thing, and weight, of the pairs that merging meets.

    Args:
      tubes: of one sequence.
      inside: volume of each piece that lies in the object.
      weights: of the evidence, by which is merged.
      bias: of that.
    """
    merging = _Recorded(tubes, inside, weights, bias)
    while merging.count > _FEWEST and (best := merging.best()) is not None:
        merging.join(best[1], best[2])
    return np.concatenate(merging.examples)


def fit(
    sequences: Sequence[Float64[np.ndarray, "_ f+2"]],
) -> tuple[Float64[np.ndarray, " f"], float]:
    """Weights and bias of a logistic regression on the examples of some sequences."""
    every = np.concatenate(sequences)
    evidence, one = every[:, :-2], every[:, -2]
    sure = []
    for rows in sequences:
        its = rows[:, -1].copy()
        for kind in (0, 1):
            chosen = rows[:, -2] == kind
            its[chosen] /= max(its[chosen].sum(), 1e-9)
        sure.append(its)
    weight = np.concatenate(sure)
    weight /= weight.sum()
    mean, scale = evidence.mean(0), evidence.std(0) + 1e-6
    inputs = np.column_stack([(evidence - mean) / scale, np.ones(len(evidence))])
    ridge = np.append(np.full(len(scale), _RIDGE), 1e-9)
    found = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON):
        chance = 1 / (1 + np.exp(-inputs @ found))
        slope = inputs.T @ (weight * (chance - one)) + ridge * found
        curve = (inputs * (weight * chance * (1 - chance))[:, None]).T @ inputs + np.diag(ridge)
        found -= np.linalg.solve(curve, slope)
    weights = found[:-1] / scale
    return weights, float(found[-1] - weights @ mean)


def pieces_of(
    tokenizer: pipeline.Pipeline, frames: Frames
) -> tuple[Int64[np.ndarray, "t h w"], Tubes]:
    """The pieces of a video of one shot, before they are merged."""
    tracker = tokenizer.tracker
    assert isinstance(tracker, FlowTracker)
    _, starts = pipeline.clip_starts(frames.rgb, tokenizer.settings, frames.between)
    starts[tracker.starts(len(starts))] = True
    at = np.flatnonzero(starts).tolist()
    segments = dict(zip(at, tokenizer.segmenter.segment(frames.rgb[at]), strict=True))
    return tracker.pieces(Clip(frames.rgb, segments, frames.between))


def union_of(
    pieces: Int64[np.ndarray, "t h w"], tubes: Tubes, objects: np.ndarray, model: tuple
) -> float:
    """Mean IoU of the best union of trajectories (`best_cover`) that a fitted model leaves."""
    labels = merge_tubes(tubes, TubeSettings(), *model)[pieces] + 1
    return best_cover(overlaps(labels, objects), 1).union


def main(argv: Sequence[str] | None = None) -> int:
    """Fits, and prints what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tube_odds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--davis", type=Path, help="($TRAJVIT_TEST_DATA/davis where that is)")
    parser.add_argument("--sequences", help="names to fit on, with commas", default=",".join(TUNED))
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    root = args.davis or Path(os.environ["TRAJVIT_TEST_DATA"]) / "davis"
    tokenizer = pipeline.build()
    settings = tokenizer.settings
    names = args.sequences.split(",")
    found = []
    for sequence in annotated.find_sequences(root):
        if sequence.name not in names:
            continue
        frames, objects = annotated.read_sequence(
            sequence,
            frames=settings.frames,
            between=settings.between,
            max_side=settings.max_side,
        )
        pieces, tubes = pieces_of(tokenizer, frames)
        height, width = pieces.shape[1:]
        size = (width, height)
        masks = [
            cv2.resize((mask == 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for mask in objects
        ]
        inside = np.bincount(pieces.ravel(), np.ravel(masks), tubes.volumes.size) / pieces.size
        small = (np.stack(masks) >= 0.5).astype(np.int32)
        found.append((sequence.name, pieces, tubes, inside, small))
        print(f"{sequence.name}: {tubes.volumes.size} pieces", flush=True)
    model = np.array(START), -3.0
    seen: list[list[np.ndarray]] = [[] for _ in found]
    for _ in range(2):
        for its, (_, _, tubes, inside, _) in zip(seen, found, strict=True):
            its.append(examples(tubes, inside, *model))
        model = fit([np.concatenate(its) for its in seen])
    print("\nODDS = {")
    for name, weight in zip(ODDS, model[0], strict=True):
        print(f'    "{name}": {weight:.3f},')
    print(f"}}\nBIAS = {model[1]:.3f}\n\nunion, fitted on all and on the others:")
    for number, (name, pieces, tubes, _, small) in enumerate(found):
        others = [np.concatenate(its) for other, its in enumerate(seen) if other != number]
        both = [union_of(pieces, tubes, small, one) for one in (model, fit(others))]
        print(f"  {name:20} {both[0]:.3f} {both[1]:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
