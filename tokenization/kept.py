"""What a folder of records holds before a run, and what of it the run may keep or remove.

Nothing that was finished is removed without a word: a run that would do so is refused, with a
list of what is at stake, and with `overwrite` says what it removed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from tokenization import journal, missing, records, shards
from tokenization.files import write_text
from tokenization.manifest import Entry
from tokenization.recorder import Outcome
from tokenization.records import ShardInfo
from tokenization.shard_files import unfinished_splits
from tokenization.summary import count, some
from trajvit_jax import config as configs

_SETTINGS_FILE = "settings.json"


class OutputError(ValueError):
    """An output folder that this run may not continue; the message says why and what to do."""


def claim(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> str:
    """Notes the settings in the output folder, or checks them against those noted there.

    Args:
      output: folder of the dataset.
      settings: JSON values on which its records depend, of all splits.
      overwrite: remove all splits of other settings instead of raising.

    Returns:
      Their hash.

    Raises:
      OutputError: the folder holds records of other settings.
    """
    path = output / _SETTINGS_FILE
    new = json.loads(records.to_json(settings))
    if path.is_file():
        old = json.loads(path.read_text("utf-8"))
        if old != new:
            held = _videos_of_splits(output)
            listed = ", ".join(
                f"split {split!r} with {count(videos, 'video')}"
                for split, videos in held.items()
                if videos
            )
            if listed and not overwrite:
                raise OutputError(
                    f"{output} holds records of other settings "
                    f"({'; '.join(configs.differences(old, new))}); choose another --output, or "
                    f"pass --overwrite, which removes them all: {listed}"
                )
            for split in held:  # also one of quarantined videos alone: its shards have a size
                shards.remove_split(output, split)
            if listed:
                logging.warning("removed from %s, as of other settings: %s", output, listed)
    write_text(path, json.dumps(new, indent=2, sort_keys=True) + "\n")
    return records.short_hash(new)


def finished(
    output: Path,
    split: str,
    wanted: Collection[str],
    *,
    begun: Iterable[str] = (),
    overwrite: bool,
) -> dict[int, ShardInfo]:
    """A split's finished shards by number.

    Args:
      output: folder of the dataset.
      split: its name.
      wanted: ids of the videos that it is to hold.
      begun: those that are done, of shards that are not finished.
      overwrite: let go of videos that are not wanted instead of raising, and of the list of
        missing entries, as it is of the input that had them.

    Raises:
      OutputError: it holds videos that are not wanted.
    """
    done = {info.index: info for info in records.split_shards(output, split)}
    held = itertools.chain((name for info in done.values() for name in info.ids), begun)
    surplus = list(dict.fromkeys(name for name in held if name not in wanted))
    if not surplus:
        return done
    what = f"{count(len(surplus), 'video')} of split {split!r} that the input lacks"
    named = some(surplus, form=repr)
    if not overwrite:
        raise OutputError(
            f"{output} holds {what} ({named}); to add videos, give --input a manifest of "
            "all, the new ones at its end; else choose another --output or --split, or pass "
            f"--overwrite, which removes {'it' if len(surplus) == 1 else 'them'}"
        )
    logging.warning("removing from %s %s: %s", output, what, named)
    if listed := missing.forget(output, split):
        logging.warning(
            "and the split's list of missing entries (%d), as it is of another input", listed
        )
    return done


def check_files(output: Path, split: str, again: Iterable[Entry], *, overwrite: bool) -> None:
    """Finished videos are done again only where there are files to do them from.

    Args:
      output: folder of the dataset.
      split: its name.
      again: those of finished videos that would be done again.
      overwrite: let go of videos without a file instead of raising.

    Raises:
      OutputError: the file of one of them is not there, or may not be opened.
    """
    gone = [entry for entry in again if not _is_there(entry)]
    if not gone:
        return
    what = f"{count(len(gone), 'finished video')} of split {split!r}"
    named = some([entry.id for entry in gone], form=repr)
    if not overwrite:
        raise OutputError(
            f"{output} holds {what} ({named}) that would be done again, as the files or entries of "
            f"their shards changed, but {gone[0].problem or f'{gone[0].path} is not there'}; put "
            "the files back (is a disk not mounted?), or give new videos another --output or "
            "--split, or pass --overwrite, which removes the records of those without a file"
        )
    logging.warning("%s: the records of %s go, without a file: %s", output, what, named)


def _is_there(entry: Entry) -> bool:
    if entry.problem is not None:
        return False
    try:
        entry.path.stat()
    except OSError:  # Path.exists raises most of them, as of a network disk that is gone
        return False
    return True


def outcomes(output: Path, info: ShardInfo) -> list[Outcome]:
    """The records of a finished shard, as when they were made; its seconds shared among them.

    Raises:
      OSError: the shard cannot be read.
    """
    data = shards.read_shard(output, info)
    damaged = info.damaged or [0] * len(info.ids)  # not counted
    return [
        Outcome(
            name,
            seconds=info.seconds / len(data),
            data=one,
            trajectories=trajectories,
            frames=frames,
            repeated=name in info.short,
            damaged=bad,
        )
        for name, one, trajectories, frames, bad in zip(
            info.ids, data, info.trajectories, info.frames, damaged, strict=True
        )
    ]


def unnamed_short(info: ShardInfo) -> int:
    """Short videos of a finished shard that its note, of before they were named, only counts."""
    return info.repeated - len(info.short)


def _videos_of_splits(output: Path) -> dict[str, int]:
    """Records of each split, with those of shards that are not finished."""
    held: dict[str, set[str]] = {}
    for info in records.finished_shards(output):
        held.setdefault(info.split, set()).update(info.ids)
    for split in unfinished_splits(output):
        begun = {outcome.id for outcome in journal.read(output, split).values()}
        held[split] = held.get(split, set()) | begun
    return {split: len(ids) for split, ids in sorted(held.items())}
