"""Checkpoints with orbax: the arrays of training, sharded as they lie, and a small JSON beside.

A save goes on in the background, and a checkpoint is whole or not there: it gets its name last.
Of damage orbax notices missing files, cut ones and what is wrong in its own metadata; a flipped bit
inside an array it does not see. So a checksum of each array's values is saved too and compared
after restoring, on whatever mesh; and all files are listed, for a verdict before reading.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, no_type_check

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from trajvit_jax.metrics import lower_is_better
from trajvit_jax.pod.agreement import from_first_process
from trajvit_jax.run.checkpoint_files import (
    RUN,
    STATE,
    first_misfit,
    in_a_line,
    is_of_the_machine,
    read_arrays,
    read_run,
    saved_shapes,
    shape_of,
    write_later,
)
from trajvit_jax.run.checksums import checksums
from trajvit_jax.run.whole_files import find_damage, is_missing, note_files
from trajvit_jax.state import TrainState

_LOG = logging.getLogger(__name__)
_BROKEN = ".broken"
_LOOKS, _LOOK_AGAIN = 31, 2.0  # a network folder's files may show a minute late: so often, seconds


# `state` may hold shapes where annotations say arrays.
@no_type_check
@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    Attributes:
      step: updates made.
      state: arrays of training.
      clock: what `save` was given: seconds trained, videos seen, and the like.
      metrics: what `save` was given.
    """

    step: int
    state: TrainState
    clock: Mapping[str, Any]
    metrics: Mapping[str, float]


