"""What can be set of the tracker that follows labels by optical flow."""

from __future__ import annotations

import dataclasses


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
