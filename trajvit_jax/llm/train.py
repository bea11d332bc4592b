"""Training of a VideoLLM, read from top to bottom: data, model, step, restore, loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.evals import loaded
from trajvit_jax.experiment import check, has_run, note
from trajvit_jax.llm import parts
from trajvit_jax.llm.checks import (
    check_groups,
    check_length,
    check_numbers,
    open_talks,
    tokenizer_of,
    with_sizes,
)
from trajvit_jax.llm.costs import work_of
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.llm.initial import check_initial, start_from
from trajvit_jax.llm.step import Talks, make_step, run
from trajvit_jax.llm.talk_source import TalkSource
from trajvit_jax.llm.talks import LoadedTalks, talk_steps
from trajvit_jax.loop import Run, owes_evaluation, train_loop
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.optim import optimizer, schedule
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.finished import finished
from trajvit_jax.run.results import write_results
from trajvit_jax.run.run_log import Clock, RunLog
from trajvit_jax.run.workdir import lock
from trajvit_jax.sharding import make_mesh, part_of_process, put_batch, shardings
from trajvit_jax.state import TrainState

_LOG = logging.getLogger(__name__)
STREAM = "talks"


def resolve(
    settings: VideoLLMExperiment, mesh: Mesh
) -> tuple[VideoLLMExperiment, VideoTextModel | None]:
    """The settings with the sizes of what was trained before, and the video encoder.

    Args:
      settings: as a config has them.
      mesh: where the encoder's arrays lie.

    Raises:
      FileNotFoundError, ValueError: folders that hold no such models.
    """
    settings, folder = with_sizes(settings), settings.weights.video
    if not folder:
        return settings, None
    encoder = loaded.load(folder, mesh=mesh).model
    model = _used(settings.model, encoder.settings, folder)
    return dataclasses.replace(settings, model=model), encoder


def _used(own: ModelSettings, trained: ModelSettings, folder: str) -> ModelSettings:
    """A trained encoder's settings, with what a config may say of its use."""
    if own.name != trained.name:
        raise ValueError(f"{folder} is of {trained.name}, the config's model is {own.name}")
    changes: dict[str, Any] = {"dtype": own.dtype, "impl": own.impl}
    if own.name == "trajvit":  # it takes any number of frames and trajectories
        changes["frames"] = own.frames
        # Padding that is attended to, as in the released program, would change answers by the
        # number of slots.
        changes["trajvit"] = dataclasses.replace(
            trained.trajvit,
            max_trajectories=own.trajvit.max_trajectories,
            attend_padding=False,
        )
    elif own.frames != trained.frames:
        raise ValueError(
            f"{folder} reads {trained.frames} frames, the config's model {own.frames}: set "
            f"model.frames={trained.frames}"
        )
    return dataclasses.replace(trained, **changes)


def with_steps(settings: VideoLLMExperiment, conversations: int) -> VideoLLMExperiment:
    """The settings with as many steps as their epochs take; `epochs` is 0 then."""
    if not settings.epochs:
        return settings
    steps = max(1, round(settings.epochs * conversations / settings.data.batch))
    return dataclasses.replace(settings, steps=steps, epochs=0.0)


def open_state(
    settings: VideoLLMExperiment,
    encoder: VideoTextModel | None,
    tx: optax.GradientTransformation,
    mesh: Mesh,
) -> tuple[TrainState, nnx.State]:
    """What is trained, before the first step, and all other arrays of the model.

    Raises: as `parts.make` does.
    """
    model = parts.make(settings.both, encoder, settings.weights.llm, mesh=mesh, seed=settings.seed)
    graph, params, frozen = nnx.split(model, parts.is_trained(settings.train), ...)
    if "eyes" in settings.train:
        # What is trained is given away with each step: not the encoder's own arrays.
        params = jax.tree.map(jnp.copy, params)
    opt_state = tx.init(params)
    opt_state = jax.device_put(opt_state, shardings(opt_state, mesh))
    zero = jax.device_put(jnp.zeros((), jnp.int32), shardings(jnp.zeros(()), mesh))
    return TrainState(zero, params, nnx.State({}), opt_state, None, graph), frozen


