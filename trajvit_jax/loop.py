"""The loop of every training run: steps, their log, checkpoints, evaluations, a stop in between."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints, Restored
from trajvit_jax.config import nearest
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.failures import ComesAgain
from trajvit_jax.pod.agreement import Agreement, numbers_of_first_process
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.interrupts import StopRequest
from trajvit_jax.run.run_log import Clock, InFlight, RunLog, StepWatch
from trajvit_jax.sharding import put_batch
from trajvit_jax.state import TrainState

Evaluation = Callable[[TrainState, Callable[[], None]], dict[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a loop works with.

    Attributes:
      settings: of the experiment.
      mesh: on which batches are put.
      step: the compiled update, of state and batch.
      compiled: watches its programs.
      checkpoints: where the state is kept.
      log: where it is told of.
      clock: what the run has done so far.
      evaluate: of the state, for results; it calls its second argument between batches.
      show: is given each batch and its number before it is put on the devices.
    """

    settings: ExperimentSettings
    mesh: Mesh
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    compiled: CompileWatch
    checkpoints: Checkpoints
    log: RunLog
    clock: Clock
    evaluate: Evaluation
    show: Callable[[int, Any], None] = lambda number, loaded: None


def evaluates(settings: ExperimentSettings, step: int) -> bool:
    """Whether a run is evaluated after a step."""
    every = settings.evaluate_every
    return step > 0 and (step == settings.steps or bool(every and step % every == 0))


def owes_evaluation(settings: ExperimentSettings, first: int, restored: Restored | None) -> bool:
    """Whether a run is evaluated before it goes on.

    An evaluation that a stop kept from being made is made up for; the last one is repeated.

    Args:
      settings: of the run.
      first: its state's step.
      restored: the checkpoint that the state is of; None = the run begins.
    """
    behind = evaluates(settings, first) and not (restored and restored.metrics)
    return first == settings.steps or behind


def train_loop(
    run: Run, state: TrainState, steps: Iterator[Any], watch: StepWatch, *, catches_up: bool
) -> tuple[TrainState, dict[str, float]]:
    """Runs all steps that are left.

    Ctrl-C, or another signal to stop, ends it after the running step, which is saved.

    Args:
      run: what it works with.
      state: to begin with; its memory is given away.
      steps: what each reads, from the state's on: with `stream`, `batch`, `ids` and `bad`.
      watch: reads of steps.
      catches_up: an evaluation is due before the first step.

    Returns:
      The last state, and the results of the last evaluation if it was at the end.

    Raises:
      KeyboardInterrupt: it was stopped; the message names the step.
      FloatingPointError: see `StepWatch.read`.
      ComesAgain: likewise; or `keep_best` names no result of the evaluation.
      ValueError: before the first step is finished, anything that does not fit.
      RuntimeError: what would be a ValueError, later: the settings have shown that they work.
      OSError: storage that cannot be read or written.
    """
    settings, checkpoints = run.settings, run.checkpoints
    agreement, first = Agreement(run.mesh), int(state.step)
    with StopRequest() as stop, _first_step_proves_settings(watch):

        def evaluated(state: TrainState, step: int, *, saved: bool) -> dict[str, float]:
            def leave_if_asked() -> None:
                if agreement.ask(stop.requested):
                    raise stop.error(f"stopped in the evaluation after step {step}")

            with stop.at_once(), watch.paused():
                found = run.evaluate(state, leave_if_asked)
            # All must know one best checkpoint.
            found = numbers_of_first_process(found)
            run.log.results(step, found)
            if saved and found:
                checkpoints.add_metrics(step, found)
            _check_best(settings.keep_best, found)
            return found

        def save(step: int, state: TrainState, *, wait: bool) -> None:
            checkpoints.save(step, state, clock=run.clock.values(), wait=wait)

        running: InFlight | None = None
        results: dict[str, float] = {}
        if catches_up:
            results = evaluated(state, first, saved=True)
        for done in range(first + 1, settings.steps + 1):
            run.log.profiler.before(done - first, running and running.measures)
            started = time.perf_counter()
            loaded = next(steps)
            waited = time.perf_counter() - started
            run.show(done, loaded)
            batch = put_batch(loaded.batch, run.mesh)
            state, measures = run.step(state, batch)
            run.compiled.check(done, loaded.stream, batch)
            programs = run.compiled.count
            # The devices work on this step while the host reads of the one before.
            if running is not None:
                watch.read(running)
            bad: tuple[BadRecord, ...] = loaded.bad
            running = InFlight(done, loaded.stream, loaded.ids, measures, waited, programs, bad)

            stopped, last = agreement.ask(stop.requested), done == settings.steps
            due = evaluates(settings, done)
            saved = last or done % settings.checkpoint_every == 0
            saved = saved or (due and bool(settings.keep_best))
            if stopped or due or saved:
                watch.read(running)
                running = None
            if stopped or saved:
                # First of all: an evaluation may fail or be killed, and is made up for on resuming.
                # A reminder of the scheduler must not cut off the last save: it is waited for here.
                save(done, state, wait=stopped or last)
            results = {}
            if due and not stopped:
                try:
                    results = evaluated(state, done, saved=saved)
                except KeyboardInterrupt:
                    # What one of several processes hears alone, the others would wait for.
                    if jax.process_count() > 1 and not agreement.reached:
                        raise
                    stopped = True
                    save(done, state, wait=True)
            if stopped:
                raise stop.error(f"stopped after step {done}")
    return state, results


@contextlib.contextmanager
def _first_step_proves_settings(watch: StepWatch) -> Iterator[None]:
    """Turns a later ValueError into one that a restart may mend."""
    try:
        yield
    except ComesAgain:
        raise
    except ValueError as error:
        if not watch.finished:
            raise
        raise RuntimeError(f"after step {watch.finished}: {error}") from error


def _check_best(name: str, results: Mapping[str, float]) -> None:
    if name and results and name not in results:
        raise ComesAgain(
            f"keep_best={name!r} is no result of the evaluation: {nearest(name, results)}; the "
            "run goes on from its last step with another one"
        )
