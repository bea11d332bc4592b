"""What an evaluation found, with everything that is needed to find it again."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from tqdm import tqdm

from tokenization.files import replacing, write_text
from tokenization.markdown import markdown_table
from trajvit_jax import confidence
from trajvit_jax.data.unusable import BadRecord

FORMAT = 1  # of the JSON files
# Settings that change no number: where tokens are kept, how much is done at once, how intervals are
# made. What else is told of a result anyway.
_FREE = ("features", "batch", "draws", "dataset", "split", "frames")
_SAMPLES = ".samples.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """A number, and how it comes out of other samples of the same size.

    Attributes:
      name: of it.
      value: of all samples.
      samples: how many there are to draw from: queries, videos, boxes; 0 = it has no interval.
      statistic: the value of some of them, by their numbers, which may repeat.
      share: the value is a percentage of hits.
      trials: of a share whose samples count unequally, how many equal ones they are worth (Kish
        1965); 0 = as many as there are.
      parts: of a mean, what each sample brings: a sum, and of how many.
    """

    name: str
    value: float
    samples: int = 0
    statistic: Callable[[Int64[np.ndarray, " n"]], float] | None = None
    share: bool = False
    trials: float = 0.0
    parts: Float64[np.ndarray, "samples 2"] | None = None

    @classmethod
    def mean(cls, name: str, values: Float[np.ndarray, " n"], *, share: bool = False) -> Metric:
        """The mean of a number that each sample has; of a share, in percent."""
        values = values.astype(np.float64)
        found = cls(name, float(values.mean()), len(values), lambda own: float(values[own].mean()))
        parts = np.stack([values, np.ones(len(values))], 1)
        return dataclasses.replace(found, share=share, parts=parts)

    @classmethod
    def percent(cls, name: str, hits: Bool[np.ndarray, " n"]) -> Metric:
        """How many of the samples are hits, in percent."""
        value = float(hits.mean() * 100)
        found = cls(name, value, len(hits), lambda own: float(hits[own].mean() * 100))
        parts = np.stack([100.0 * hits, np.ones(len(hits))], 1)
        return dataclasses.replace(found, share=True, parts=parts)

    @classmethod
    def of_clusters(
        cls,
        name: str,
        values: Float[np.ndarray, " n"],
        cluster: Int64[np.ndarray, " n"],
        clusters: int,
        *,
        median: bool = False,
        share: bool = False,
    ) -> Metric:
        """Mean or median of numbers of which some belong together: these are drawn together.

        Args:
          name: of it.
          values: one a query.
          cluster: that each belongs to.
          clusters: how many there are.
          median: in place of the mean.
          share: values are 0 and 100.
        """

        def statistic(own: np.ndarray) -> float:
            times = np.bincount(own, minlength=clusters)[cluster]
            if median:
                return float(np.median(np.repeat(values, times)))
            return float(np.average(values, weights=times)) if times.any() else float("nan")

        value = float(np.median(values) if median else values.mean())
        sums, counts = np.bincount(cluster, values, clusters), np.bincount(cluster, None, clusters)
        parts = None if median else np.stack([sums, counts.astype(np.float64)], 1)
        return cls(name, value, clusters, statistic, share, parts=parts)

    @classmethod
    def median(cls, name: str, values: Float[np.ndarray, " n"]) -> Metric:
        """The median of a number that each sample has."""
        return cls(
            name, float(np.median(values)), len(values), lambda own: float(np.median(values[own]))
        )

    def interval(self, *, draws: int, seed: int) -> tuple[float, float] | None:
        """Where 95% of the values lie that as many samples drawn from these have.

        The bootstrap, see `confidence`; of nothing but hits, or of none, Wilson's interval. Samples
        count as independent.

        Args:
          draws: of all samples; 0 = no interval.
          seed: of the draws.
        """
        if not draws or self.statistic is None or self.samples < 2:
            return None
        if self.share and self.value in (0.0, 100.0):
            low, high = confidence.wilson(self.value / 100, self.trials or self.samples)
            return 100 * low, 100 * high
        drawn = confidence.draws(self.samples, draws, seed=seed)
        bar = {"total": draws, "desc": f"interval of {self.name}", "unit": "draw", "delay": 2}
        return confidence.interval(
            np.array([self.statistic(own) for own in tqdm(drawn, leave=False, **bar)])
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What a protocol measured.

    Attributes:
      metrics: in the order in which they are told.
      count: videos (or boxes) that the numbers are of.
      bad: records that could not be used.
      notes: what else must be said, in words or numbers.
    """

    metrics: Sequence[Metric]
    count: int
    bad: tuple[BadRecord, ...] = ()
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def values(self) -> Iterator[tuple[str, float]]:
        """(name, value) of all metrics."""
        for metric in self.metrics:
            yield metric.name, metric.value


