"""The runs behind a table's rows: training, evaluation, and what must not be lost in between.

Rows may be trained by several commands at once: each is of one of them, and none is lost. What a
row found is in its folder before it is in the ledger, and its checkpoints go last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.table_rows import Finished, Ledger, Row, unfinished
from tokenization.files import write_text
from tokenization.folder_lock import FolderInUse
from trajvit_jax.data.samples import resized, usable_captions
from trajvit_jax.data.source import RecordSource, open_records
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.retrieval import compare
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.metrics import retrieval_ranks
from trajvit_jax.models.costs import tokens_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.ops.run_length import changes
from trajvit_jax.run.json_lines import read_lines
from trajvit_jax.run.provenance import commit
from trajvit_jax.train import train

_LOG = logging.getLogger("trajvit_jax.benchmarks")
_LAST = 5  # lines of a run's log, whose losses are told
_FOUND = "row.json"  # in a run's folder: what its row found, from before the ledger has it


@dataclasses.dataclass
class Trained:
    """What came of a command's rows.

    Attributes:
      done: rows that are finished now.
      elsewhere: rows that another command is at.
      failed: rows that could not be trained, and why.
    """

    done: list[Finished] = dataclasses.field(default_factory=list)
    elsewhere: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def tell(self) -> None:
        """Names in the log what is not finished."""
        if self.elsewhere:
            _LOG.info("another command is at %s", ", ".join(self.elsewhere))
        for one in self.failed:
            _LOG.error("failed: %s", one)


def train_rows(rows: Sequence[Row], seeds: Sequence[int], path: Path, output: Path) -> Trained:
    """Trains what is not finished; each row is on disk before the next begins.

    A row that fails is told of, and the next one begins.

    Args:
      rows: of which tables.
      seeds: of each.
      path: of the ledger.
      output: folder of records and runs.

    Raises:
      KeyboardInterrupt: it was stopped; the same call goes on from there.
      ValueError: the ledger has a row of other records; nothing of it is overwritten.
    """
    for row in rows:
        for finished in Ledger(path).of(row, seeds):
            check_records(finished, row.settings(finished.seed), str(path))
    left, found = list(unfinished(Ledger(path), rows, seeds)), Trained()
    for row, seed in tqdm(left, desc="rows", unit="row", disable=not left):
        if Ledger(path).find(row, seed):  # another command has trained it since
            continue
        name = f"{row.name}, seed {seed}"
        try:
            done = run_row(row, seed, output)
        except FolderInUse:
            found.elsewhere.append(name)
            continue
        except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
            _LOG.exception("%s failed", name)
            found.failed.append(f"{name}: {error}")
            continue
        Ledger(path).add(done)
        # Not before: until now, they were all that there was of it.
        shutil.rmtree(workdir_of(row, seed, output) / "checkpoints", ignore_errors=True)
        found.done.append(done)
        _LOG.info("%s: %.1f minutes", name, done.minutes)
    return found


def workdir_of(row: Row, seed: int, output: Path) -> Path:
    """Folder of a row's run."""
    return output / "runs" / f"{row.name}-seed{seed}-{row.made_of()}"


