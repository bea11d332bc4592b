"""Ranks of the right answers among all candidates, without all similarities in memory at once.

Similarities are summed in float64 and compared in float32: products of two float32 numbers are
exact in float64, and what is left of the order of summation goes with the last rounding. So equal
pairs are equal wherever they stand, and ranks do not depend on the size of the blocks: up to that
one rounding, for a sum that lies just between two numbers of float32 may go either way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from tqdm import tqdm

_BLOCK = 2**25  # similarities at once: 256 MiB in float64


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """Place of the best-placed right answer of each query, 0 = first.

    Attributes:
      of_videos: of a caption among all, for each video.
      of_texts: of a video among all, for each caption.
    """

    of_videos: Float64[np.ndarray, " v"]
    of_texts: Float64[np.ndarray, " l"]


def rank_pairs(
    videos: Float[np.ndarray, "v p"],
    texts: Float[np.ndarray, "l p"],
    pairs: Int64[np.ndarray, "n 2"],
    *,
    dual_softmax: float = 0.0,
    block: int = _BLOCK,
) -> Ranks:
    """Ranks both ways; of several right answers the best-placed counts.

    Candidates of equal similarity share the middle of their places, as in
    `metrics.retrieval_ranks`, which is this formula with everything in memory.

    Args:
      videos: embeddings.
      texts: embeddings.
      pairs: (video, text) that belong together; each video and each text is in one at least.
      dual_softmax: temperature of the prior that similarities are multiplied with (Cheng et al.,
        CAMoE): how well the query suits the candidate, among all queries, which takes knowledge
        of the other queries. 0 = none.
      block: similarities to hold at once.

    Raises:
      ValueError: embeddings that are not finite, or a video or text without a partner.
    """
    pairs = np.unique(pairs, axis=0)  # sorted by video
    for number, (name, vectors) in enumerate((("video", videos), ("caption", texts))):
        finite = np.isfinite(vectors).all(1)
        if not finite.all():
            raise ValueError(
                f"the embedding of {name} {np.flatnonzero(~finite)[0]} is not finite ("
                f"{(~finite).sum()} of {len(finite)} are not): the model's numbers are NaN"
            )
        alone = np.setdiff1d(np.arange(len(vectors)), pairs[:, number])
        if alone.size:
            raise ValueError(f"{name} {alone[0]} has no partner: query without a right answer")
    scores = _Scores(videos.astype(np.float64), texts.astype(np.float64), dual_softmax, block)
    to_text, to_video = scores.of_pairs(pairs)
    best_text = np.full(len(videos), -np.inf, np.float32)
    best_video = np.full(len(texts), -np.inf, np.float32)
    np.maximum.at(best_text, pairs[:, 0], to_text)
    np.maximum.at(best_video, pairs[:, 1], to_video)

    above_text, tied_text = np.zeros((2, len(videos)), np.int64)
    above_video, tied_video = np.zeros((2, len(texts)), np.int64)
    count = -(-len(videos) // max(1, block // len(texts)))
    bar = {"total": count, "desc": "rank", "unit": "block", "leave": False, "delay": 2}
    for rows, for_videos, for_texts in tqdm(scores.blocks(), **bar):
        first, last = np.searchsorted(pairs[:, 0], (rows.start, rows.stop))
        own = pairs[first:last] - (rows.start, 0)
        for_videos[own[:, 0], own[:, 1]] = -np.inf  # right answers are no rivals
        for_texts[own[:, 0], own[:, 1]] = -np.inf
        limit = best_text[rows, None]
        above_text[rows] = np.count_nonzero(for_videos > limit, axis=1)
        tied_text[rows] = np.count_nonzero(for_videos == limit, axis=1)
        above_video += np.count_nonzero(for_texts > best_video, axis=0)
        tied_video += np.count_nonzero(for_texts == best_video, axis=0)
    return Ranks(above_text + tied_text / 2, above_video + tied_video / 2)


@dataclasses.dataclass(eq=False)
class _Scores:
    """What candidates are ranked by, in blocks of videos."""

    videos: Float64[np.ndarray, "v p"]
    texts: Float64[np.ndarray, "l p"]
    temperature: float
    block: int

    def __post_init__(self) -> None:
        if not self.temperature:
            return
        rows, columns = len(self.videos), len(self.texts)
        self._over_texts = np.zeros(rows)  # log of the sum over all texts, of each video
        highest, total = np.full(columns, -np.inf), np.zeros(columns)
        for part in self._parts():
            scaled = (self.videos[part] @ self.texts.T) / self.temperature
            self._over_texts[part] = np.logaddexp.reduce(scaled, axis=1)
            before, highest = highest, np.maximum(highest, scaled.max(0))
            total = total * np.exp(before - highest) + np.exp(scaled - highest).sum(0)
        self._over_videos = highest + np.log(total)

    def of_pairs(
        self, pairs: Int64[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Of some pairs: for a video that looks for its text, and back."""
        found = np.empty(len(pairs))
        step = max(1, self.block // (8 * self.videos.shape[1]))
        for start in range(0, len(pairs), step):
            own = pairs[start : start + step]
            found[start : start + step] = np.einsum(
                "np,np->n", self.videos[own[:, 0]], self.texts[own[:, 1]]
            )
        return self._both(found, *pairs.T)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Some videos against all texts: which videos, and scores as in `of_pairs`."""
        texts = np.arange(len(self.texts))
        for part in self._parts():
            similarity = self.videos[part] @ self.texts.T
            rows = np.arange(part.start, part.stop)[:, None]
            yield part, *self._both(similarity, rows, texts)

    def _parts(self) -> Iterator[slice]:
        step = max(1, self.block // len(self.texts))
        for start in range(0, len(self.videos), step):
            yield slice(start, min(start + step, len(self.videos)))

    def _both(
        self, similarity: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.temperature:
            both = similarity.astype(np.float32)
            return both, both
        scaled = similarity / self.temperature
        of_query_video = np.exp(scaled - self._over_videos[columns])  # among all videos
        of_query_text = np.exp(scaled - self._over_texts[rows])  # among all texts
        return (
            (similarity * of_query_video).astype(np.float32),
            (similarity * of_query_text).astype(np.float32),
        )
