"""Conversations joined with records of their videos, and where a batch of them goes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64
from tqdm import tqdm

from trajvit_jax.data.index import record_ids
from trajvit_jax.data.packing import PackingSettings, place, plan
from trajvit_jax.data.source import Record, RecordSource
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.llm.conversation import Conversation, ConversationError, first_of
from trajvit_jax.llm.eyes import EyesSettings, slots_of, token_numbers
from trajvit_jax.llm.names import record_id
from trajvit_jax.llm.packing import RowSettings, plan_rows
from trajvit_jax.llm.sequences import ContextOverflow
from trajvit_jax.llm.tokenizer import ChatTokenizer, Encoded
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows

NO_VIDEO = -1
"""In `TalkSource.record`: the conversation has no such video."""
NOTHING = -1
"""In `TalkPlan.number`: there is no conversation in this place."""
_LOG = logging.getLogger(__name__)
_MOST_NAMES = 3


@dataclasses.dataclass(frozen=True)
class Reader:
    """How conversations become what the model reads.

    Attributes:
      video: settings of the video encoder.
      eyes: which of its states are read.
      tokenizer: of the text.
      rows: into which conversations are packed.
      packing: rows that videos share in the encoder, in groups as large; None = one a video.

    Raises:
      ValueError: groups of two sizes, or conversations of several videos whose rows are shared.
    """

    video: ModelSettings
    eyes: EyesSettings
    tokenizer: ChatTokenizer
    rows: RowSettings
    packing: PackingSettings | None = None

    def __post_init__(self) -> None:
        if self.packing is not None and self.packing.group != self.rows.group:
            raise ValueError(
                f"data.packing.group={self.packing.group} and rows.group={self.rows.group} must "
                "be the same: conversations stay with their videos"
            )
        if self.packing is not None and self.rows.media:
            raise ValueError(
                f"rows.media={self.rows.media}: conversations of several videos do not share rows "
                "of the encoder; leave out data.packing"
            )

    @functools.cached_property
    def slots(self) -> int:
        """Of a video in a row of its own."""
        return slots_of(self.video)

    @property
    def row_slots(self) -> int:
        """Of a row of the encoder."""
        return self.slots if self.packing is None else self.packing.slots

    @property
    def each(self) -> int:
        """Tokens of a trajectory."""
        return self.video.trajvit.tokens_each

    @property
    def follows(self) -> bool:
        """Whether tokens are trajectories, of which a video has more or fewer."""
        return self.video.name == "trajvit"

    def tokens(self, trajectories: int, *, start: int = 0) -> Int32[np.ndarray, " n"]:
        """Numbers of a video's tokens in its group, see `token_numbers`."""
        return token_numbers(self.video, self.eyes, trajectories, self.slots, start=start)


def _problem(one: Conversation, most: int) -> str:
    """Why training cannot read a conversation; '' = it can."""
    if len(one.videos) > most:
        return (
            f"conversation {one.id!r} has {len(one.videos)} videos, of which rows have places for "
            f"{most}: raise rows.media"
        )
    if not any(turn.role == "assistant" for turn in one.turns):
        return f"conversation {one.id!r} has no answer"
    return ""