def facts(settings: VideoLLMExperiment, talks: str) -> dict[str, object]:
    """What results must be known with; `talks`: fingerprint of the held-out ones."""
    return ({"initial": settings.initial} if settings.initial else {}) | {
        "model": settings.model.name,
        "protocol": "held-out answers, each token told by the true ones before it",
        "conversations": list(settings.conversations),
        "held_out": settings.held_out,
        "held_out_talks": talks,
        "trained": list(settings.train),
        "steps": settings.steps,
        "seed": settings.seed,
    }


def train(settings: VideoLLMExperiment, workdir: Path) -> dict[str, float]:
    """Trains, or goes on from the last checkpoint, and evaluates; or finds all of it done.

    Returns:
      `answer_loss` and `answer_accuracy` of the held-out conversations' answers, where there are
      any, with `parameters` that are trained and `seconds_a_step`.

    Raises: as `trajvit_jax.train.train` does, as `resolve`, as those of
      `llm.checks` and as `initial.start_from` do.
    """
    with contextlib.ExitStack() as stack:
        # Devices
        mesh = make_mesh(settings.mesh)
        part, processes = part_of_process(mesh)
        check_groups(settings, mesh)
        check_numbers(settings)
        if settings.initial and not has_run(workdir):
            check_initial(settings)

        # What was trained before
        settings, encoder = resolve(settings, mesh)
        check_length(settings)

        # Data
        data = settings.data
        tokenizer = tokenizer_of(settings)
        source = open_talks(
            settings, settings.conversations, data.train, data.train_split, tokenizer
        )
        settings = with_steps(settings, len(source))
        held_out = None
        if settings.held_out:
            files, folder = (settings.held_out,), data.evaluation_folder
            held_out = open_talks(settings, files, folder, data.eval_split, tokenizer)
        weights = settings.weights
        between = parts.fingerprint(encoder, weights.llm, weights.tokenizer)
        made_of = f"{source.fingerprint}+{between}"
        check(workdir, settings, made_of)
        stack.enter_context(lock(workdir, process=jax.process_index()))
        true_of = facts(settings, "" if held_out is None else held_out.fingerprint)
        if (done := finished(workdir, true_of, settings.steps)) is not None:
            if jax.process_index() == 0:
                note(workdir, settings, made_of)  # what it was made of may lie elsewhere by now
            return done
        epochs = settings.steps * data.batch / len(source)
        told = "%d conversations to train on, %d steps: %.2f epochs"
        _LOG.info(told, len(source), settings.steps, epochs)

        # Model
        stack.enter_context(jax.set_mesh(mesh))
        tx = optimizer(settings.optimizer, settings.steps)
        state, frozen = open_state(settings, encoder, tx, mesh)
        del encoder
        trained = state.parameters
        _LOG.info("%s: %.1f M parameters are trained", settings.model.name, trained / 1e6)
        update = make_step(
            tx,
            group=settings.rows.group,
            micro_batches=settings.micro_batches,
            block=settings.loss_block,
            frozen_eyes="eyes" not in settings.train,
            where=jax.tree.map(lambda x: x.sharding, state),
            rate=schedule(settings.optimizer, settings.steps),
        )
        compiled = CompileWatch(update)

        # Restore
        checkpoints = stack.enter_context(
            Checkpoints(workdir, keep=settings.keep, best=settings.keep_best)
        )
        clock, resumed = Clock(), checkpoints.resume(state)
        if resumed:
            state, clock = resumed.state, Clock.of(resumed.clock)
            _LOG.info("goes on from step %d of %s", resumed.step, workdir)
        elif settings.initial:
            state = start_from(state, settings, between=between, mesh=mesh)
        first = int(state.step)
        catches_up = owes_evaluation(settings, first, resumed)
        steps = talk_steps(
            source,
            data.batch,
            seed=settings.seed,
            start=first,
            process=part,
            processes=processes,
            threads=data.threads,
            cache=data.cache,
            stream=STREAM,
        )
        stack.callback(steps.close)
        if jax.process_index() == 0:
            note(workdir, settings, made_of)

        # Loop
        log = stack.enter_context(RunLog(workdir, settings, first=first, evaluates=catches_up))
        told = functools.partial(evaluate, settings, frozen, held_out, mesh, part, processes)
        warned: list[str] = []

        def tell(number: int, read: LoadedTalks) -> None:
            lost = [n for n, u in zip(read.ids, read.batch.unplaced, strict=True) if u]
            if lost and not warned:
                _LOG.warning(
                    "step %d: no room in its rows for %s; `unplaced` of the log counts such "
                    "conversations: raise rows.rows, rows.length or rows.media",
                    number,
                    ", ".join(lost[:3]),
                )
            warned.extend(lost)

        loop = Run(
            settings=settings,
            mesh=mesh,
            step=lambda state, batch: update(state, frozen, batch),
            compiled=compiled,
            checkpoints=checkpoints,
            log=log,
            clock=clock,
            evaluate=told,
            show=tell,
        )
        with log.watch(settings.model.name, clock, {STREAM: work_of(settings)}) as watch:
            state, results = train_loop(loop, state, steps, watch, catches_up=catches_up)
        results["parameters"] = float(trained)
        results["seconds_a_step"] = log.median("seconds_a_step")
        if jax.process_index() == 0:
            write_results(workdir, true_of, results)
    return results


