"""Labels followed from one view to the next, and from a view in the middle to both ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from tokenization.resizing import resize_labels
from tokenization.trackers.flow_settings import FlowSettings
from tokenization.trackers.optical_flow import Origins
from tokenization.trackers.shot import Shot
from tokenization.trackers.views import View


def follow(
    settings: FlowSettings,
    ways: Iterable[tuple[View, Origins | None]],
    segments: Mapping[int, Int32[np.ndarray, "_ _"]],
) -> Iterator[tuple[View, Int32[np.ndarray, "h w"]]]:
    """Labels of views, at working resolution, from the first of them on.

    Args:
      settings: of the tracker.
      ways: views, each with where its pixels are in the one before; None for the first.
      segments: of sampled frames, by their offset. Those of the first view are its labels, and
        later ones tell how uncovered regions fall into new labels.

    Raises:
      ValueError: the first view has no segmentation.
    """
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
            shot = Shot(settings, view, given, born_above=born_above)
        else:
            shot.follow(view, came, given)
        yield view, shot.labels


def follow_both_ways(
    settings: FlowSettings,
    path: Sequence[View],
    start: int,
    segments: Mapping[int, Int32[np.ndarray, "_ _"]],
) -> Int32[np.ndarray, "t h w"]:
    """Labels of the sampled views, followed from one of them to both ends.

    What is born on the way to the end, and on the way to the beginning, has different numbers.

    Args:
      settings: of the tracker.
      path: all views in order, with the flow in both directions.
      start: place of a sampled view.
      segments: see `follow`.

    Raises:
      ValueError: the start has no segmentation.
    """
    # Where nothing is segmented, what there is has label 1 (`Shot`): it is no birth.
    given = max(1, *(int(its.max()) for its in segments.values()))
    ahead = [(path[start], None), *((view, view.came) for view in path[start + 1 :])]
    steps = list(itertools.pairwise(path[: start + 1]))
    back = [(path[start], None), *((view, later.went) for view, later in reversed(steps))]
    found = _sampled(follow(settings, ahead, segments))
    born = max(0, max(int(labels.max()) for labels in found.values()) - given)
    for frame, labels in _sampled(follow(settings, back, segments)).items():
        found[frame] = np.where(labels > given, labels + born, labels)
    return np.stack([found[frame] for frame in sorted(found)])


def _sampled(
    followed: Iterable[tuple[View, Int32[np.ndarray, "h w"]]],
) -> dict[int, Int32[np.ndarray, "h w"]]:
    """Labels of the sampled views, by their offset in the clip."""
    return {view.sampled: labels for view, labels in followed if view.sampled is not None}
