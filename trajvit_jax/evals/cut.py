"""How the records that a number is of were cut: a model of trajectories reads what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# As Table 5 has them, by the ablation's name; all other rows of the paper read DirectSAM's segments
# as SAM 2 follows them.
_PAPER = {"segmentation_only": "directsam + none", "tracking_only": "patches + patches"}
_USUAL = "directsam + sam2"
# Of the frames that are read, and of the machine: they say nothing about how trajectories are made.
_ELSEWHERE = ("frames", "max_side", "learned.running")
_SHOWN = 3


def cut_of(made_by: Mapping[str, Any]) -> str:
    """'SEGMENTER + TRACKER' of an extraction's settings; '' where they do not say."""
    pipeline = _pipeline(made_by)
    parts = [pipeline.get(name) for name in ("segmenter", "tracker")]
    return " + ".join(map(str, parts)) if all(parts) else ""


def papers_cut(ablation: str) -> str:
    """The same of the paper's records, of a row of that name."""
    return _PAPER.get(ablation, _USUAL)


def cut_otherwise(read: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """In which settings records were cut in another way than those of training; '' = in none.

    Settings that only one of two programs has do not count.

    Args:
      read: what made the records that are evaluated on, as JSON.
      trained: what made those of training.
    """
    ours, theirs = (dict(_flat(_pipeline(one))) for one in (read, trained))
    found = [
        f"{name} {ours[name]} (training's {theirs[name]})"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]
    # The weightiest first: which programs they were.
    found.sort(key=lambda told: not told.startswith(("segmenter ", "tracker ")))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _pipeline(made_by: Mapping[str, Any]) -> Mapping[str, Any]:
    found = made_by.get("pipeline", {})
    return found if isinstance(found, Mapping) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        name = f"{prefix}{name}"
        if name in _ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
