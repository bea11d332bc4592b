"""How the records that a number is of were cut: a model of trajectories reads what it is given.

What made records is the JSON beside them, or beside the model that learned from them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trajvit_jax.config import differences

MadeBy = Mapping[str, Any]

# As Table 5 has them, by the ablation's name. All other rows that a result can stand beside read
# DirectSAM's segments as SAM 2 follows them; Table 6's row of SAM's segments has no name here.
_PAPER = {"segmentation_only": "directsam + none", "tracking_only": "patches + patches"}
_USUAL = "directsam + sam2"
# Groups of settings that a segmenter or a tracker reads; records note those of all.
_READ_BY = {
    "classical": ("classical",),
    "directsam": ("directsam",),
    "sam2": ("sam2", "point_grid"),
    "edgetam": ("edgetam",),
    "flow": ("flow", "tubes"),
    "patches": ("walk",),
}
_PROGRAMS = ("segmenter", "tracker")
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Cuts:
    """How trajectories were cut.

    Attributes:
      read: those that are evaluated on, 'SEGMENTER + TRACKER'; '' = not known.
      trained: likewise those of training.
      otherwise: in which settings they differ; '' = in none that is known.
    """

    read: str = ""
    trained: str = ""
    otherwise: str = ""

    @classmethod
    def of(cls, read: Sequence[MadeBy], trained: MadeBy) -> Cuts:
        """Of what made the records of each folder, and those of training."""
        programs = dict.fromkeys(filter(None, map(cut_of, read)))
        otherwise = next(filter(None, (cut_otherwise(one, trained) for one in read)), "")
        return cls(" and ".join(programs), cut_of(trained), otherwise)


def made_by(path: Path) -> MadeBy:
    """What made records, by the file that says it; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def cut_of(settings: MadeBy) -> str:
    """'SEGMENTER + TRACKER' of an extraction's settings; '' where they do not say."""
    parts = [_pipeline(settings).get(name) for name in _PROGRAMS]
    return " + ".join(map(str, parts)) if all(parts) else ""


def papers_cut(ablation: str) -> str:
    """The same of the paper's records, of a row of that name."""
    return _PAPER.get(ablation, _USUAL)


def cut_otherwise(read: MadeBy, trained: MadeBy) -> str:
    """In which settings records were cut in another way than those of training; '' = in none.

    How many frames there are is no difference, nor are settings that neither reads, or that only
    one of two versions has.
    """
    ours, theirs = (_decisive(_pipeline(one)) for one in (read, trained))
    found = differences(_shared(theirs, ours), _shared(ours, theirs))
    found.sort(key=lambda told: not told.startswith(_PROGRAMS))  # the weightiest first
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _pipeline(settings: MadeBy) -> Mapping[str, Any]:
    found = settings.get("pipeline", {})
    return found if isinstance(found, Mapping) else {}


def _decisive(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide how trajectories are made."""
    groups = {"keyframes", *(g for p in _PROGRAMS for g in _READ_BY.get(pipeline.get(p, ""), ()))}
    if not pipeline.get("discover"):
        groups -= {"tubes"}
    networks = {name: own for name, own in pipeline.get("learned", {}).items() if name in groups}
    own = {
        name: value
        for name, value in pipeline.items()
        if name != "frames" and (name in groups or not isinstance(value, Mapping))
    }
    return own | {"learned": networks}


def _shared(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What the other has, too."""
    return {
        name: _shared(value, other[name])
        if isinstance(value, Mapping) and isinstance(other[name], Mapping)
        else value
        for name, value in one.items()
        if name in other
    }
