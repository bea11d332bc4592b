"""Which clips a row learned from and was asked about, by what they hold.

The fingerprint of records changes with the time of a clip's file. Rows are trained over days, on
copies of the clips: what counts is what a model reads.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trajvit_jax.data.samples import usable_captions
from trajvit_jax.data.source import open_records
from trajvit_jax.experiment import ExperimentSettings

TRAIN = "train"

Hashes = Mapping[str, Mapping[str, str]]
"""Source -> split -> hash."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """The clips of a row.

    Attributes:
      named: hashes of ids and captions, in order.
      contents: hashes of these and of all pixels and labels.
    """

    named: Hashes
    contents: Hashes


def clips_of(settings: ExperimentSettings) -> Clips:
    """The clips of a run, those that it trains on and those that it is asked about.

    Raises:
      RecordsError: there are no such records.
      UnusableRecord: one has no caption.
    """
    named: dict[str, dict[str, str]] = {}
    read: dict[str, dict[str, str]] = {}
    for source in settings.data.train_sources:
        for split in (TRAIN, settings.data.eval_split):
            made_from = open_records(source.path, split).fingerprint
            name, own = Path(source.path).name, _hashes(Path(source.path), split, made_from)
            named.setdefault(name, {})[split], read.setdefault(name, {})[split] = own
    return Clips(named, read)


@functools.cache
def _hashes(folder: Path, split: str, made_from: str) -> tuple[str, str]:
    """`Clips.named` and `Clips.contents`; with another `made_from`, it is another folder's."""
    named, read = hashlib.sha256(), hashlib.sha256()
    for record in open_records(folder, split):
        said = json.dumps([record.id, usable_captions(record), record.frames.shape]).encode()
        named.update(said)
        for part in (said, record.frames.tobytes(), record.trajectories.labels.tobytes()):
            read.update(part)
    return named.hexdigest()[:16], read.hexdigest()[:16]


def check_clips(rows: Sequence[tuple[str, Hashes]]) -> None:
    """Refuses rows that cannot stand in one table.

    All must be asked about the same clips of a source; seeds of a row learn from the same, too.
    Variants of the records hold the same clips, cut in other ways.

    Args:
      rows: name and `Clips.named` of each.

    Raises:
      ValueError: the message names two rows.
    """
    for (name, own), (other, others) in itertools.combinations(rows, 2):
        for source in own.keys() & others.keys():
            for split, clips in own[source].items():
                if clips != others[source].get(split) and (split != TRAIN or name == other):
                    raise ValueError(
                        f"{name} and {other} have not the same clips of {source}, split {split}: "
                        "they cannot stand in one table. Bring the clips back, or choose another "
                        "file of rows and another --output"
                    )