@dataclasses.dataclass(frozen=True)
class Value:
    """A metric's value and its interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        size = abs(self.value)
        text = f"{self.value:.2f}" if 1 <= size < 100 else f"{self.value:.3g}"
        text = f"{self.value:,.0f}" if size >= 100 else text
        return text if self.low is None else f"{text} ({self.low:.1f} to {self.high:.1f})"


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
      protocol: name of the command.
      dataset: that it is known by in the paper's tables, or the folder's name.
      split: of the records.
      metrics: by name, with intervals.
      count: videos (or boxes) that the numbers are of.
      of: how many there were to be, with those that are missing.
      missing: those that are not among the `count`: id, file and reason.
      frames: that the model read of a video.
      stored: frames that its record has; 0 = records differ.
      views: of each video.
      seed: of what is drawn.
      model: name of its tokenization.
      checkpoint: hash of the model's numbers.
      source: folder of the model.
      step: updates made, or None.
      train_seed: seed of its training, or None.
      training: hash of its training's settings without the seed; the checkpoint's where there is
        no run.
      train_records: folders it was trained on.
      records: folder of the records that were read.
      fingerprint: hash of what these were made of.
      settings: of the protocol.
      notes: what else must be said.
      interval: how intervals were made.
      command: that made this.
      commit: of the code, '+' if it was changed; '' where it is not known.
      versions: of the programs below.
      devices: kind and number.
      seconds: it took.
      format: of this file.
      size: of the encoder, see `variant`; '' = a result of an earlier version does not say.
      ablation: likewise.
      cut: what made the trajectories that were read, 'SEGMENTER + TRACKER'; '' = not known.
      train_cut: likewise of those that the model learned from.
      samples: of metrics that are means, what each sample brings, in the order of the records: in a
        file beside the JSON, NAME.samples.npz.
    """

    protocol: str
    dataset: str
    split: str
    metrics: Mapping[str, Value]
    count: int
    of: int
    missing: Sequence[Mapping[str, str]]
    frames: int
    stored: int
    views: int
    seed: int
    model: str
    checkpoint: str
    source: str
    step: int | None
    train_seed: int | None
    training: str
    train_records: Sequence[str]
    records: str
    fingerprint: str
    settings: Mapping[str, Any]
    notes: Mapping[str, Any]
    interval: str
    command: str
    commit: str
    versions: Mapping[str, str]
    devices: str
    seconds: float
    format: int = FORMAT
    size: str = ""
    ablation: str = ""
    cut: str = ""
    train_cut: str = ""
    samples: Mapping[str, Float64[np.ndarray, "samples 2"]] = dataclasses.field(
        default_factory=dict, compare=False
    )

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings on which the numbers depend."""
        # How much is done at once is part of what scaling measures.
        free = [name for name in _FREE if (self.protocol, name) != ("scaling", "batch")]
        return {name: value for name, value in self.settings.items() if name not in free}

    def to_json(self) -> str:
        """One JSON object; a value that is not finite is null."""
        values = dataclasses.asdict(dataclasses.replace(self, samples={}))
        del values["samples"]
        return json.dumps(_finite(values), indent=2) + "\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, whole or not at all, and before it its samples."""
        beside = Path(path).with_suffix(_SAMPLES)
        if self.samples:
            samples: dict[str, Any] = dict(self.samples)
            with replacing(beside) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **samples)
        else:  # what is there is another result's
            beside.unlink(missing_ok=True)
        write_text(path, self.to_json())

    def markdown(self) -> str:
        """The metrics as a table, and below it what they are of."""
        numbers = [str(metric) for metric in self.metrics.values()]
        return f"{markdown_table(list(self.metrics), [numbers], left=0)}\n\n{self.about()}"

    def about(self) -> str:
        """In a paragraph, what the numbers are of."""
        step = "" if self.step is None else f", step {self.step}"
        views = f", {self.views} views" if self.views > 1 else ""
        stored = f" of {self.stored} stored" if self.stored not in (0, self.frames) else ""
        seed = "" if self.train_seed is None else f", trained with seed {self.train_seed}"
        notes = "".join(f"; {name}: {value}" for name, value in self.notes.items())
        interval = f"; in brackets: {self.interval}" if self.interval else ""
        return (
            f"{self.protocol} on {self.dataset}, split {self.split}: {self.count} of {self.of}; "
            f"{self.model} (checkpoint {self.checkpoint}{step}{seed}); {self.frames} frames{stored}"
            f"{views}; seed {self.seed}{notes}{interval}"
        )


def read_result(path: str | os.PathLike[str]) -> Result:
    """Reads what `Result.write` wrote.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is no result, or of another version.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"it is no result of format {FORMAT}")
        values["metrics"] = {name: Value(**one) for name, one in values["metrics"].items()}
        return Result(**values, samples=_samples(path.with_suffix(_SAMPLES)))
    except (ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no result of python -m trajvit_jax.evals.PROTOCOL: {error}"
        ) from error


def _samples(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def with_intervals(measured: Measured, *, draws: int, seed: int) -> dict[str, Value]:
    """All metrics by name, with their intervals."""
    values = {}
    for metric in measured.metrics:
        ends = metric.interval(draws=draws, seed=seed) or (None, None)
        values[metric.name] = Value(metric.value, *ends)
    return values


def _finite(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
