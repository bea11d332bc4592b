"""The labels of one shot, settled anew in each view of it: which flow brings, which are born.

In each superpixel the labels that flow brings are weighed by how much it looks like them. What
looks like nothing known is a lost label that is back, or a new one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Int64

from tokenization.superpixels import Superpixels, fill_gaps
from tokenization.trackers.appearance import (
    Examples,
    closeness,
    colour_likelihood,
    local_likelihood,
)
from tokenization.trackers.births import grow, newborn
from tokenization.trackers.flow_settings import FlowSettings
from tokenization.trackers.memory import Memory
from tokenization.trackers.optical_flow import Origins
from tokenization.trackers.smoothing import smoothed
from tokenization.trackers.views import View

# What is left of a likelihood where a label has none: evidence may be wrong.
_NO_VOTE, _ELSEWHERE, _UNLIKE = 0.02, 0.005, 0.02
_PRIOR = 3.0  # superpixels nearby that a label needs for a local density of its own


class Shot:
    """Labels in the course of tracking. Inside, they are 0..k-1; `ids` are those outside.

    Args:
      settings: of the tracker.
      view: the first one.
      segments: of it, as given; gaps are filled.
      born_above: new labels have numbers above it.
    """

    def __init__(
        self,
        settings: FlowSettings,
        view: View,
        segments: Int32[np.ndarray, "h w"],
        *,
        born_above: int,
    ) -> None:
        self._settings = settings
        self._born = born_above
        self._time = 0
        cells = view.cells
        filled = fill_gaps(segments, view.lab)
        if not filled.any():
            filled = np.ones_like(filled)
            self._born = max(self._born, 1)
        self._ids, labels = np.unique(filled, return_inverse=True)
        self._labels = labels.reshape(filled.shape)
        self._areas = np.zeros(self._ids.size)
        shared = cells.counts(self._labels, self._ids.size)
        owners = shared.argmax(1)
        # A segment smaller than a superpixel is remembered by the one that holds most of it.
        missed = np.setdiff1d(np.arange(self._ids.size), owners)
        features = cells.graph.features
        features = np.concatenate([features, features[shared[:, missed].argmax(0)]])
        self._memory = Memory(
            features, np.concatenate([owners, missed]), patience=settings.patience
        )
        self._first = self._memory.examples
        self._weigh()

    @property
    def labels(self) -> Int32[np.ndarray, "h w"]:
        """Of the last frame."""
        return self._ids[self._labels].astype(np.int32)

    def follow(
        self,
        view: View,
        came: Origins,
        segments: Int32[np.ndarray, "h w"] | None,
    ) -> None:
        """Labels a view whose pixels came from the last one."""
        settings, cells = self._settings, view.cells
        self._time += 1
        graph, features = cells.graph, cells.graph.features
        brought = self._labels[came.rows, came.columns]
        chances, covered = self._chances(cells, came, brought)
        best = chances.argmax(1)
        distances = self._memory.distances(features, self._ids.size)
        near = distances[np.arange(best.size), best] < settings.foreign
        owners = np.where(covered & near, best, -1)
        carried = (owners >= 0)[cells.labels]
        if (owners < 0).any():
            neighbours = graph.neighbours()
            grow(owners, distances, neighbours, settings.grow)
            self._bear(owners, cells, segments, distances)
            if (free := np.flatnonzero(owners < 0)).size:
                # Those that were just born begin with what they are.
                distances = np.pad(distances, ((0, 0), (0, self._ids.size - distances.shape[1])))
                distances[free] = self._memory.distances(features[free], self._ids.size)
                grow(owners, distances, neighbours, np.inf)
        kept = carried & came.sure & (chances[cells.labels, brought] > settings.keep)
        native = distances[np.arange(owners.size), np.minimum(owners, distances.shape[1] - 1)]
        native = (native < settings.foreign) | (owners >= distances.shape[1])
        self._memory.update(features[native], owners[native], self._time)
        self._labels = np.where(kept, brought, owners[cells.labels])
        self._weigh()

    def _chances(
        self,
        cells: Superpixels,
        came: Origins,
        brought: Int64[np.ndarray, "h w"],
    ) -> tuple[Float[np.ndarray, "s k"], Bool[np.ndarray, " s"]]:
        """Probabilities of the labels in each superpixel, and where flow brought any at all."""
        settings, k = self._settings, self._ids.size
        areas, features = cells.graph.areas, cells.graph.features
        votes = cells.counts(brought, k, where=came.sure)
        there = cells.means(came.columns, came.rows) / max(brought.shape)
        moved = np.concatenate([features[:, :3], settings.position * there], 1)
        last = self._memory.examples
        lately = local_likelihood(
            moved,
            last,
            k,
            bandwidth=settings.colour,
            reach=settings.position * settings.reach,
            prior=_PRIOR,
        )
        close = closeness(moved, last, k, reach=settings.position * settings.jump)
        first = colour_likelihood(features, self._first, k, bandwidth=settings.first_colour)
        evidence = (
            np.log(votes / areas[:, None] + _NO_VOTE)
            + np.log(close + _ELSEWHERE)
            + np.log(_relative(lately) + _UNLIKE)
            + settings.first * np.log(_relative(first) + _UNLIKE)
        )
        chances = smoothed(evidence, cells.graph, edge=settings.edge, strength=settings.smoothing)
        return chances, votes.sum(1) >= np.maximum(settings.min_vote * areas, 1)

    def _bear(
        self,
        owners: Int64[np.ndarray, " s"],
        cells: Superpixels,
        segments: Int32[np.ndarray, "h w"] | None,
        distances: Float[np.ndarray, "s k"],
    ) -> None:
        """Gives large uncovered regions a lost label or a new one, in place.

        Where nothing is covered, the largest region gets one however small it is, so that the
        others have something to join.
        """
        graph = cells.graph
        free = np.flatnonzero(owners < 0)
        if not free.size:
            return
        region, areas = newborn(cells, free, segments, self._settings.new)
        lost = np.ones(self._ids.size, bool)
        lost[owners[owners >= 0]] = False
        largest_first = np.argsort(-areas, kind="stable")
        large = areas[largest_first] >= self._settings.min_birth * cells.labels.size
        large[0] |= free.size == owners.size
        for number in largest_first[large]:
            members = free[region == number]
            label = self._returning(distances[members], graph.areas[members], lost)
            if label is None:
                label = self._new(graph.features[members])
            else:
                lost[label] = False
            owners[members] = label
            self._memory.update(graph.features[members], owners[members], self._time)

    def _returning(
        self,
        distances: Float[np.ndarray, "s k"],
        areas: Float64[np.ndarray, " s"],
        lost: Bool[np.ndarray, " k"],
    ) -> int | None:
        """The lost label that a region most looks like, if it does."""
        candidates = np.flatnonzero(lost)
        if not candidates.size:
            return None
        unlike = np.average(distances[:, candidates], axis=0, weights=areas)
        unlike += 4 * np.abs(np.log(self._areas[candidates] / areas.sum()))
        best = int(unlike.argmin())
        return int(candidates[best]) if unlike[best] < self._settings.revive else None

    def _new(self, features: Float64[np.ndarray, "s c"]) -> int:
        label = self._ids.size
        self._born += 1
        self._ids = np.append(self._ids, np.int32(self._born))
        self._areas = np.append(self._areas, 0.0)
        self._first = self._first.join(Examples.of(features, np.full(len(features), label)))
        return label

    def _weigh(self) -> None:
        """Keeps a running mean of each label's area while it is seen."""
        areas = np.bincount(self._labels.reshape(-1), minlength=self._ids.size).astype(float)
        mixed = np.where(self._areas > 0, (self._areas + areas) / 2, areas)
        self._areas = np.where(areas > 0, mixed, self._areas)


def _relative(likelihood: Float[np.ndarray, "s k"]) -> Float[np.ndarray, "s k"]:
    """To the largest of all labels; 1 where none is likely."""
    return (likelihood + 1e-3) / (likelihood.max(1, keepdims=True) + 1e-3)
