"""What a training step of every row costs on this machine: seconds and memory, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from benchmarks.parts.table_rows import Row
from benchmarks.parts.table_runs import compile_once
from benchmarks.parts.timing import Contender, race
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import open_streams
from trajvit_jax.data.unusable import readable_captions
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.optim import optimizer, schedule
from trajvit_jax.sharding import make_mesh, put_batch
from trajvit_jax.state import TrainState
from trajvit_jax.step import make_step


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One training step.

    Attributes:
      made_of: of the row, see `Row.made_of`.
      seconds: median over rounds.
      megabytes: that the compiled step needs beside its state and its batch.
      machine: what it ran on.
      commit: of the code.
    """

    made_of: str
    seconds: float
    megabytes: float
    machine: str
    commit: str


def path_beside(ledger: Path) -> Path:
    """Where costs are kept: beside the file of finished rows."""
    return ledger.with_name(f"{ledger.stem}_costs.json")


def measure(rows: Sequence[Row], output: Path, rounds: int, *, code: str) -> dict[str, StepCost]:
    """Steps of all rows in turn, on the records' first batches; what compiled once is kept.

    Args:
      rows: whose records are there.
      output: folder of the runs.
      rounds: after one that does not count.
      code: commit of this process's code.
    """
    compile_once(output)
    contenders = [_contender(row) for row in rows]
    timings = race(contenders, rounds)
    machine = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return {
        row.name: StepCost(row.made_of(), timing.median, (timing.memory or 0) / 1e6, machine, code)
        for row, timing in zip(rows, timings, strict=True)
    }


def _contender(row: Row) -> Contender:
    settings = row.settings(0)
    streams = open_streams(settings.data.train_streams(settings.model.frames))
    captions = {
        caption
        for source in settings.data.train_sources
        for caption in readable_captions(source.path, source.split, most=1000)
    }
    own = settings.model.text
    text = WordPiece.train(captions, own.length, size=own.vocabulary)
    model = dataclasses.replace(settings.model, text=dataclasses.replace(own, vocabulary=len(text)))
    steps = train_steps(streams, model, text, seed=0, reading=settings.data.reading())
    mesh = make_mesh(settings.mesh)
    batch = put_batch(next(steps).batch, mesh)
    steps.close()  # type: ignore[attr-defined]
    tx = optimizer(settings.optimizer, settings.steps)
    rate = schedule(settings.optimizer, settings.steps)
    # As rows are trained.
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        state = TrainState.initialize(model, tx, 0, mesh=mesh)
        where = jax.tree.map(lambda x: x.sharding, state)
        # As `trajvit_jax.train` makes it: what a row compiled is not compiled again.
        step = make_step(tx, settings.step, model, seed=0, where=where, rate=rate)
        step = step.lower(state, batch).compile()
    memory = step.memory_analysis()
    return Contender(
        "step", row.name, _repeat(step, state, batch), memory=memory and memory.temp_size_in_bytes
    )


def _repeat(step: Callable, state: TrainState, batch: object) -> Callable[[], None]:
    """Runs the step on its own last result: it gives the memory of its state away."""
    kept = [state]

    def run() -> None:
        kept[0], _ = step(kept[0], batch)
        jax.block_until_ready(kept[0])

    return run
