"""Where everything stands that the language model reads: text ids, and tokens of videos.

Made on the host from counts alone, in fixed shapes. A placeholder is replaced by as many places
as its video has tokens; the device fills them by looking up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int32

from trajvit_jax.llm.tokenizer import MEDIA, Encoded

TEXT = -1
"""In `Sequences.source`: this is text (or padding), not a token of a video."""


class ContextOverflow(ValueError):
    """A conversation longer than what may hold it; the message says by how much."""


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Sequences:
    """Rows of places for tokens; a row may hold several conversations.

    Rows belong to groups, as videos do: row i of r rows of g groups is of group i // (r / g), and
    looks up only what that group's videos have.

    Attributes:
      ids: of text; 0 elsewhere.
      source: number of a video token among those of its group; `TEXT` where there is none.
      segment: which conversation of its row a place is of, from 1; 0 = padding.
      target: places whose token an answer consists of.
    """

    ids: Int32[Array, "r l"]
    source: Int32[Array, "r l"]
    segment: Int32[Array, "r l"]
    target: Bool[Array, "r l"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A conversation with a place for every token.

    Attributes: as in `Sequences`, of one conversation.
    """

    ids: Int32[np.ndarray, " l"]
    source: Int32[np.ndarray, " l"]
    target: Bool[np.ndarray, " l"]

    def __len__(self) -> int:
        return len(self.ids)


def spread(
    encoded: Encoded, media: Sequence[Int32[np.ndarray, " _"]], *, name: str = "the conversation"
) -> Spread:
    """Gives each video's tokens places where its placeholder stood.

    Args:
      encoded: text ids with placeholders.
      media: of each video, the numbers of its tokens in the group (see `Sequences.source`).
      name: what messages call it.

    Raises:
      ValueError: another number of placeholders than of videos.
    """
    places = np.flatnonzero(encoded.ids == MEDIA)
    if len(places) != len(media):
        raise ValueError(
            f"{name} has {len(places)} placeholders for {len(media)} videos; write one for each"
        )
    ids, source, target = [], [], []
    start = 0
    for place, numbers in zip([*places, len(encoded.ids)], [*media, None], strict=True):
        text = slice(start, place)
        ids.append(encoded.ids[text])
        source.append(np.full(place - start, TEXT, np.int32))
        target.append(encoded.target[text])
        if numbers is not None:
            ids.append(np.zeros(len(numbers), np.int32))
            source.append(numbers.astype(np.int32))
            target.append(np.zeros(len(numbers), bool))
        start = place + 1
    return Spread(*(np.concatenate(parts) for parts in (ids, source, target)))


def check_length(length: int, most: int, *, name: str, text: int, what: str = "context") -> None:
    """Checks that a conversation fits.

    Args:
      length: of it, in tokens.
      most: that may be.
      name: what the message calls it.
      text: how many of its tokens are text; the others are of videos.
      what: holds `most` tokens.

    Raises:
      ContextOverflow: it does not.
    """
    if length > most:
        raise ContextOverflow(
            f"{name} takes {length} tokens ({text} of text, {length - text} of videos), the "
            f"{what} holds {most}: shorten the text, or take fewer frames or videos"
        )


def rows_of(rows: Sequence[Sequence[Spread]], length: int, *, pad_left: bool = False) -> Sequences:
    """Lays conversations into rows of one length.

    Args:
      rows: the conversations of each row, in their order.
      length: of a row.
      pad_left: padding comes first, as generation wants it.

    Raises:
      ContextOverflow: a row whose conversations are longer than it.
    """
    shape = (len(rows), length)
    ids, segment = np.zeros((2, *shape), np.int32)
    source, target = np.full(shape, TEXT, np.int32), np.zeros(shape, bool)
    for row, own in enumerate(rows):
        used = sum(map(len, own))
        text = sum(int((one.source == TEXT).sum()) for one in own)
        check_length(used, length, name=f"row {row}", text=text, what="row")
        at = length - used if pad_left else 0
        for number, one in enumerate(own, 1):
            place = slice(at, at + len(one))
            ids[row, place], source[row, place] = one.ids, one.source
            segment[row, place], target[row, place] = number, one.target
            at += len(one)
    return Sequences(ids, source, segment, target)
