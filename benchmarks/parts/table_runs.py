"""The runs behind a table's rows: training, evaluation, and what must not be lost in between.

Rows may be trained by several commands at once: each is of one of them, and none is lost. What a
row found is in its folder before it is in the ledger, and its checkpoints go last.
"""

from __future__ import annotations

import dataclasses
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

from benchmarks.parts.table_clips import check_clips, clips_of
from benchmarks.parts.table_rows import Finished, Ledger, Row, unfinished
from tokenization.files import write_text
from tokenization.folder_lock import FolderInUse, only_writer
from trajvit_jax.data.samples import resized
from trajvit_jax.data.source import open_records
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.retrieval import compare
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.metrics import retrieval_ranks
from trajvit_jax.models.costs import tokens_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.models.video_tokens.rlt import rlt_tokens
from trajvit_jax.run.json_lines import read_lines
from trajvit_jax.train import train

_LOG = logging.getLogger("trajvit_jax.benchmarks")
_LAST = 5  # lines of a run's log, whose losses are told
_OWN = "row"  # in a run's folder: who is at the row, and what it found before the ledger has it


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


def train_rows(
    rows: Sequence[Row], seeds: Sequence[int], path: Path, output: Path, *, code: str
) -> Trained:
    """Trains what is not finished; each row is on disk before the next begins.

    A row that fails is told of, and the next one begins.

    Args:
      rows: of which tables.
      seeds: of each.
      path: of the ledger.
      output: folder of records and runs; it holds the records of all that is not finished.
      code: commit of this process's code.

    Raises:
      KeyboardInterrupt: it was stopped; the same call goes on from there.
      ValueError: the ledger has rows of other clips; nothing is trained.
    """
    ledger, found = Ledger(path), Trained()
    left = list(unfinished(ledger, rows, seeds))
    new = {row.name: row for row, _ in left}.values()
    finished = [(one.name, one.clips) for row in rows for one in ledger.of(row, seeds)]
    check_clips([*finished, *((row.name, clips_of(row.settings(0)).named) for row in new)])
    for row, seed in tqdm(left, desc="rows", unit="row", disable=not left):
        name, workdir = f"{row.name}, seed {seed}", workdir_of(row, seed, output)
        try:
            # From before the ledger is asked until the checkpoints are gone: it is trained once.
            with only_writer(workdir / _OWN):
                if Ledger(path).find(row, seed):  # another command has trained it since
                    continue
                done = run_row(row, seed, output, code=code)
                Ledger(path).add(done)
                # Not before: until now, they were all that there was of it.
                shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
        except FolderInUse:
            found.elsewhere.append(name)
        except Exception as error:
            _LOG.exception("%s failed", name)
            found.failed.append(f"{name}: {error}")
        else:
            found.done.append(done)
            _LOG.info("%s: %.1f minutes of processor time", name, done.minutes)
    return found


def workdir_of(row: Row, seed: int, output: Path) -> Path:
    """Folder of a row's run."""
    return output / "runs" / f"{row.name}-seed{seed}-{row.made_of()}"