def run_row(row: Row, seed: int, output: Path) -> Finished:
    """Trains, or goes on, and evaluates on the held-out clips of every source; or finds it done.

    Args:
      row: what.
      seed: of the run.
      output: folder of the runs.

    Raises:
      FolderInUse: another process trains it.
      ValueError, OSError, RuntimeError, FloatingPointError, KeyboardInterrupt: as
        `trajvit_jax.train.train`.
    """
    settings, begin = row.settings(seed), time.monotonic()
    workdir, code = workdir_of(row, seed, output), commit()
    kept = workdir / _FOUND
    if kept.exists():
        finished = Finished.read(kept.read_text("utf-8"))
        check_records(finished, settings, str(kept))
        return finished
    compile_once(output)
    _LOG.info("%s, seed %d: %d steps", row.name, seed, settings.steps)
    results = train(settings, workdir)
    found = load(workdir)
    held_out = {name: of[settings.data.eval_split] for name, of in _records(settings).items()}
    ranks, owners, tokens = {}, {}, []
    for name, source in held_out.items():
        compared = compare(found.model, source, found.words(), batch=settings.data.eval_batch)
        if compared.bad:
            raise ValueError(
                f"{len(compared.bad)} held-out records of {name} cannot be used; remove their "
                "folder and run again"
            )
        similarity, positives = compared.similarity, compared.positives
        ranks[name] = {
            "txt2vid": tuple(retrieval_ranks(similarity.T, positives.T).tolist()),
            "vid2txt": tuple(retrieval_ranks(similarity, positives).tolist()),
        }
        owners[name] = tuple(positives.argmax(0).tolist())
        tokens += count_tokens(settings.model, source)
    mean = np.mean(tokens, axis=0)
    learned, loss = _curve(workdir)
    finished = Finished(
        name=row.name,
        seed=seed,
        made_of=row.made_of(),
        commit=code,
        steps=settings.steps,
        parameters=int(results["parameters"]),
        tokens=(round(float(mean[0]), 2), round(float(mean[1]), 2)),
        minutes=round((time.monotonic() - begin) / 60, 2),
        records=fingerprints(settings),
        clips={name: _questions(source) for name, source in held_out.items()},
        owners=owners,
        learned=learned,
        loss=loss,
        ranks=ranks,
    )
    write_text(kept, finished.line() + "\n")
    jax.clear_caches()
    return finished


def compile_once(output: Path) -> None:
    """Compiled programs are kept below the folder: seeds share them, and so do later runs."""
    jax.config.update("jax_compilation_cache_dir", str((output / "compiled").absolute()))


def fingerprints(settings: ExperimentSettings) -> dict[str, dict[str, str]]:
    """Source -> split -> fingerprint of the records that a run trains on, or is asked about."""
    return {
        name: {split: source.fingerprint for split, source in of.items()}
        for name, of in _records(settings).items()
    }


def check_records(finished: Finished, settings: ExperimentSettings, where: str) -> None:
    """Refuses a finished row of other records than the settings now name.

    Args:
      finished: the row.
      settings: of its run.
      where: the row was read from.

    Raises:
      ValueError: some records are others; the message names their source.
    """
    now = fingerprints(settings)
    others = [name for name in now if now[name] != finished.records.get(name)]
    if others:
        raise ValueError(
            f"{where} has {finished.name}, seed {finished.seed}, of other records of "
            f"{', '.join(others)} than there are now: bring those back, or choose another file of "
            "rows and another --output"
        )


def _records(settings: ExperimentSettings) -> dict[str, dict[str, RecordSource]]:
    splits = ("train", settings.data.eval_split)
    return {
        Path(source.path).name: {split: open_records(source.path, split) for split in splits}
        for source in settings.data.train_sources
    }


def _curve(workdir: Path) -> tuple[tuple[tuple[int, float], ...], float]:
    """`Finished.learned` and `Finished.loss` of a run, by its log."""
    log = read_lines(workdir / "metrics.jsonl")
    # A step that was evaluated twice, as after an interruption, counts once.
    recalls = {
        entry["step"]: (entry["eval/txt2vid_r5"] + entry["eval/vid2txt_r5"]) / 2
        for entry in log
        if "eval/txt2vid_r5" in entry
    }
    losses = [entry["loss"] for entry in log if "loss" in entry]
    learned = tuple((step, round(recalls[step], 2)) for step in sorted(recalls))
    return learned, round(float(np.mean(losses[-_LAST:])), 4)


def _questions(source: RecordSource) -> str:
    """A hash of the clips' ids and captions, in order."""
    asked = [(record.id, usable_captions(record)) for record in source]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


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
    change = changes(
        normalize_pixels(jnp.asarray(frames[None])), tubelet=own.tubelet, patch=own.patch
    )
    return int((change > model.rlt.threshold).sum())