class Checkpoints:
    """The checkpoints of one workdir; use as a context, so that saves are finished on exit.

    On many hosts every process makes the same calls, and all see one folder.

    Args:
      workdir: they lie in its folder `checkpoints`, each in one named by its step.
      keep: the newest ones that stay.
      best: name of a metric whose best checkpoint stays, too; '' = none. What is best is said by
        `metrics.lower_is_better`.
      read_only: for a reader beside a run: nothing is changed, and `save` is an error.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        keep: int = 2,
        best: str = "",
        read_only: bool = False,
    ):
        self._directory = Path(workdir).absolute() / "checkpoints"
        self._read_only = read_only
        self._keep, self._best, self._sign = keep, best, -1 if lower_is_better(best) else 1
        self._metrics: dict[int, Mapping[str, float]] = {}
        self._saving = -1
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # of a run that was killed while saving
                # The steps are known by the folders' names: a file of metadata that cannot be
                # read is found on restoring, where it can be told and passed over.
                lightweight_initialize=True,
                preservation_policy=self,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._before_rename
                ),
            ),
            item_handlers={
                STATE: ocp.StandardCheckpointHandler(),
                RUN: ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait()
        self._manager.close()

    @property
    def steps(self) -> Sequence[int]:
        """Steps of all complete checkpoints, the oldest first."""
        return tuple(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint whose metric `best` is the best; None if none has it."""
        values = {step: self._metrics_of(step).get(self._best, math.nan) for step in self.steps}
        finite = {step: value for step, value in values.items() if math.isfinite(value)}
        return max(finite, key=lambda step: (self._sign * finite[step], step), default=None)

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        clock: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Saves in the background; does nothing if this step is saved already.

        Args:
          step: updates made.
          state: arrays of any sharding. They may be given away (donated) once this returns.
          clock: what else a resumed run wants to know, as JSON.
          metrics: of this state; finite ones are compared by `best`.
          wait: returns only when the checkpoint is there.

        Raises:
          OSError: this save or the one before failed; the checkpoints before them are whole.
        """
        self.wait()
        if step not in self.steps:
            arrays = state.arrays()
            run = {
                "clock": dict(clock or {}),
                "metrics": {name: float(value) for name, value in (metrics or {}).items()},
                "checksums": checksums(arrays),
            }
            self._metrics[step], self._saving = run["metrics"], step
            items = {STATE: ocp.args.StandardSave(arrays), RUN: ocp.args.JsonSave(run)}
            try:
                self._manager.save(step, args=ocp.args.Composite(**items), force=True)
            except Exception as error:
                raise self._failed(error) from error
        if wait:
            self.wait()

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives a saved checkpoint the metrics of an evaluation that came later.

        Raises:
          OSError: they cannot be written.
        """
        self.wait()
        self._metrics[step] = {name: float(value) for name, value in metrics.items()}
        if jax.process_index() == 0:
            write_later(self._folder(step), self._metrics[step])

    def wait(self) -> None:
        """Returns when all saves are done.

        Raises:
          OSError: a save failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def resume(self, like: TrainState) -> Restored | None:
        """The newest checkpoint that can be read, or None if nothing was ever saved here.

        One that cannot be read is told of, and its folder renamed to `STEP.broken`; then the one
        before it is taken. Nothing is deleted.

        Args:
          like: arrays, or shapes with shardings (`jax.ShapeDtypeStruct`): where the arrays go. The
            mesh and the number of hosts may be others than when they were saved.

        Raises:
          ValueError: checkpoints of another model (the message names what differs), or none left
            that can be read.
          OSError: memory, a disk or a network fails, which is no proof of damage: nothing is
            renamed, and another start may find all well.
        """
        passed: set[int] = set()
        while True:
            steps = [step for step in self.steps if step not in passed]
            step = from_first_process(steps[-1] if steps else -1)
            if step < 0:
                break
            found, reason = self._read(step, like)
            if found is not None:
                return found
            passed.add(step)
            self._set_aside(step, reason)
        broken = sorted(self._directory.glob(f"[0-9]*{_BROKEN}*"))
        if passed or broken:
            raise ValueError(
                f"no checkpoint in {self._directory} can be read "
                f"({', '.join(path.name for path in broken) or sorted(passed)}); mend one and give "
                "it its name back, or start anew in another --workdir"
            )
        return None

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state of the newest checkpoint as `resume` gives it, or that of one step.

        Raises:
          FileNotFoundError: no checkpoint in this workdir, or none of this step.
          ValueError: a checkpoint of another model, or one that cannot be read.
          OSError: as `resume` says.
        """
        if step is not None:
            if step not in self.steps:
                raise FileNotFoundError(
                    f"no checkpoint of step {step} in {self._directory}; there are "
                    f"{', '.join(map(str, self.steps)) or 'none'}"
                )
            found, reason = self._read(step, like)
            if found is None:
                raise ValueError(f"{self._folder(step)} cannot be read: {reason}")
            return found.state
        newest = self.resume(like)
        if newest is None:
            raise FileNotFoundError(f"no checkpoint in {self._directory}; train first")
        return newest.state

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: object
    ) -> Sequence[bool]:  # asked by orbax after every save
        """Which checkpoints stay."""
        newest = {checkpoint.step for checkpoint in checkpoints[-self._keep :]}
        kept = newest | {self.best_step}
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def _before_rename(self) -> None:
        """Called by orbax when all files are written and the folder has not got its name yet."""
        [folder] = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        note_files(folder)

    def _folder(self, step: int) -> Path:
        return self._directory / str(step)

    def _read(self, step: int, like: TrainState) -> tuple[Restored | None, str]:
        """A checkpoint, or why it cannot be read; the same on every process."""
        folder = self._folder(step)
        wanted = jax.tree.map(shape_of, like.arrays())
        run: dict[str, Any] = {}
        arrays, misfit, reason, trouble = None, "", "", None
        try:
            reason = self._damage(folder)
            if not reason:
                run = read_run(folder)
                misfit = first_misfit(saved_shapes(folder), wanted)
                if not misfit:
                    arrays = read_arrays(folder, wanted)
        except Exception as error:
            trouble = error if is_of_the_machine(error) else None
            reason = in_a_line(error)
        if _anywhere(trouble is not None):
            told = reason if trouble is not None else "by another process"
            raise OSError(
                f"{folder} cannot be read now: {told}; it may be whole, and is left as it is"
            ) from trouble
        if _anywhere(bool(misfit)):
            raise ValueError(
                f"{folder} does not fit this config's model ({misfit}); use the config it was "
                "trained with, or another --workdir"
            )
        if _anywhere(arrays is None) or arrays is None:
            return None, reason or "another process could not read it"
        there, here = run["checksums"], checksums(arrays)
        differing = [name for name, value in here.items() if there.get(name) != value]
        if _anywhere(bool(differing)):
            return None, f"its values are not those that were saved: {', '.join(differing[:3])}"
        return Restored(step, like.with_arrays(arrays), run["clock"], run["metrics"]), ""

    def _damage(self, folder: Path) -> str:
        """What is wrong with the files of a checkpoint; '' if nothing.

        One that only some processes miss is no damage: their view of a network folder is older.

        Raises:
          OSError: they still miss it after a minute; or as `find_damage`.
        """
        for look in range(_LOOKS):
            time.sleep(_LOOK_AGAIN if look else 0.0)
            trouble, reason = None, ""
            try:
                reason = find_damage(folder)
            except Exception as error:  # told below: the others wait for this process's answer
                trouble = error
            missing = is_missing(reason)
            if not _anywhere(not reason and trouble is None) or not _anywhere(missing):
                if trouble is not None:
                    raise trouble
                return reason
        raise OSError(f"{reason or 'a file is missing'}, though not for every process")

    def _set_aside(self, step: int, reason: str) -> None:
        folder = self._folder(step)
        if self._read_only:
            _LOG.warning("checkpoint %s cannot be read (%s): taking the one before", folder, reason)
            return
        if jax.process_index() == 0:
            aside, number = folder.with_name(f"{step}{_BROKEN}"), 1
            while aside.exists():
                number += 1
                aside = folder.with_name(f"{step}{_BROKEN}{number}")
            folder.rename(aside)
            _LOG.warning(
                "checkpoint %s cannot be read (%s): now %s, and the one before is taken",
                folder,
                reason,
                aside.name,
            )
        _barrier(f"set aside {step}")
        self._manager.reload()

    def _metrics_of(self, step: int) -> Mapping[str, float]:
        if step not in self._metrics:
            try:
                self._metrics[step] = read_run(self._folder(step))["metrics"]
            except (FileNotFoundError, ValueError, KeyError):  # broken; told of on restoring
                return {}
        return self._metrics[step]

    def _failed(self, error: Exception) -> OSError:
        return OSError(
            f"a checkpoint could not be saved in {self._directory}: {in_a_line(error)}; "
            f"the last one is {self.latest_step}"
        )


def _anywhere(value: bool) -> bool:
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value))))


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
