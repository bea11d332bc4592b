"""Training, read from top to bottom: data, model, step, restore, loop, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.data.held_out import open_held_out
from trajvit_jax.data.index import check_index, read_index
from trajvit_jax.data.source import Record
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import fingerprint, open_streams
from trajvit_jax.data.unusable import readable_captions
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import during_training, retrieval
from trajvit_jax.evals.during_training import Planned
from trajvit_jax.experiment import ExperimentSettings, check, check_files, has_run, note
from trajvit_jax.initial import start_from
from trajvit_jax.loop import Run, owes_evaluation, train_loop
from trajvit_jax.optim import optimizer, schedule
from trajvit_jax.pod.cluster import wait_for_all
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.finished import finished
from trajvit_jax.run.results import write_results
from trajvit_jax.run.run_log import Clock, RunLog
from trajvit_jax.run.sample_page import SamplePages
from trajvit_jax.run.throughput import work_of
from trajvit_jax.run.workdir import lock
from trajvit_jax.sharding import check_batch, make_mesh, part_of_process
from trajvit_jax.state import TrainState
from trajvit_jax.step import make_step

_LOG = logging.getLogger(__name__)
_LEARN_FROM = 50_000  # records of each source, whose captions a vocabulary is learned from


def vocabulary_of(settings: ExperimentSettings, workdir: Path) -> WordPiece:
    """The run's WordPiece vocabulary: from the workdir, else the config's file, else learned.

    It is kept in the workdir, so that a resumed run and a later evaluation read the same. It is
    learned by process 0, of large sources from the captions of some records.
    """
    kept, own = workdir / "vocab.txt", settings.model.text
    if jax.process_index() == 0 and not has_run(workdir):
        if settings.data.vocabulary:
            text = WordPiece.load(settings.data.vocabulary, own.length, own.cleaning)
        else:
            captions = {
                caption
                for source in settings.data.train_sources
                for caption in readable_captions(source.path, source.split, most=_LEARN_FROM)
            }
            text = WordPiece.train(captions, own.length, size=own.vocabulary, cleaning=own.cleaning)
        text.save(kept)
    wait_for_all("vocabulary")
    return WordPiece.load(kept, own.length, own.cleaning)


def facts(
    settings: ExperimentSettings, records: str, protocols: Mapping[str, Any]
) -> dict[str, object]:
    """What results must be known with.

    Args:
      settings: of the run.
      records: fingerprint of the evaluation's.
      protocols: likewise of the other protocols.
    """
    return {
        "model": settings.model.name,
        "protocol": "zero-shot retrieval, one embedding a video and a text, cosine",
        "evaluation": settings.data.evaluation_folder,
        "split": settings.data.eval_split,
        "evaluation_records": records,
        "frames": settings.model.frames,
        "steps": settings.steps,
        "seed": settings.seed,
    } | ({"protocols": dict(protocols)} if protocols else {})


def train(settings: ExperimentSettings, workdir: Path) -> dict[str, float]:
    """Trains, or goes on from the last checkpoint, and evaluates; or finds all of it done.

    Ctrl-C ends after the running step and saves: the same command goes on from there, with the
    evaluation that was due after this step, if one was.

    Returns:
      Retrieval on the evaluation records, what the other protocols found, and `parameters` and
      `seconds_a_step`: the median, waiting for data and compilation left out. They are in
      results.json, too.

    Raises:
      ValueError: the workdir is that of a run with other settings, the records do not fit the
        model, or too many of them cannot be used (see `run.bad_records`); nothing is where
        `initial` says; or a protocol cannot be measured (see `during_training.check`).
      RuntimeError: anything else that does not fit, after the first finished step.
      OSError: storage that cannot be read or written; the last checkpoint stays.
      KeyboardInterrupt: Ctrl-C; the message names the step.
      FloatingPointError: losses or gradients that are not finite, `max_skipped` steps in a row;
        the last checkpoint stays.
    """
    with contextlib.ExitStack() as stack:
        # Devices
        mesh = make_mesh(settings.mesh)
        part, parts = part_of_process(mesh)
        for stream in settings.data.train_streams(settings.model.frames):
            own = settings.model
            check_batch(
                stream.name,
                stream.batch,
                own.rlt.group if own.name == "rlt" else stream.group,
                mesh,
                micro_batches=settings.step.micro_batches,
            )

        # Data
        data = settings.data
        streams = open_streams(data.train_streams(settings.model.frames))
        records = fingerprint(streams)
        check(workdir, settings, records)
        if not has_run(workdir):
            check_files(settings)
        held_out = open_held_out(data)
        # What does not fit shows before compiling.
        check_index(held_out, read_index(held_out), settings.model.frames)
        protocols = during_training.plan(settings.protocols)
        during_training.check(protocols, settings.model)
        for number, stream in enumerate(streams):
            stream.check()
            # Of no use to a run that only tries things out.
            if settings.optimize and (
                told := stream.row_advice(number, settings.model, settings.seed)
            ):
                _LOG.warning("%s", told)
        stack.enter_context(lock(workdir, process=jax.process_index()))
        true_of = facts(settings, held_out.fingerprint, during_training.facts(protocols))
        if (done := finished(workdir, true_of, settings.steps)) is not None:
            return done
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
        rate = schedule(settings.optimizer, settings.steps)
        step = make_step(tx, settings.step, model, seed=settings.seed, where=where, rate=rate)
        compiled = CompileWatch(step)

        # Restore
        checkpoints = stack.enter_context(
            Checkpoints(workdir, keep=settings.keep, best=settings.keep_best)
        )
        if resumed := checkpoints.resume(like):
            state, clock = resumed.state, Clock.of(resumed.clock)
            _LOG.info("goes on from step %d of %s", resumed.step, workdir)
        else:
            seed, clock = settings.seed, Clock()
            state = TrainState.initialize(model, tx, seed, mesh=mesh, averaged=averaged)
            if settings.initial:
                state = start_from(state, Path(settings.initial), text, mesh=mesh)
        first = int(state.step)
        catches_up = owes_evaluation(settings, first, resumed)
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
        log = stack.enter_context(RunLog(workdir, settings, first=first, evaluates=catches_up))
        pages = SamplePages(workdir, settings.step, model, text, seed=settings.seed, first=first)

        def evaluated(state: TrainState, between: Callable[[], None]) -> dict[str, float]:
            return evaluate(
                state,
                held_out,
                text,
                protocols,
                workdir,
                batch=data.eval_batch,
                mesh=mesh,
                between=between,
            )

        run = Run(settings, mesh, step, compiled, checkpoints, log, clock, evaluated, pages.show)
        with log.watch(model.name, clock, works) as watch:
            _, results = train_loop(run, state, steps, watch, catches_up=catches_up)
        results["parameters"] = float(like.parameters)
        results["seconds_a_step"] = log.median("seconds_a_step")
        if jax.process_index() == 0:
            write_results(workdir, true_of, results)
    return results


def evaluate(
    state: TrainState,
    held_out: Sequence[Record],
    text: WordPiece,
    protocols: Sequence[Planned],
    workdir: Path,
    *,
    batch: int,
    mesh: Mesh,
    between: Callable[[], None],
) -> dict[str, float]:
    """The run's evaluation: zero-shot retrieval on held-out videos, and what protocols find."""
    model = state.best_model()
    found = retrieval.evaluate(model, held_out, text, batch=batch, mesh=mesh, between=between)
    others = during_training.evaluate(protocols, model, text, workdir, mesh=mesh, between=between)
    return dict(found) | others