def run_row(row: Row, seed: int, output: Path, *, code: str) -> Finished:
    """Trains, or goes on, and evaluates on the held-out clips of every source; or finds it done.

    Args:
      row: what.
      seed: of the run.
      output: folder of the runs.
      code: commit of this process's code.

    Raises:
      FolderInUse: another process trains it.
      ValueError, OSError, RuntimeError, FloatingPointError, KeyboardInterrupt: as
        `trajvit_jax.train.train`.
    """
    settings, begin = row.settings(seed), time.process_time()
    workdir, clips = workdir_of(row, seed, output), clips_of(settings)
    kept = workdir / _OWN / "found.json"
    if kept.exists():
        finished = Finished.read(kept.read_text("utf-8"))
        check_clips([(row.name, clips.named), (row.name, finished.clips)])
        return finished
    commits = _note(workdir / _OWN / "commits.json", code)
    devices = _note(workdir / _OWN / "devices.json", jax.devices()[0].device_kind)
    compile_once(output)
    _LOG.info("%s, seed %d: %d steps", row.name, seed, settings.steps)
    # Of some devices the default is narrower than float32, and rows would not be alike.
    with jax.default_matmul_precision("highest"):
        results = train(settings, workdir)
        ranks, owners, tokens = _ranked(settings, workdir)
    mean = np.mean(tokens, axis=0)
    finished = Finished(
        name=row.name,
        seed=seed,
        made_of=row.made_of(),
        commits=commits,
        steps=settings.steps,
        parameters=int(results["parameters"]),
        tokens=(round(float(mean[0]), 2), round(float(mean[1]), 2)),
        minutes=round((time.process_time() - begin) / 60, 2),
        clips=clips.named,
        contents=clips.contents,
        owners=owners,
        **_logged(workdir, settings.model),
        ranks=ranks,
        devices=devices,
    )
    write_text(kept, finished.line() + "\n")
    jax.clear_caches()
    return finished


def _ranked(
    settings: ExperimentSettings, workdir: Path
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]], list[tuple[float, float]]]:
    """Of a finished run, `Finished.ranks` and `Finished.owners`, and each held-out clip's tokens.

    Raises:
      ValueError: a held-out record cannot be used.
    """
    found = load(workdir)
    ranks, owners, tokens = {}, {}, []
    for of in settings.data.train_sources:
        name, source = Path(of.path).name, open_records(of.path, settings.data.eval_split)
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
    return ranks, owners, tokens


def _note(path: Path, name: str) -> tuple[str, ...]:
    """Adds the commit, or the device, to those by which this row was trained before."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    names = tuple(dict.fromkeys((*before, name)))
    write_text(path, json.dumps(names))
    return names


def compile_once(output: Path) -> None:
    """Compiled programs are kept below the folder: seeds share them, and so do later runs."""
    jax.config.update("jax_compilation_cache_dir", str((output / "compiled").absolute()))


def _logged(workdir: Path, model: ModelSettings) -> dict[str, Any]:
    """`Finished.learned`, `Finished.loss` and `Finished.dropped` of a run, by its log."""
    log = read_lines(workdir / "metrics.jsonl")
    # A step that was evaluated twice, as after an interruption, counts once.
    recalls = {
        entry["step"]: (entry["eval/txt2vid_r5"] + entry["eval/vid2txt_r5"]) / 2
        for entry in log
        if "eval/txt2vid_r5" in entry
    }
    steps = [entry for entry in log if entry.get("loss") is not None]  # null: it was not finite
    dropped, tokens = (sum(entry[name] for entry in steps) for name in ("dropped", "tokens"))
    if model.name == "trajvit":  # its log counts trajectories
        dropped *= model.trajvit.tokens_each
    return {
        "learned": tuple((step, round(recalls[step], 2)) for step in sorted(recalls)),
        "loss": round(float(np.mean([entry["loss"] for entry in steps[-_LAST:]])), 4),
        "dropped": round(100 * dropped / (dropped + tokens), 2),
    }


def count_tokens(model: ModelSettings, records: Sequence[Any]) -> list[tuple[float, float]]:
    """Of each record, tokens before the first layer and after the last, CLS aside."""
    if model.name == "trajvit":
        counts = np.minimum(trajectory_counts(records), model.trajvit.max_trajectories)
        return [(float(n), float(n)) for n in counts * model.trajvit.tokens_each]
    if model.name == "rlt":
        videos = (normalize_pixels(jnp.asarray(resized(one, model)[0][None])) for one in records)
        return [(float(n), float(n)) for n in (rlt_tokens(one, model)[0] for one in videos)]
    tokens = tokens_of(model)
    return [(tokens.first - 1.0, tokens.last - 1.0)] * len(records)
