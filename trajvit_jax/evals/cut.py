"""How the records that a number is of were cut: a model of trajectories reads what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# As Table 5 has them, by the ablation's name. All other rows that a result can stand beside read
# DirectSAM's segments as SAM 2 follows them; Table 6's row of SAM's segments has no name here.
_PAPER = {"segmentation_only": "directsam + none", "tracking_only": "patches + patches"}
_USUAL = "directsam + sam2"
# Groups of settings that a segmenter or a tracker reads; records note those of all.
_READ_BY = {
    "classical": ("classical.",),
    "directsam": ("learned.directsam.",),
    "sam2": ("learned.sam2.", "learned.point_grid."),
    "edgetam": ("learned.edgetam.",),
    "flow": ("flow.", "tubes."),
    "patches": ("walk.",),
}
_PROGRAMS = ("segmenter", "tracker")
_SHOWN = 3


def cut_of(made_by: Mapping[str, Any]) -> str:
    """'SEGMENTER + TRACKER' of an extraction's settings; '' where they do not say."""
    pipeline = _pipeline(made_by)
    parts = [pipeline.get(name) for name in _PROGRAMS]
    return " + ".join(map(str, parts)) if all(parts) else ""


def papers_cut(ablation: str) -> str:
    """The same of the paper's records, of a row of that name."""
    return _PAPER.get(ablation, _USUAL)


def cut_otherwise(read: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """In which settings records were cut in another way than those of training; '' = in none.

    How many frames there are is no difference, nor are settings that neither reads, or that only
    one of two versions has.

    Args:
      read: what made the records that are evaluated on, as JSON.
      trained: what made those of training.
    """
    ours, theirs = (_settings(_pipeline(one)) for one in (read, trained))
    found = [
        f"{name} {ours[name]} (training's {theirs[name]})"
        for name in sorted(ours, key=lambda name: name not in _PROGRAMS)  # the weightiest first
        if name in theirs and ours[name] != theirs[name]
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _pipeline(made_by: Mapping[str, Any]) -> Mapping[str, Any]:
    found = made_by.get("pipeline", {})
    return found if isinstance(found, Mapping) else {}


def _settings(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Those that decide how trajectories are made, by dotted name."""
    programs = [pipeline.get(name) for name in _PROGRAMS]
    read = ("keyframes.", *(group for one in programs for group in _READ_BY.get(one, ())))
    found = dict(_flat(pipeline))
    if not found.get("discover"):
        read = tuple(group for group in read if group != "tubes.")
    return {
        name: value
        for name, value in found.items()
        if name != "frames" and ("." not in name or name.startswith(read))
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
