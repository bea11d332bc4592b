"""One row of a table: a model trained with one seed, and what it finds among held-out clips.

A finished row is one line of a JSON-lines file that is kept with the code: the rank of the right
answer to every query, from which any recall, error and comparison follows. A row is known by its
name, its seed and a hash of everything that made it; it is not trained again while that is so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from benchmarks.said import said
from tokenization.files import write_text
from trajvit_jax import config as configs
from trajvit_jax.data.samples import resized
from trajvit_jax.data.schedule import SourceSettings
from trajvit_jax.data.source import open_records
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.retrieval import compare
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.metrics import retrieval_ranks
from trajvit_jax.models.costs import tokens_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.ops.run_length import changes
from trajvit_jax.run.provenance import commit
from trajvit_jax.train import train

WAYS = ("txt2vid", "vid2txt")
_LOG = logging.getLogger("trajvit_jax.benchmarks")


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
            "model": said(_without_unroll(settings.model)),
            "optimizer": said(settings.optimizer),
            "step": said(settings.step),
            "steps": settings.steps,
            "streams": said(streams),
            "data": dict(self.data),
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _named(source: SourceSettings) -> SourceSettings:
    """A source by the last part of its path."""
    return dataclasses.replace(source, path=Path(source.path).name)


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
      commit: of the code; with '+' where files were changed.
      steps: updates.
      parameters: of video and text side.
      tokens: mean of the held-out clips, CLS aside, before the first layer and after the last.
      minutes: that training and evaluation took, beside whatever else the machine did.
      ranks: source -> way -> rank of each query's best match, from 0; equal ones share the middle.
    """

    name: str
    seed: int
    made_of: str
    commit: str
    steps: int
    parameters: int
    tokens: tuple[float, float]
    minutes: float
    ranks: Mapping[str, Mapping[str, tuple[float, ...]]]

    def hits(self, source: str, way: str, k: int) -> Float64[np.ndarray, " q"]:
        """Of each query, 1 where its match is among the first k."""
        return (np.asarray(self.ranks[source][way]) + 1 <= k).astype(np.float64)

    def recall(self, source: str, way: str, k: int = 5) -> float:
        """Percent."""
        return float(100 * self.hits(source, way, k).mean())


class Ledger:
    """The JSON-lines file of finished rows, in order of name and seed.

    Args:
      path: of the file; it need not exist.

    Raises:
      ValueError: a line that is no row; the message names it.
    """

    def __init__(self, path: Path):
        self.path, self._rows = path, {}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                row = _read(values)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise ValueError(f"{path}, line {number} is no row of a table: {error}") from error
            self._rows[row.name, row.seed] = row

    def find(self, row: Row, seed: int) -> Finished | None:
        """The finished row, if it was made of what `row` now says."""
        found = self._rows.get((row.name, seed))
        return found if found and found.made_of == row.made_of() else None

    def of(self, row: Row, seeds: Sequence[int]) -> list[Finished]:
        """All finished seeds of a row."""
        found = (self.find(row, seed) for seed in seeds)
        return [one for one in found if one is not None]

    def add(self, row: Finished) -> None:
        """Keeps a row, in the place of an older one of its name and seed; on disk at once."""
        # Another process may have added some since.
        self._rows = Ledger(self.path)._rows | {(row.name, row.seed): row}
        ordered = [self._rows[key] for key in sorted(self._rows)]
        write_text(self.path, "".join(_line(one) + "\n" for one in ordered))


def _read(values: dict[str, Any]) -> Finished:
    ranks = {
        source: {way: tuple(own) for way, own in of.items()}
        for source, of in values["ranks"].items()
    }
    return Finished(**values | {"tokens": tuple(values["tokens"]), "ranks": ranks})


def _line(row: Finished) -> str:
    values = dataclasses.asdict(row)
    values["ranks"] = {
        source: {way: [_short(rank) for rank in ranks] for way, ranks in of.items()}
        for source, of in row.ranks.items()
    }
    return json.dumps(values, separators=(",", ":"))


def _short(rank: float) -> float | int:
    return int(rank) if rank == int(rank) else rank


def unfinished(
    ledger: Ledger, rows: Sequence[Row], seeds: Sequence[int]
) -> Iterator[tuple[Row, int]]:
    """What is left to train: every row with the first seed, then with the next."""
    for seed in seeds:
        for row in rows:
            if ledger.find(row, seed) is None:
                yield row, seed


def run_row(row: Row, seed: int, output: Path) -> Finished:
    """Trains, or goes on, and evaluates on the held-out clips of every source.

    Args:
      row: what.
      seed: of the run.
      output: folder of the runs; what a finished row leaves there is only its logs.

    Raises:
      ValueError, OSError, FloatingPointError, KeyboardInterrupt: as `trajvit_jax.train.train`.
    """
    compile_once(output)
    settings, begin = row.settings(seed), time.monotonic()
    workdir = output / "runs" / f"{row.name}-seed{seed}-{row.made_of()}"
    _LOG.info("%s, seed %d: %d steps", row.name, seed, settings.steps)
    results = train(settings, workdir)
    found = load(workdir)
    model, text = found.model, found.words()
    ranks, tokens = {}, []
    for source in settings.data.train_sources:
        held_out = open_records(source.path, settings.data.eval_split)
        compared = compare(model, held_out, text, batch=settings.data.eval_batch)
        if compared.bad:
            raise ValueError(
                f"{source.path}: {len(compared.bad)} records cannot be used; remove the folder "
                "and run again"
            )
        similarity, positives = compared.similarity, compared.positives
        ranks[Path(source.path).name] = {
            "txt2vid": tuple(retrieval_ranks(similarity.T, positives.T).tolist()),
            "vid2txt": tuple(retrieval_ranks(similarity, positives).tolist()),
        }
        tokens += count_tokens(settings.model, held_out)
    mean = np.mean(tokens, axis=0)
    finished = Finished(
        name=row.name,
        seed=seed,
        made_of=row.made_of(),
        commit=commit(),
        steps=settings.steps,
        parameters=int(results["parameters"]),
        tokens=(round(float(mean[0]), 2), round(float(mean[1]), 2)),
        minutes=round((time.monotonic() - begin) / 60, 2),
        ranks=ranks,
    )
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    jax.clear_caches()
    return finished


def compile_once(output: Path) -> None:
    """Compiled programs are kept below the folder: seeds share them, and so do later runs."""
    jax.config.update("jax_compilation_cache_dir", str((output / "compiled").absolute()))


def count_tokens(model: ModelSettings, records: Sequence[Any]) -> list[tuple[float, float]]:
    """Of each record, tokens before the first layer and after the last, CLS aside."""
    if model.name == "trajvit":
        counts = np.minimum(trajectory_counts(records), model.trajvit.max_trajectories)
        return [(float(n), float(n)) for n in counts * model.trajvit.tokens_each]
    if model.name == "rlt":
        return [(float(n), float(n)) for n in (_run_length_tokens(model, one) for one in records)]
    tokens = tokens_of(model)
    return [(tokens.first - 1.0, tokens.last - 1.0)] * len(records)


def _run_length_tokens(model: ModelSettings, record: Any) -> int:
    frames, _ = resized(record, model)
    own = model.vit3d
    change = changes(normalize_pixels(frames[None]), tubelet=own.tubelet, patch=own.patch)
    return int((change > model.rlt.threshold).sum())
