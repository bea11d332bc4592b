"""Which of two models is better on the same samples, and how sure that is: a paired bootstrap.

Both models' samples are drawn together, so what makes a video hard makes it hard for both. Of
several seeds of a training all answer the same draws. Only what was measured in one way on the
same records is compared, and only numbers that are means over samples.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from tokenization.markdown import markdown_table
from trajvit_jax import confidence
from trajvit_jax.evals.results import Result

DRAWS = 2000
Parts = Float64[np.ndarray, "samples 2"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model less another, with a 95% interval.

    Attributes:
      about: protocol, dataset and split.
      metric: by name.
      one: name of the model, and how many seeds.
      other: likewise.
      value: the mean over seeds of one less that of the other.
      low: end of the interval.
      high: likewise.
    """

    about: str
    metric: str
    one: str
    other: str
    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def difference(
    ones: Sequence[Parts], others: Sequence[Parts], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """The difference of two means, and its interval.

    Args:
      ones: of each seed of a model, what every sample brings: a sum, and of how many.
      others: of the other model, the same samples in the same order.
      draws: of the samples.
      seed: of the draws.

    Raises:
      ValueError: other numbers of samples.
    """
    counts = {len(parts) for parts in (*ones, *others)}
    if len(counts) > 1:
        raise ValueError(f"{sorted(counts)} samples cannot be paired")
    signs = np.array([1 / len(ones)] * len(ones) + [-1 / len(others)] * len(others))
    together = np.concatenate([*ones, *others], axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw may have none of a mean's samples
            return (sums[:, 0::2] / sums[:, 1::2]) @ signs

    low, high = confidence.interval(of(confidence.weighted_draws(together, draws, seed=seed)))
    return float(of(together.sum(0, keepdims=True))[0]), low, high


def differences(results: Sequence[Result]) -> Iterator[Difference]:
    """Of all pairs of models that were measured alike, in the order in which they came.

    A model is one training after so many steps, with all its seeds. Of a checkpoint that was
    measured twice the later of `results` counts.
    """
    alike: dict[str, dict[tuple[object, ...], dict[str, Result]]] = {}
    for one in results:
        models = alike.setdefault(_measured(one), {})
        models.setdefault((one.model, one.training, one.step), {})[one.checkpoint] = one
    for models in alike.values():
        seeds = [list(own.values()) for own in models.values()]
        for ours, theirs in itertools.combinations(seeds, 2):
            for metric in ours[0].samples:
                if not all(metric in one.samples for one in (*ours, *theirs)):
                    continue
                found = difference(
                    *([one.samples[metric] for one in own] for own in (ours, theirs))
                )
                first = ours[0]
                about = f"{first.protocol} on {first.dataset}, {first.split}"
                yield Difference(about, metric, _named(ours), _named(theirs), *found)


def _measured(result: Result) -> str:
    """How a number was made, the model aside; equal ones have the same samples in one order."""
    missing = sorted(one["id"] for one in result.missing)
    same = (*(result.protocol, result.dataset, result.split, result.fingerprint), result.frames)
    return json.dumps([*same, result.decisive, missing], sort_keys=True, default=str)


def _named(results: Sequence[Result]) -> str:
    first = results[0]
    step = "" if first.step is None else f", step {first.step}"
    seeds = f", {len(results)} seeds" if len(results) > 1 else ""
    return f"{first.model} ({first.checkpoint[:8]}{step}{seeds})"


def table(found: Sequence[Difference]) -> str:
    """Differences as a Markdown table; '' where there are none."""
    if not found:
        return ""
    rows = []
    for one in found:
        interval = f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        certain = "yes" if one.certain else "no"
        rows.append((one.about, one.metric, one.one, one.other, interval, certain))
    return markdown_table(("of", "metric", "model", "less", "difference", "certain"), rows, left=4)
