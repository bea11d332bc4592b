"""What one model finds among the clips of one source, with chance and uncertainty beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from trajvit_jax.demo.page import TITLES
from trajvit_jax.evals.retrieval import Comparison
from trajvit_jax.metrics import chance_recall, recall_at, recall_interval, retrieval_ranks

DEPTHS = (1, 5, 10)
WAYS = ("txt2vid", "vid2txt")


@dataclasses.dataclass(frozen=True)
class Recall:
    """R@k in percent: measured, 95% interval (Wilson's score), and of a random order."""

    k: int
    value: float
    low: float
    high: float
    chance: float

    @property
    def above_chance(self) -> bool:
        """Whether chance lies below the whole interval."""
        return self.low > self.chance

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f}-{self.high:.1f})"


@dataclasses.dataclass(frozen=True)
class Score:
    """One model, one source, one split, one way.

    Attributes:
      model: its name.
      source: of the clips.
      split: 'test' (held out) or 'train'.
      way: 'txt2vid', captions find videos, or 'vid2txt'.
      queries: how many captions (equal ones are one) or videos asked.
      median_rank: of the right one; 1 is first.
      recalls: one for each of `DEPTHS`.
    """

    model: str
    source: str
    split: str
    way: str
    queries: int
    median_rank: float
    recalls: tuple[Recall, ...]

    def cells(self) -> dict[str, str]:
        """Column title -> text."""
        return {
            "source": self.source,
            "queries": f"{self.queries} {'held out' if self.split == 'test' else 'of training'}",
            "way": self.way,
            "model": TITLES[self.model],
            **{f"R@{recall.k}": str(recall) for recall in self.recalls},
            "chance": " / ".join(f"{recall.chance:.1f}" for recall in self.recalls),
            "median rank": f"{self.median_rank:g}",
        }


def scores(compared: Comparison, model: str, source: str, split: str) -> list[Score]:
    """Both ways of a comparison."""
    return [
        _score(similarity, positives, model, source, split, way)
        for way, similarity, positives in (
            ("txt2vid", compared.similarity.T, compared.positives.T),
            ("vid2txt", compared.similarity, compared.positives),
        )
    ]


def _score(
    similarity: Float[np.ndarray, "q c"],
    positives: Bool[np.ndarray, "q c"],
    model: str,
    source: str,
    split: str,
    way: str,
) -> Score:
    ranks = retrieval_ranks(similarity, positives)
    recalls = tuple(
        Recall(k, recall_at(ranks, k), *recall_interval(ranks, k), chance_recall(positives, k))
        for k in DEPTHS
    )
    return Score(model, source, split, way, len(ranks), float(np.median(ranks)) + 1, recalls)
