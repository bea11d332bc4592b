"""How likely touching pieces of a video are parts of one thing: fits `trackers.tubes.ODDS`.

  python -m benchmarks.tube_odds --davis=DAVIS      # prints ODDS and BIAS, to be pasted

On the annotated sequences that settings are chosen on (`tokenization_quality.TUNED`), with the
default pipeline. Its pieces are merged by the weights at hand until few are left; all pairs that
are weighed on the way and of which one lies in the object for the most part are examples: of one
thing where both do, of two where one does. What is outside is not annotated and tells nothing.
An example weighs as the root of its smaller volume, and less where a piece is in part inside;
classes and sequences weigh alike. Logistic regression with a weak ridge, and once more on what
its own merging meets. Nothing is random. Each sequence is also judged with weights that both rounds
fitted on the others alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, Int32, Int64

from benchmarks.parts import annotated
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.tracking_metrics import best_cover, overlaps
from benchmarks.tokenization_quality import TUNED
from tokenization import pipeline
from tokenization.protocols import Clip
from tokenization.trackers.flow import FlowTracker
from tokenization.trackers.tubes import ODDS, Merging, Tubes, TubeSettings, evidence, merge_tubes
from tokenization.video import Frames
from trajvit_jax.config import nearest

Model = tuple[Float64[np.ndarray, " f"], float]

# What the first merging goes by: alike in colour and motion, small first.
START = {
    "colour": -1.0,
    "far colour": 0.0,
    "step": -0.7,
    "motion": -1.2,
    "common motion": 0.8,
    "relative motion": -0.5,
    "smaller": -0.25,
    "larger": -0.4,
    "enclosed": 2.0,
    "spread": 0.0,
}
START_BIAS = -3.0
_FEWEST = 20  # pieces at which merging stops
_RIDGE = 0.01  # on standardized evidence
_NEWTON = 25


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """A sequence before its pieces are merged, at working resolution.

    Attributes:
      name: of the sequence.
      numbers: 0..n-1, of the piece that each pixel is in.
      tubes: what is seen of the pieces.
      inside: volume of each that lies in the object, as a fraction of the video.
      object: 1 where it is.
    """

    name: str
    numbers: Int64[np.ndarray, "t h w"]
    tubes: Tubes
    inside: Float64[np.ndarray, " n"]
    object: Int32[np.ndarray, "t h w"]


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
) -> Model:
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


def fit_twice(sequences: Sequence[Pieces], first: Sequence[Float64[np.ndarray, "_ f+2"]]) -> Model:
    """Weights and bias fitted on the examples of `START`, and on those of what these give, too.

    Args:
      sequences: to fit on.
      first: examples of each that merging by `START` meets.
    """
    model = fit(first)
    return fit(
        [
            np.concatenate([its, examples(one.tubes, one.inside, *model)])
            for one, its in zip(sequences, first, strict=True)
        ]
    )


def pieces_of(
    tokenizer: pipeline.Pipeline, frames: Frames
) -> tuple[Int64[np.ndarray, "t h w"], Tubes]:
    """The pieces of a video of one shot, before they are merged.

    Raises:
      ValueError: a cut in it.
    """
    tracker = tokenizer.tracker
    assert isinstance(tracker, FlowTracker)
    cuts, starts = pipeline.clip_starts(frames.rgb, tokenizer.settings, frames.between)
    if cuts[1:].any():
        raise ValueError(f"{frames.video.id} has a cut: pieces are joined within one shot")
    starts[tracker.starts(len(starts))] = True
    at = np.flatnonzero(starts).tolist()
    segments = dict(zip(at, tokenizer.segmenter.segment(frames.rgb[at]), strict=True))
    return tracker.pieces(Clip(frames.rgb, segments, frames.between))


def read_pieces(tokenizer: pipeline.Pipeline, sequence: annotated.Sequence) -> Pieces:
    """The pieces of an annotated sequence, and what of them lies in its object."""
    settings = tokenizer.settings
    frames, objects = annotated.read_sequence(
        sequence, frames=settings.frames, between=settings.between, max_side=settings.max_side
    )
    numbers, tubes = pieces_of(tokenizer, frames)
    size = numbers.shape[2], numbers.shape[1]
    masks = np.stack(
        [
            cv2.resize((mask == 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for mask in objects
        ]
    )
    inside = np.bincount(numbers.ravel(), masks.ravel(), tubes.volumes.size) / numbers.size
    return Pieces(sequence.name, numbers, tubes, inside, (masks >= 0.5).astype(np.int32))


def union_of(sequence: Pieces, model: Model) -> float:
    """Mean IoU of the best union of trajectories (`best_cover`) that a fitted model leaves."""
    labels = merge_tubes(sequence.tubes, TubeSettings(), *model)[sequence.numbers] + 1
    return best_cover(overlaps(labels, sequence.object), 1).union


def chosen_sequences(root: Path, names: Sequence[str]) -> list[annotated.Sequence]:
    """The named sequences below a folder.

    Raises:
      ValueError: one is not there, or fewer than two are named: each is judged by the others.
    """
    known = {sequence.name: sequence for sequence in annotated.find_sequences(root)}
    for name in names:
        if name not in known:
            raise ValueError(f"{root} has no sequence {name!r}: {nearest(name, known)}")
    if len(set(names)) < 2:
        raise ValueError("name two sequences or more: each is judged by weights of the others")
    return [known[name] for name in sorted(set(names))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits, and prints what was found."""
    parser = parser_of(__file__, __doc__, quick="the first two sequences")
    parser.add_argument("--davis", type=Path, help="($TRAJVIT_TEST_DATA/davis where that is)")
    parser.add_argument("--sequences", help="names to fit on, with commas", default=",".join(TUNED))
    args = parser.parse_args(arguments)
    data = os.environ.get("TRAJVIT_TEST_DATA")
    root = args.davis or (Path(data) / "davis" if data else None)
    if root is None:
        parser.error("name the folder of the sequences: --davis=DAVIS, or set TRAJVIT_TEST_DATA")
    names = args.sequences.split(",")
    chosen = chosen_sequences(root, names[:2] if args.quick else names)
    cv2.setNumThreads(1)
    tokenizer = pipeline.build()
    found = []
    for sequence in chosen:
        found.append(read_pieces(tokenizer, sequence))
        print(f"{sequence.name}: {found[-1].tubes.volumes.size} pieces", flush=True)
    start = np.array([START[name] for name in ODDS])
    first = [examples(one.tubes, one.inside, start, START_BIAS) for one in found]
    model = fit_twice(found, first)
    print("\nODDS = {")
    for name, weight in zip(ODDS, model[0], strict=True):
        print(f'    "{name}": {weight:.3f},')
    print(f"}}\nBIAS = {model[1]:.3f}\n\nunion, fitted on all and on the others:")
    unions = []
    for number, one in enumerate(found):
        others = [at for at in range(len(found)) if at != number]
        without = fit_twice([found[at] for at in others], [first[at] for at in others])
        unions.append((union_of(one, model), union_of(one, without)))
        print(f"  {one.name:20} {unions[-1][0]:.3f} {unions[-1][1]:.3f}", flush=True)
    print("  {:20} {:.3f} {:.3f}".format("mean", *np.mean(unions, 0)))
    report = {
        "odds": dict(zip(ODDS, map(float, model[0]), strict=True)),
        "bias": float(model[1]),
        "unions": {one.name: both for one, both in zip(found, unions, strict=True)},
    }
    write_json(args.json, report)
    return 0


if __name__ == "__main__":
    run_command(main)
