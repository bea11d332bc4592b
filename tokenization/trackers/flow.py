"""The embedded default tracker: labels carried by optical flow, settled superpixel by superpixel.

One flow serves all labels, so the cost hardly grows with their number.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Int64

from tokenization.protocols import Clip
from tokenization.resizing import resize_labels
from tokenization.superpixels import Superpixels, colour_features, fill_gaps
from tokenization.trackers.appearance import (
    Examples,
    closeness,
    colour_likelihood,
    local_likelihood,
)
from tokenization.trackers.births import components, grow
from tokenization.trackers.camera import own_motion
from tokenization.trackers.memory import Memory
from tokenization.trackers.optical_flow import Origins
from tokenization.trackers.smoothing import smoothed
from tokenization.trackers.tubes import (
    Tubes,
    TubeSettings,
    common_pieces,
    merge_tubes,
    tubes_of,
)
from tokenization.trackers.views import View, views

# What is left of a likelihood where a label has none: evidence may be wrong.
_NO_VOTE, _ELSEWHERE, _UNLIKE = 0.02, 0.005, 0.02
_PRIOR = 3.0  # superpixels nearby that a label needs for a local density of its own


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """Distances are those of `superpixels.colour_features`, about those of CIE Lab.

    Attributes:
      side: longer side of the working resolution, in pixels; smaller frames stay as they are.
      superpixels: in a frame; fewer if they would have under 16 pixels.
      between: most frames to look at between two sampled ones.
      chain: frames that flow goes through, at most, before labels are settled anew.
      colour_tolerance: colour change along the flow above which it is not believed.
      min_vote: share of a superpixel that must come from somewhere to be carried over; a pixel
        at the least.
      colour: bandwidth of what a label looked like around there when it was last seen.
      reach: bandwidth of "around there", as a fraction of the longer side.
      jump: how far a label gets where flow did not bring it, as a fraction of the longer side.
      first: weight of what a label looked like when it was first seen, anywhere in the frame.
      first_colour: bandwidth of that.
      edge: colour difference at which neighbours no longer draw each other to one label.
      smoothing: how much they do.
      keep: probability of a label in a superpixel above which its pixels there keep it.
      foreign: distance from all that a label looked like above which a superpixel cannot be
        carried over to it.
      grow: distance up to which an uncovered superpixel joins a neighbouring label.
      position: what a distance of the longer side of the frame adds to that of colours.
      new: distance between neighbouring uncovered superpixels of one new label, where no
        segmentation tells.
      min_birth: area of a new label, as a fraction of the frame; smaller uncovered regions
        join their most similar neighbour.
      revive: mean distance, plus 4 for each e-fold of area, up to which a new label is a lost
        one that is back.
      patience: settled frames for which a lost label is remembered.

    Raises:
      ValueError: a value out of its range.
    """

    side: int = 256
    superpixels: int = 1000
    between: int = 5
    chain: int = 3
    colour_tolerance: float = 25.0
    min_vote: float = 0.0
    colour: float = 4.0
    reach: float = 0.03
    jump: float = 0.05
    first: float = 1.0
    first_colour: float = 6.0
    edge: float = 6.0
    smoothing: float = 0.5
    keep: float = 0.2
    foreign: float = 14.0
    grow: float = 6.0
    position: float = 30.0
    new: float = 6.0
    min_birth: float = 0.001
    revive: float = 12.0
    patience: int = 48

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name in _ABOVE_ZERO):
                least = "> 0" if field.name in _ABOVE_ZERO else ">= 0"
                raise ValueError(f"FlowSettings.{field.name} = {value} must be {least}")


_ABOVE_ZERO = (
    "side", "superpixels", "chain", "colour", "reach", "jump", "first_colour", "edge", "position",
)  # fmt: skip


class FlowTracker:
    """Follows segments from frame to frame and starts labels for what comes into view.

    Dense optical flow, composed over the frames between where the clip has them, carries the
    labels over where going forward and backward agrees. In each superpixel the labels that come
    are weighed by how much it looks like them: like what they looked like around there a moment
    ago, and like what they looked like when first seen. Neighbouring superpixels of one colour
    draw each other to one label. What looks like nothing known is a lost label that is back, or
    a new one. Every pixel of every frame gets a label.
    """

    name = "flow"
    gives_birth = True

    def __init__(
        self, settings: FlowSettings | None = None, tubes: TubeSettings | None = None
    ) -> None:
        self._settings = settings or FlowSettings()
        self._tubes = tubes or TubeSettings()

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Labels of every frame of each clip; see `protocols.Tracker`.

        Segmentations at offsets above 0 only tell how uncovered regions fall into new labels.
        """
        return [self._track(clip) for clip in clips]

    @staticmethod
    def starts(frames: int) -> list[int]:
        """The first frame, the middle and the last one; see `protocols.Discoverer`."""
        return sorted({0, frames // 2, frames - 1})

    def discover(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Trajectories of each clip; see `protocols.Discoverer`.

        Labels are sharp where they start and blur from there. So they are followed from several
        frames, each time through the whole clip, and the pieces on which all agree are joined by
        what is seen of them in all frames (`merge_tubes`). Superpixels and flow are found once.
        What one frame shows is left as it was segmented: without motion, too much would be joined.
        """
        return [self._discover(clip) for clip in clips]

    def _discover(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        if len(clip.frames) == 1:
            return self._track(clip)
        agreed, tubes = self.pieces(clip)
        labels = (merge_tubes(tubes, self._tubes) + 1).astype(np.int32)[agreed]
        return np.stack([resize_labels(its, *clip.frames.shape[1:3]) for its in labels])

    def pieces(self, clip: Clip) -> tuple[Int64[np.ndarray, "t h w"], Tubes]:
        """Where labels from all starts agree, at working resolution: numbers 0..n-1, and of what.

        Args:
          clip: with a segmentation of each of its `starts`.

        Raises:
          ValueError: a start without one.
        """
        path = list(self._views(clip, both_ways=True))
        sampled = [place for place, view in enumerate(path) if view.sampled is not None]
        starts = [sampled[frame] for frame in self.starts(len(sampled))]
        agreed = common_pieces(*(self._from(path, start, clip.segments) for start in starts))
        motions = [
            (own_motion(later.went), later.went.sure)
            for view, later in itertools.pairwise(path)
            if view.sampled is not None and later.went is not None
        ]
        colours = np.stack([colour_features(path[place].lab) for place in sampled])
        return agreed, tubes_of(agreed, colours, motions)

    def _from(
        self, path: Sequence[View], start: int, segments: Mapping[int, Int32[np.ndarray, "_ _"]]
    ) -> Int32[np.ndarray, "t h w"]:
        """Labels of the sampled views, followed from one of them to both ends."""
        # Where nothing is segmented, what there is has label 1 (`_Shot`): it is no birth.
        given = max(1, *(int(its.max()) for its in segments.values()))
        ahead = [(path[start], None), *((view, view.came) for view in path[start + 1 :])]
        steps = list(itertools.pairwise(path[: start + 1]))
        back = [(path[start], None), *((view, later.went) for view, later in reversed(steps))]
        found: dict[int, Int32[np.ndarray, "h w"]] = {}
        born = 0  # on the way before
        for way in (ahead, back):
            for view, labels in self._follow(way, segments):
                if view.sampled is not None:
                    found[view.sampled] = np.where(labels > given, labels + born, labels)
            born = max(0, max(int(labels.max()) for labels in found.values()) - given)
        return np.stack([found[frame] for frame in sorted(found)])

    def _track(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        height, width = clip.frames.shape[1:3]
        given = clip.segments[0]
        labels = np.empty(clip.frames.shape[:3], np.int32)
        ways = ((view, view.came) for view in self._views(clip, both_ways=False))
        for view, found in self._follow(ways, clip.segments):
            if view.sampled is not None:
                labels[view.sampled] = resize_labels(found, height, width)
        labels[0] = np.where(given > 0, given, labels[0])
        return labels

    def _follow(
        self,
        ways: Iterable[tuple[View, Origins | None]],
        segments: Mapping[int, Int32[np.ndarray, "_ _"]],
    ) -> Iterator[tuple[View, Int32[np.ndarray, "h w"]]]:
        """Labels of views, each given with the way to it from the one before."""
        born_above = max(int(its.max()) for its in segments.values())
        shot = None
        for view, came in ways:
            given = None if view.sampled is None else segments.get(view.sampled)
            if given is not None:
                given = resize_labels(given, *view.cells.labels.shape)
            if shot is None or came is None:
                if given is None:
                    raise ValueError(
                        f"the clip has no segmentation of frame {view.sampled}, where labels start"
                    )
                shot = _Shot(self._settings, view, given, born_above=born_above)
            else:
                shot.follow(view, came, given)
            yield view, shot.labels

    def _views(self, clip: Clip, *, both_ways: bool) -> Iterator[View]:
        settings = self._settings
        return views(
            clip,
            both_ways=both_ways,
            side=settings.side,
            superpixels=settings.superpixels,
            position=settings.position,
            chain=settings.chain,
            colour_tolerance=settings.colour_tolerance,
        )


class _Shot:
    """Labels in the course of tracking. Inside, they are 0..k-1; `ids` are those outside."""

    def __init__(
        self,
        settings: FlowSettings,
        view: View,
        segments: Int32[np.ndarray, "h w"],
        *,
        born_above: int,
    ) -> None:
        """Starts with the segments of the first frame as given, gaps filled."""
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
        if segments is None:
            colours = graph.features[:, :3]
            lengths = np.linalg.norm(
                colours[graph.edges[:, 0]] - colours[graph.edges[:, 1]], axis=1
            )
            joined = lengths <= self._settings.new
        else:
            parts = cells.counts(segments, int(segments.max()) + 1).argmax(1)
            part = parts[graph.edges]
            joined = part[:, 0] == part[:, 1]
        kept = dataclasses.replace(graph, edges=graph.edges[joined]).subgraph(free)
        region = components(kept)
        areas = np.bincount(region, kept.areas)
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
