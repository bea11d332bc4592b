"""One attempt at a training step on the first device: its rate, its memory, its parts."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import jax
import optax

from benchmarks.parts.random_batch import random_batch
from benchmarks.parts.step_profile import profile
from benchmarks.parts.timing import race
from benchmarks.parts.train_step_parts import parts
from trajvit_jax.config import to_settings
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.schedule import StreamSettings
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.flops import count_transformer
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import plain_slots
from trajvit_jax.optim import optimizer
from trajvit_jax.recipe import pretraining
from trajvit_jax.run.throughput import peak_flops, work_of
from trajvit_jax.sharding import MeshSettings, make_mesh, put_batch
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings, make_step

DEBUG = "debug"
_STORED = 256 / 224  # pixels a side of a record, for each of the model's


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One step, to be measured.

    Attributes:
      model: 'trajvit' or 'vit3d'.
      size: of the encoder, or 'debug'.
      batch: videos.
      group: videos that share rows.
      remat: see `trajvit_jax.models.settings.EncoderSettings`.
      micro_batches: see `trajvit_jax.step.StepSettings`.
      dtype: that layers compute in.
      steps: of a round.
      rounds: that are timed.
      parts: time the parts, not the step.
      profiled: steps that are profiled afterwards; 0 = none.
      deterministic: see `trajvit_jax.models.settings.ModelSettings`.
    """

    model: str
    size: str
    batch: int
    group: int = 8
    remat: str = "none"
    micro_batches: int = 1
    dtype: str = "bfloat16"
    steps: int = 10
    rounds: int = 5
    parts: bool = False
    profiled: int = 0
    deterministic: bool = False


class Prepared(NamedTuple):
    """What an attempt's step is made of, and its batch on the device."""

    model: ModelSettings
    stream: StreamSettings
    step: StepSettings
    tx: optax.GradientTransformation
    state: TrainState
    batch: Batch


def measure(attempt: Attempt) -> dict[str, Any]:
    """Compiles and runs the step, or its parts.

    Returns:
      `attempt`, `peak_flops` of the device (None = unknown), and of a step: `seconds` of each
      round, `compiling`, `slots` and `flops` (see `Work`), `temporary` and `peak_memory` in
      bytes (None = unknown), `profile` (see `benchmarks.parts.step_profile`). Of parts: `parts`,
      median seconds by name, and the FLOPs of the transformer, forward and backward.

    Raises:
      jax.errors.JaxRuntimeError: the device has too little memory.
      FloatingPointError: the loss is not finite.
    """
    device = jax.devices()[0]
    mesh = make_mesh(MeshSettings(1, 1, 1), [device])
    with jax.set_mesh(mesh):
        ready = prepare(attempt, mesh)
        found = _parts(ready, attempt) if attempt.parts else _step(ready, attempt, device)
    common = {"attempt": dataclasses.asdict(attempt), "fits": True}
    return common | {"peak_flops": peak_flops([device])} | found


def prepare(attempt: Attempt, mesh: jax.sharding.Mesh) -> Prepared:
    """Makes the state and the batch of an attempt."""
    size = DEBUG if attempt.size == DEBUG else f"size={attempt.size}"
    arguments = f"model={attempt.model},{size},batch={attempt.batch}"
    if attempt.model == "trajvit":  # of no other do videos share rows
        arguments += f",group={attempt.group}"
    config = pretraining(
        f"{arguments},micro_batches={attempt.micro_batches}",
        videos=2_000_000,
        records="none",
    )
    settings = to_settings(ExperimentSettings, config)
    encoder = dataclasses.replace(settings.model.encoder, remat=attempt.remat)
    model = dataclasses.replace(
        settings.model,
        dtype=attempt.dtype,
        deterministic=attempt.deterministic,
        encoder=encoder,
    )
    stream = dataclasses.replace(settings.data.streams[0], batch=attempt.batch)
    tx = optimizer(settings.optimizer, settings.steps)
    state = TrainState.initialize(model, tx, 0, mesh=mesh)
    batch = random_batch(stream, model, stored=round(_STORED * model.image_size))
    return Prepared(model, stream, settings.step, tx, state, put_batch(batch, mesh))


def _step(ready: Prepared, attempt: Attempt, device: Any) -> dict[str, Any]:
    state, batch = ready.state, ready.batch
    where = jax.tree.map(lambda x: x.sharding, state)
    step = make_step(ready.tx, ready.step, ready.model, seed=0, where=where)
    started = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compiling = time.perf_counter() - started
    state, measures = jax.block_until_ready(compiled(state, batch))
    seconds = []
    for _ in range(attempt.rounds):
        started = time.perf_counter()
        for _ in range(attempt.steps):
            state, measures = compiled(state, batch)
        jax.block_until_ready((state, measures))
        seconds.append((time.perf_counter() - started) / attempt.steps)
    if int(measures["skipped"]):
        raise FloatingPointError(f"{attempt}: the loss is {float(measures['loss'])}")
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")

    def run() -> dict[str, jax.Array]:
        nonlocal state
        state, measures = compiled(state, batch)
        return measures

    parts = profile(run, compiled.as_text(), attempt.profiled) if attempt.profiled else {}
    work, memory = work_of(ready.stream, ready.model), compiled.memory_analysis()
    return {
        "compiling": compiling,
        "seconds": seconds,
        "videos_a_second": attempt.batch / statistics.median(seconds),
        "slots": work.slots,
        "flops": work.flops,
        "temporary": memory.temp_size_in_bytes if memory else None,
        "peak_memory": peak,
        "profile": parts,
    }


def _parts(ready: Prepared, attempt: Attempt) -> dict[str, Any]:
    timings = race(parts(ready.state, ready.tx, ready.batch, ready.step.augment), attempt.rounds)
    rows, slots = ready.stream.batch, plain_slots(ready.model)
    if ready.batch.rows is not None:
        groups, in_group, slots = ready.batch.rows.video.shape
        rows = groups * in_group
    return {
        "parts": {one.name: one.median for one in timings},
        "transformer_flops": 3 * count_transformer(ready.model, rows, slots),
    }
