"""Training, read from top to bottom: data, model, step, restore, loop, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.data.samples import check_frames
from trajvit_jax.data.source import Record, open_records, read_captions
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import fingerprint, open_streams
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import retrieval
from trajvit_jax.experiment import ExperimentSettings, check, has_run, note
from trajvit_jax.optim import optimizer
from trajvit_jax.pod.agreement import Agreement
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.interrupts import StopRequest
from trajvit_jax.run.run_log import Clock, InFlight, RunLog
from trajvit_jax.run.sample_page import write_sample_page
from trajvit_jax.run.throughput import work_of
from trajvit_jax.run.workdir import lock
from trajvit_jax.sharding import check_batch, make_mesh, part_of_process, put_batch
from trajvit_jax.state import TrainState
from trajvit_jax.step import make_step

_LOG = logging.getLogger(__name__)
_LEARN_FROM = 50_000  # records of each source, whose captions a vocabulary is learned from


def vocabulary_of(settings: ExperimentSettings, workdir: Path) -> WordPiece:
    """The run's WordPiece vocabulary: from the workdir, else the config's file, else learned.

    It is kept in the workdir, so that a resumed run and a later evaluation read the same. It is
    learned by process 0, of large sources from the captions of some records.
    """
    kept, length = workdir / "vocab.txt", settings.model.text.length
    if jax.process_index() == 0 and not has_run(workdir):
        if settings.data.vocabulary:
            text = WordPiece.load(settings.data.vocabulary, length)
        else:
            captions = {
                caption
                for source in settings.data.train_sources
                for of_one in read_captions(source.path, source.split, most=_LEARN_FROM)
                for caption in of_one
            }
            text = WordPiece.train(captions, length, size=settings.model.text.vocabulary)
        text.save(kept)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("vocabulary")
    return WordPiece.load(kept, length)


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
      FloatingPointError: losses or gradients that are not finite, `max_skipped` steps in a row;
        the last checkpoint stays.
    """
    with contextlib.ExitStack() as stack:
        # Devices
        mesh = make_mesh(settings.mesh)
        part, parts = part_of_process(mesh)
        for stream in settings.data.train_streams(settings.model.frames):
            check_batch(stream.name, stream.batch, stream.group, mesh)

        # Data
        data = settings.data
        streams = open_streams(data.train_streams(settings.model.frames))
        records = fingerprint(streams)
        check(workdir, settings, records)
        held_out = open_records(data.evaluation_folder, data.eval_split)
        check_frames(held_out[0], settings.model)  # what does not fit shows before compiling
        for stream in streams:
            stream.check(settings.model)
        stack.enter_context(lock(workdir, process=jax.process_index()))
        text = vocabulary_of(settings, workdir)
        videos = sum(len(source) for stream in streams for source in stream.sources)
        _LOG.info("%d videos to train on, %d held out", videos, len(held_out))

        # Model
        model = dataclasses.replace(
            settings.model, text=dataclasses.replace(settings.model.text, vocabulary=len(text))
        )
        works = {stream.settings.name: work_of(stream.settings, model) for stream in streams}
        stack.enter_context(jax.set_mesh(mesh))
        tx = optimizer(settings.optimizer, settings.steps)
        averaged = settings.step.average_decay > 0
        like = TrainState.shapes(model, tx, mesh=mesh, averaged=averaged)
        _LOG.info("%s: %.1f M parameters", model.name, like.parameters / 1e6)
        where = jax.tree.map(lambda shape: shape.sharding, like)
        step = make_step(tx, settings.step, model, seed=settings.seed, where=where)
        compiled = CompileWatch(step)

        # Restore
        checkpoints = stack.enter_context(
            Checkpoints(workdir, keep=settings.keep, best=settings.keep_best)
        )
        if resumed := checkpoints.resume(like):
            state, clock = resumed.state, Clock(**resumed.clock)
            _LOG.info("goes on from step %d of %s", resumed.step, workdir)
        else:
            seed, clock = settings.seed, Clock()
            state = TrainState.initialize(model, tx, seed, mesh=mesh, averaged=averaged)
        first = int(state.step)
        steps = train_steps(
            streams,
            model,
            text,
            seed=settings.seed,
            start=first,
            process=part,
            processes=parts,
            resize=settings.step.augment is None,
            reading=data.reading(),
        )
        stack.callback(steps.close)
        if jax.process_index() == 0:
            note(workdir, settings, records)

        # Loop
        log = stack.enter_context(RunLog(workdir, settings, first=first))
        agreement = Agreement(mesh)
        with StopRequest() as stop, log.watch(model.name, clock, works) as watch:
            running: InFlight | None = None
            results: dict[str, float] = {}
            for done in range(first + 1, settings.steps + 1):
                log.profiler.before(done - first, running and running.measures)
                started = time.perf_counter()
                loaded = next(steps)
                waited = time.perf_counter() - started
                if done == 1 and jax.process_index() == 0:
                    write_sample_page(workdir / "samples.html", loaded.batch, text, loaded.ids)
                batch = put_batch(loaded.batch, mesh)
                state, measures = step(state, batch)
                compiled.check(done, loaded.stream, batch)
                # The devices work on this step while the host reads of the one before.
                if running is not None:
                    watch.read(running)
                running = InFlight(done, loaded.stream, loaded.ids, measures, waited)

                stopped, last = agreement.ask(stop.requested), done == settings.steps
                every = settings.evaluate_every
                evaluated = last or bool(every and done % every == 0)
                saved = last or done % settings.checkpoint_every == 0
                if stopped or evaluated or saved:
                    watch.read(running)
                    running = None
                results = {}
                if evaluated and not stopped:
                    try:
                        with stop.at_once(), watch.paused():
                            results = evaluate(state, held_out, text, data.eval_batch, mesh)
                        log.results(done, results)
                    except KeyboardInterrupt:  # the step is still to be saved
                        stopped = True
                if stopped or saved or (results and settings.keep_best):
                    checkpoints.save(done, state, clock=clock.values(), metrics=results)
                if stopped:
                    raise stop.error(f"stopped after step {done}")

            if not results:  # all steps were made before, but for the evaluation
                with stop.at_once():
                    results = evaluate(state, held_out, text, data.eval_batch, mesh)
                log.results(settings.steps, results)
        results["parameters"] = float(like.parameters)
        results["seconds_a_step"] = log.median("seconds_a_step")
    return results


def evaluate(
    state: TrainState, source: Sequence[Record], text: WordPiece, batch: int, mesh: Mesh
) -> dict[str, float]:
    """The run's evaluation: zero-shot retrieval on held-out videos."""
    return dict(retrieval.evaluate(state.best_model(), source, text, batch=batch, mesh=mesh))