def evaluate(
    settings: VideoLLMExperiment,
    frozen: nnx.State,
    source: TalkSource | None,
    mesh: Mesh,
    process: int,
    processes: int,
    state: TrainState,
    between: Callable[[], None],
) -> dict[str, float]:
    """The loss of held-out answers, and the share of their tokens that are the likeliest.

    Beside them how many conversations were left out, of all processes, and how many trajectories
    of the others found no place: the fewer rows, the more.
    """
    if source is None:
        return {}
    batch = settings.data.batch
    steps = talk_steps(
        source,
        batch,
        seed=0,
        process=process,
        processes=processes,
        threads=settings.data.threads,
        ordered=True,
    )
    run_one = _evaluation(settings.rows.group, settings.loss_block)
    sums = dict.fromkeys(("nats", "right", "count", "left_out", "dropped"), 0.0)
    left: list[str] = []
    try:
        for _ in range(-(-len(source) // batch)):
            between()
            read = next(steps)
            told = zip(read.ids, read.batch.present, read.batch.unplaced, strict=True)
            left += [name for name, present, unplaced in told if not present or unplaced]
            found = run_one(state.graph, state.params, frozen, put_batch(read.batch, mesh))
            sums = {name: so_far + float(found[name]) for name, so_far in sums.items()}
    finally:
        steps.close()
    if left:
        _LOG.warning(
            "%d held-out conversations that this process read are left out: %s", len(left), left[:3]
        )
    count = max(sums["count"], 1)
    return {
        "answer_loss": sums["nats"] / count,
        "answer_accuracy": sums["right"] / count,
        "answer_tokens": sums["count"],
        "left_out": sums["left_out"],
        "dropped": sums["dropped"],
    }


@functools.cache
def _evaluation(group: int, block: int) -> Any:
    def one(graph: Any, params: nnx.State, frozen: nnx.State, talks: Talks) -> dict[str, jax.Array]:
        model = nnx.merge(graph, params, frozen, copy=True)
        groups = len(talks.present) // group
        found = run(model, talks, groups=groups, block=block, frozen_eyes=True)
        return {
            "nats": found.nats,
            "right": found.right,
            "count": found.count,
            "left_out": (~talks.present | talks.unplaced).sum(),
            "dropped": talks.dropped.sum(),
        }

    return jax.jit(one, static_argnums=0)
