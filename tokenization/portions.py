"""What goes into each shard of a split: the work that is left, and what is kept of runs before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization import records, shards
from tokenization.manifest import Entry
from tokenization.recorder import Outcome
from tokenization.records import ShardInfo


@dataclasses.dataclass(frozen=True)
class Portion:
    """What goes into a shard that is not done.

    Attributes:
      info: of the shard, as far as it is known before the work.
      entries: in order.
      keys: of each entry, for the journal: hash of it, its files and the settings, as they are now.
      old: the finished shard of the first of these entries, whose records are kept, or None.
    """

    info: ShardInfo
    entries: Sequence[Entry]
    keys: Sequence[str]
    old: ShardInfo | None

    @property
    def missing(self) -> int:
        """How many of its entries the old shard has no record of."""
        return len(self.entries) - (len(self.old.ids) if self.old else 0)

    def places_kept(self) -> list[int]:
        """Those of its entries of which the old shard has records, in order."""
        ids = set(self.old.ids) if self.old else ()
        return [place for place, entry in enumerate(self.entries) if entry.id in ids]

    def begun(self, known: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """What is known of its other entries, by key."""
        kept_ones = {self.keys[place] for place in self.places_kept()}
        return {key: known[key] for key in self.keys if key in known and key not in kept_ones}

    def by_place(self, begun: Mapping[str, Outcome]) -> dict[int, Outcome]:
        """What is begun, by its place among the entries."""
        return {place: begun[key] for place, key in enumerate(self.keys) if key in begun}

    def places_left(self, begun: Mapping[str, Outcome]) -> list[int]:
        """Those of its entries that are still to be done, in order."""
        there = {*self.places_kept(), *self.by_place(begun)}
        return [place for place in range(len(self.entries)) if place not in there]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
      todo: shards to be written.
      begun: what is done of them, by their number and by key.
      surplus: finished shards behind the last one of the list.
      again: entries of finished videos that are done again nevertheless.
      left: how many entries are to be done.
    """

    todo: Sequence[Portion]
    begun: dict[int, dict[str, Outcome]]
    surplus: Sequence[ShardInfo]
    again: Sequence[Entry]
    left: int


def plan(
    output: Path,
    entries: Sequence[Entry],
    blank: ShardInfo,
    *,
    size: int,
    fingerprint: Callable[[Sequence[Entry]], Sequence[Any]],
    done: Mapping[int, ShardInfo],
    known: Mapping[str, Outcome],
    retry_quarantined: bool,
) -> Plan:
    """Compares a list of entries with what is there of their split.

    Args:
      output: folder of the dataset.
      entries: of the split, in order.
      blank: split, size and settings of its shards.
      size: entries of a shard.
      fingerprint: a JSON value of each entry, which changes when it or its files do.
      done: finished shards by number.
      known: what is done of others, by key.
      retry_quarantined: quarantined entries are to be done again.
    """
    todo: list[Portion] = []
    before = {outcome.id for outcome in known.values()}  # finished, and perhaps done again
    for index, first in enumerate(range(0, len(entries), size)):
        chunk, found = entries[first : first + size], done.get(index)
        values = fingerprint(chunk)
        info = dataclasses.replace(blank, index=index, inputs=records.short_hash(values))
        if found is not None and not shards.shard_path(output, blank.split, index).is_file():
            found = None
        if found and _is_done(found, info, retry_quarantined=retry_quarantined):
            continue
        # Only here: millions of finished entries need none.
        keys = [records.short_hash([info.settings, value]) for value in values]
        old = found if found and _begins(found, info, values) else None
        todo.append(Portion(info, chunk, keys, old))
        before.update(found.ids if found and not old else ())
    surplus = [info for index, info in done.items() if index * size >= len(entries)]
    before.update(name for info in surplus for name in info.ids)
    begun = {portion.info.index: portion.begun(known) for portion in todo}
    left = [
        portion.entries[place]
        for portion in todo
        for place in portion.places_left(begun[portion.info.index])
    ]
    return Plan(todo, begun, surplus, [one for one in left if one.id in before], len(left))


def _is_done(found: ShardInfo, wanted: ShardInfo, *, retry_quarantined: bool) -> bool:
    same = (found.settings, found.inputs) == (wanted.settings, wanted.inputs)
    return same and not (retry_quarantined and found.quarantine)


def _begins(found: ShardInfo, wanted: ShardInfo, values: Sequence[Any]) -> bool:
    """Whether a shard's entries are the first of these, so that its records are kept.

    Entries were added, or some are tried again.
    """
    first = records.short_hash(values[: len(found.ids) + len(found.quarantine)])
    return bool(found.ids) and (found.settings, found.inputs) == (wanted.settings, first)
