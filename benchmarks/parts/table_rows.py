"""The rows of a table: what each trains, and the file of those that are finished.

A finished row is one line of a JSON-lines file that is kept with the code: the rank of the right
answer to every query, from which any recall, error and comparison follows. A row is known by its
name, its seed and a hash of everything that made it; it is not trained again while that is so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from benchmarks.parts.table_clips import Hashes
from tokenization.files import write_text
from tokenization.folder_lock import held
from trajvit_jax import config as configs
from trajvit_jax.data.schedule import SourceSettings
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.settings import ModelSettings

WAYS = ("txt2vid", "vid2txt")
# The settings of `ModelSettings` that a model reads beside those that all do.
_READS = {
    "trajvit": ("trajvit",),
    "vit3d": ("vit3d",),
    "vivit": ("vit3d", "vivit"),
    "token_learner": ("vit3d", "token_learner"),
    "tome": ("vit3d", "tome"),
    "rlt": ("vit3d", "rlt"),
    "automerge": ("trajvit", "automerge"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row trains.

    Attributes:
      name: in the tables; one name is one set of settings.
      config: of the experiment, `file.py:arguments`, without a seed.
      data: what made the records, as settings that JSON can hold.
    """

    name: str
    config: str
    data: Mapping[str, Any]

    def settings(self, seed: int) -> ExperimentSettings:
        """Of the run with this seed."""
        return configs.to_settings(ExperimentSettings, configs.load(f"{self.config},seed={seed}"))

    def made_of(self) -> str:
        """A hash of the settings that decide what comes out, seed aside; no paths are in it.

        Defaults do not count: the row's commit tells what they were.
        """
        settings = self.settings(0)
        streams = [
            dataclasses.replace(stream, sources=tuple(map(_named, stream.sources)))
            for stream in settings.data.train_streams(settings.model.frames)
        ]
        parts = {
            "model": configs.changed(_without_unroll(_of_its_own(settings.model))),
            "optimizer": configs.changed(settings.optimizer),
            "step": configs.changed(settings.step),
            "steps": settings.steps,
            "streams": configs.changed(streams),
            "data": dict(self.data),
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _named(source: SourceSettings) -> SourceSettings:
    """A source by the last part of its path."""
    return dataclasses.replace(source, path=Path(source.path).name)


def _of_its_own(model: ModelSettings) -> ModelSettings:
    """Without the settings of other models."""
    others = {name for reads in _READS.values() for name in reads} - set(_READS[model.name])
    return dataclasses.replace(model, **{name: getattr(ModelSettings(), name) for name in others})


def _without_unroll(model: ModelSettings) -> ModelSettings:
    """How a loop is compiled changes no result."""
    return dataclasses.replace(
        model,
        encoder=dataclasses.replace(model.encoder, unroll=1),
        text=dataclasses.replace(model.text, unroll=1),
    )


@dataclasses.dataclass(frozen=True)
class Finished:
    """What came of a row.

    Attributes:
      name: of the row.
      seed: of the run.
      made_of: `Row.made_of`.
      commits: of the code that trained and evaluated it, several where it was interrupted; with
        '+' where files were changed.
      steps: updates.
      parameters: of video and text side.
      tokens: mean of the held-out clips, CLS aside, before the first layer and after the last.
      dropped: percent of training's tokens that had no slot in their rows.
      minutes: of processor time, of the process that finished it: it is no measure of costs.
      clips: see `table_clips.Clips.named`.
      contents: see `table_clips.Clips.contents`.
      owners: source -> number of the held-out clip that each caption is of; of several, the first.
      learned: steps, and R@5 after them in percent: of the source that training evaluates on,
        mean of both ways.
      loss: of the last steps, mean.
      ranks: source -> way -> rank of each query's best match, from 0; equal ones share the middle.
        Of txt2vid queries are captions, of vid2txt clips.
      devices: kinds that it was trained on, as JAX names them, several where it was interrupted.
    """

    name: str
    seed: int
    made_of: str
    commits: tuple[str, ...]
    steps: int
    parameters: int
    tokens: tuple[float, float]
    dropped: float
    minutes: float
    clips: Hashes
    contents: Hashes
    owners: Mapping[str, tuple[int, ...]]
    learned: tuple[tuple[int, float], ...]
    loss: float
    ranks: Mapping[str, Mapping[str, tuple[float, ...]]]
    devices: tuple[str, ...]

    def hits(self, source: str, way: str, k: int) -> Float64[np.ndarray, " q"]:
        """Of each query, 1 where its match is among the first k."""
        return (np.asarray(self.ranks[source][way]) + 1 <= k).astype(np.float64)

    def recall(self, source: str, way: str, k: int = 5) -> float:
        """Percent."""
        return float(100 * self.hits(source, way, k).mean())

    def by_clip(
        self, source: str, k: int
    ) -> tuple[Float64[np.ndarray, "ways clips"], Float64[np.ndarray, "ways clips"]]:
        """Of each way and clip, queries whose match is among the first k, and all queries."""
        clips = len(self.ranks[source]["vid2txt"])
        of = {"txt2vid": np.asarray(self.owners[source]), "vid2txt": np.arange(clips)}
        hits = [np.bincount(of[way], self.hits(source, way, k), clips) for way in WAYS]
        asked = [np.bincount(of[way], minlength=clips).astype(np.float64) for way in WAYS]
        return np.stack(hits), np.stack(asked)

    def line(self) -> str:
        """As a line of a ledger, without its end."""
        values = dataclasses.asdict(self)
        values["ranks"] = {
            source: {way: [_short(rank) for rank in ranks] for way, ranks in of.items()}
            for source, of in self.ranks.items()
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def read(cls, line: str) -> Finished:
        """Undoes `line`; older ones, which name no device, are of CPUs.

        Raises:
          ValueError: it is none.
        """
        try:
            values = json.loads(line)
            ranks = {
                source: {way: tuple(own) for way, own in of.items()}
                for source, of in values["ranks"].items()
            }
            tuples = {
                "commits": tuple(values["commits"]),
                "devices": tuple(values.get("devices", ("cpu",))),
                "tokens": tuple(values["tokens"]),
                "learned": tuple(tuple(one) for one in values["learned"]),
                "owners": {source: tuple(own) for source, own in values["owners"].items()},
            }
            return cls(**values | tuples | {"ranks": ranks})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"it is no row of a table: {error}") from error


def _short(rank: float) -> float | int:
    return int(rank) if rank == int(rank) else rank


class Ledger:
    """The JSON-lines file of finished rows, in order of name, seed and what made them.

    Several processes may add rows to one file.

    Args:
      path: of the file; it need not exist. Beside it lies a lock, `.NAME.lock`.

    Raises:
      ValueError: a line that is no row; the message names it.
    """

    def __init__(self, path: Path):
        self.path, self._rows = path, {}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                row = Finished.read(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            self._rows[_key(row)] = row

    def find(self, row: Row, seed: int) -> Finished | None:
        """The finished row, if there is one that was made of what `row` now says."""
        return self._rows.get((row.name, seed, row.made_of()))

    def of(self, row: Row, seeds: Sequence[int]) -> list[Finished]:
        """All finished seeds of a row."""
        found = (self.find(row, seed) for seed in seeds)
        return [one for one in found if one is not None]

    def add(self, row: Finished) -> None:
        """Keeps a row beside all that others have added since; on disk at once."""
        with held(self.path.with_name(f".{self.path.name}.lock")):
            self._rows = Ledger(self.path)._rows | {_key(row): row}
            ordered = [self._rows[key] for key in sorted(self._rows)]
            write_text(self.path, "".join(one.line() + "\n" for one in ordered))


def _key(row: Finished) -> tuple[str, int, str]:
    return row.name, row.seed, row.made_of


def unfinished(
    ledger: Ledger, rows: Sequence[Row], seeds: Sequence[int]
) -> Iterator[tuple[Row, int]]:
    """What is left to train: every row with the first seed, then with the next."""
    for seed in seeds:
        for row in rows:
            if ledger.find(row, seed) is None:
                yield row, seed
