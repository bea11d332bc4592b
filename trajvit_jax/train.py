"""Training, read from top to bottom: data, model, step, restore, loop, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx
from tqdm import tqdm

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.pipeline import train_batches
from trajvit_jax.data.samples import video_sample
from trajvit_jax.data.source import Record, open_records, read_captions
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import retrieval
from trajvit_jax.experiment import ExperimentSettings, check, has_run, note
from trajvit_jax.interrupts import StopRequest
from trajvit_jax.losses import clamp_temperature, contrastive_loss, shared_positives
from trajvit_jax.metric_log import MetricLog
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.optim import optimizer
from trajvit_jax.state import TrainState

_LOG = logging.getLogger(__name__)

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_step(tx: optax.GradientTransformation) -> Step:
    """One update, compiled; the old state's memory is given to the new one."""

    def loss_of(
        params: nnx.State, state: TrainState, batch: Batch
    ) -> tuple[jax.Array, tuple[nnx.State, dict[str, jax.Array]]]:
        model = dataclasses.replace(state, params=params).model()
        video = model.embed_video(batch.video, batch.labels, train=True)
        text = model.embed_text(batch.text, batch.text_mask)
        positives = shared_positives(batch.caption_hash)
        loss, measures = contrastive_loss(video, text, model.temperature[...], positives)
        measures["temperature"] = model.temperature[...]
        return loss, (nnx.state(model, nnx.Not(nnx.Param)), measures)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (stats, measures)), gradients = grad(state.params, state, batch)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        params["temperature"][...] = clamp_temperature(params["temperature"][...])
        measures |= {
            "loss": loss,
            "grad_norm": optax.global_norm(gradients),
            "dropped": batch.dropped.sum(),
        }
        new = dataclasses.replace(
            state, step=state.step + 1, params=params, stats=stats, opt_state=opt_state
        )
        return new, measures

    return jax.jit(step, donate_argnums=0)


def vocabulary_of(settings: ExperimentSettings, workdir: Path) -> WordPiece:
    """The run's WordPiece vocabulary: from the workdir, else the config's file, else learned.

    It is kept in the workdir, so that a resumed run and a later evaluation read the same.
    """
    kept, length = workdir / "vocab.txt", settings.model.text.length
    if has_run(workdir):
        return WordPiece.load(kept, length)
    if settings.data.vocabulary:
        text = WordPiece.load(settings.data.vocabulary, length)
    else:
        all_captions = read_captions(settings.data.train, settings.data.train_split)
        captions = {caption for of_one in all_captions for caption in of_one}
        text = WordPiece.train(captions, length, size=settings.model.text.vocabulary)
    text.save(kept)
    return text


def train(settings: ExperimentSettings, workdir: Path) -> dict[str, float]:
    """Trains, or goes on from the last checkpoint, and evaluates.

    Ctrl-C ends after the running step and saves: the same command goes on from there.

    Returns:
      Retrieval on the evaluation records, with `parameters` and `seconds_a_step`: the median,
      waiting for data and compilation left out.

    Raises:
      ValueError: the workdir is that of a run with other settings, or the records do not fit
        the model.
      KeyboardInterrupt: Ctrl-C; the message names the step.
      FloatingPointError: a loss or gradient that is not finite, with the step; the last
        checkpoint stays.
    """
    # Data
    data = settings.data
    source = open_records(data.train, data.train_split)
    check(workdir, settings, source.fingerprint)
    held_out = open_records(data.evaluation_folder, data.eval_split)
    for records in (source, held_out):
        video_sample(records[0], settings.model)  # what does not fit shows before compiling
    text = vocabulary_of(settings, workdir)
    _LOG.info("%d videos to train on, %d held out", len(source), len(held_out))

    # Model
    model_settings = dataclasses.replace(
        settings.model, text=dataclasses.replace(settings.model.text, vocabulary=len(text))
    )
    tx = optimizer(settings.optimizer, settings.steps)
    state = TrainState.initialize(model_settings, tx, settings.seed)
    _LOG.info("%s: %.1f M parameters", model_settings.name, state.parameters / 1e6)
    step = make_step(tx)
    batch_size = data.eval_batch

    with contextlib.ExitStack() as stack:
        # Restore
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=settings.keep))
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(state)
            _LOG.info("goes on from step %d of %s", int(state.step), workdir)
        first = int(state.step)
        log = stack.enter_context(MetricLog(workdir, step=first))
        batches = train_batches(source, model_settings, text, data, seed=settings.seed, start=first)
        note(workdir, settings, source.fingerprint)

        # Loop
        seconds: list[float] = []
        with StopRequest() as stop, _progress(model_settings.name, first, settings.steps) as bar:
            bar.set_postfix_str("compiling the first step")
            for done in range(first + 1, settings.steps + 1):
                batch = next(batches)
                start = time.perf_counter()
                state, measures = step(state, batch)
                loss = float(measures["loss"])
                seconds.append(time.perf_counter() - start)
                # Gradients count too: a finite loss may leave parameters that are not.
                grad_norm = float(measures["grad_norm"])
                if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                    raise FloatingPointError(
                        f"step {done}: loss {loss}, gradient norm {grad_norm}; nothing was saved "
                        "since the last checkpoint. Try a lower learning rate, in another --workdir"
                    )
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                if done % settings.log_every == 0 or done == settings.steps:
                    values = {name: float(value) for name, value in measures.items()}
                    log.write(done, values | {"seconds_a_step": statistics.median(seconds)})
                    seconds = []
                if done % settings.checkpoint_every == 0 or done == settings.steps:
                    checkpoints.save(done, state)
                if settings.evaluate_every and done % settings.evaluate_every == 0:
                    log.write(done, _prefixed(evaluate(state.model(), held_out, text, batch_size)))
                if stop.requested:
                    checkpoints.save(done, state)
                    raise KeyboardInterrupt(f"stopped after step {done}")

        # Evaluation
        results = evaluate(state.model(), held_out, text, batch_size)
        log.write(settings.steps, _prefixed(results))
        results["parameters"] = float(state.parameters)
        results["seconds_a_step"] = statistics.median(log.values("seconds_a_step"))
    return results


def evaluate(
    model: VideoTextModel, source: Sequence[Record], text: WordPiece, batch: int
) -> dict[str, float]:
    """The run's evaluation: zero-shot retrieval on held-out videos."""
    return dict(retrieval.evaluate(model, source, text, batch=batch))


def _progress(name: str, first: int, steps: int) -> tqdm:
    return tqdm(initial=first, total=steps, desc=f"train {name}", unit="step", mininterval=1)


def _prefixed(values: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in values.items()}