class TalkSource:
    """Conversations whose videos have records.

    Args:
      conversations: all of them.
      records: that hold their videos.
      reader: how they are read.
      source: what messages call the conversations.
      max_bad: the share of them that may be left out, and is told of, because they have no answer
        or too many videos, or are longer than a row, however few trajectories are read.
      max_missing: likewise, because one of their videos has no record.

    Attributes:
      talks: the conversations that are read.
      record: of each one's videos, or `NO_VIDEO`.
      trajectories: of each of them.
      no_slot: trajectories that the model has no slots for.
      fixed: tokens of each conversation without trajectories.

    Raises:
      ConversationError: more than that without an answer or with too many videos, more than that
        without a record, or no conversation at all whose videos have them.
      ContextOverflow: more than that, with those that are longer than a row.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        records: Sequence[Record],
        reader: Reader,
        *,
        source: str = "conversations",
        max_bad: float = 0.0,
        max_missing: float = 1.0,
    ):
        self.records, self.reader = records, reader
        numbers = {name: number for number, name in enumerate(record_ids(records))}
        kept: list[tuple[Conversation, list[int]]] = []
        missing, bad = [], []
        for one in conversations:
            if problem := _problem(one, reader.rows.most_videos):
                bad.append(problem)
                continue
            names = [record_id(video) for video in one.videos]
            absent = [name for name in names if name not in numbers]
            if absent:
                missing.append(absent[0])
            else:
                kept.append((one, [numbers[name] for name in names]))
        if len(bad) > max_bad * len(conversations):
            raise ConversationError(f"{source}: {first_of(bad)}")
        if missing and kept:
            named = ", ".join(missing[:_MOST_NAMES]) + ", .." * (len(missing) > _MOST_NAMES)
            told = f"{len(missing)} of {len(conversations)} conversations"
            if len(missing) > max_missing * len(conversations):
                raise ConversationError(
                    f"{source}: the videos of {told} have no record in {records!r}: {named}; "
                    f"extract them, or raise max_missing={max_missing:g} to train on the others"
                )
            told += " are left out, whose videos have no record"
            _LOG.warning("%s: %s: %s", source, told, named)
        if not kept:
            raise ConversationError(
                f"{source}: no conversation's video has a record in {records!r}; a record's id is "
                "the video's path without its suffix: extract a manifest of python -m "
                "trajvit_jax.llm.manifest"
            )
        self.talks = [one for one, _ in kept]
        most = max(1, *(len(own) for _, own in kept))
        padded = [own + [NO_VIDEO] * (most - len(own)) for _, own in kept]
        self.record = np.array(padded, np.int64)
        self._measure(source, bad, max_bad * len(conversations))

    def __len__(self) -> int:
        return len(self.talks)

    def _measure(self, source: str, bad: list[str], most_bad: float) -> None:
        """Tokens of each conversation: those that are certain, and trajectories.

        What is longer than a row is left out with what is bad already.
        """
        reader, counts = self.reader, trajectory_counts(self.records)
        text, seen = np.zeros((2, len(self)), np.int64)
        told = tqdm(range(len(self)), "counting tokens of conversations", unit="talk", delay=5)
        for number in told:
            encoded = self.encoded(number)
            seen[number] = encoded.media
            text[number] = len(encoded.ids) - encoded.media
        there = (self.record >= 0) & reader.follows
        stored = np.where(there, counts[np.maximum(self.record, 0)], 0)
        most = reader.video.trajvit.max_trajectories
        self.trajectories = np.minimum(stored, most)
        self.no_slot = np.maximum(stored - most, 0)
        self.fixed = text + len(reader.tokens(0)) * seen
        fits = self.fixed <= reader.rows.length
        if not fits.all():
            longest, long = int(self.fixed.argmax()), int((~fits).sum())
            told = (
                f"conversation {self.talks[longest].id!r} takes at least {self.fixed[longest]} "
                f"tokens ({text[longest]} of text), a row holds {reader.rows.length}, and {long} "
                f"of {len(self)} conversations are longer"
            )
            if long + len(bad) > most_bad or long == len(self):
                raise ContextOverflow(
                    f"{source}: {told}: raise rows.length, or leave the conversations out"
                )
            bad = [*bad, told]
            self.talks = [talk for talk, fit in zip(self.talks, fits, strict=True) if fit]
            self.record, self.fixed = self.record[fits], self.fixed[fits]
            self.trajectories, self.no_slot = self.trajectories[fits], self.no_slot[fits]
        if bad:
            _LOG.warning("%s: conversations are left out: %s", source, first_of(bad))
        rows, mean = reader.rows, float(self.fixed.mean())
        if mean * rows.group > rows.rows * rows.length:
            raise ContextOverflow(
                f"{source}: {rows.group} conversations of {mean:.0f} tokens in the mean, without "
                f"trajectories, do not fit {rows.rows} rows of {rows.length}: raise rows.rows or "
                "rows.length"
            )

    def encoded(self, number: int) -> Encoded:
        """Text ids of a conversation."""
        return self.reader.tokenizer.encode(self.talks[number])

    @functools.cached_property
    def fingerprint(self) -> str:
        """What the conversations and their videos are, for `trajvit_jax.experiment.check`."""
        digest = hashlib.sha256()
        for talk in self.talks:
            digest.update(repr(talk).encode())
        told = digest.hexdigest()[:16]
        own = self.records.fingerprint if isinstance(self.records, RecordSource) else ""
        return f"{told}+{own}"


@dataclasses.dataclass(frozen=True, eq=False)
class TalkPlan:
    """What all processes together read in a step, in its order.

    Attributes:
      number: of each conversation, or `NOTHING`.
      row: as in `RowPlan`, as the next two.
      place: of its videos.
      kept: trajectories.
      dropped: trajectories of all its videos that are not read, with those that have no slot.
      start: the slot of each video's CLS in its group.
      rows: of the encoder, or None.
    """

    number: Int64[np.ndarray, " b"]
    row: Int64[np.ndarray, " b"]
    place: Int64[np.ndarray, "b m"]
    kept: Int64[np.ndarray, "b m"]
    dropped: Int64[np.ndarray, " b"]
    start: Int64[np.ndarray, "b m"]
    rows: Rows | None


def plan_talks(source: TalkSource, numbers: Int64[np.ndarray, " b"]) -> TalkPlan:
    """Where a batch of conversations (or `NOTHING`) and their videos go."""
    reader, there = source.reader, numbers != NOTHING
    fixed, videos = source.fixed[numbers] * there, (source.record[numbers] >= 0).sum(1) * there
    counts, no_slot = (x[numbers] * there[:, None] for x in (source.trajectories, source.no_slot))
    each, rows = reader.each, None
    if reader.packing is None or not reader.follows:
        made = plan_rows(fixed, counts, reader.rows, videos=videos, each=each)
        start = np.maximum(made.place, 0) * reader.slots
    else:
        # The encoder's rows say who is in a group, and how many trajectories it has slots for.
        eyes = plan(counts[:, 0], reader.packing, each=each)
        given = np.empty_like(counts)
        given[eyes.order, 0] = eyes.kept
        made = plan_rows(fixed, given, reader.rows, videos=videos, each=each, order=eyes.order)
        start = (eyes.row % reader.packing.rows * reader.packing.slots + eyes.start)[:, None]
        rows = place(eyes, reader.packing, each=each)
    dropped = (counts + no_slot)[made.order] - made.kept
    number = numbers[made.order]
    return TalkPlan(number, made.row, made.place, made.kept, dropped.sum(1), start, rows)
