"""Checkpoints with orbax: the state of training, and the step that the data stands at."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from trajvit_jax.state import TrainState


class Checkpoints:
    """The checkpoints of one workdir; use as a context, so that saves are finished on exit."""

    def __init__(self, workdir: str | os.PathLike[str], *, keep: int = 2):
        self._directory = Path(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Saves in the background; a checkpoint is complete or not there."""
        if step != self.latest_step:
            self._manager.save(step, args=ocp.args.StandardSave(state.arrays()))

    def restore(self, like: TrainState) -> TrainState:
        """The newest checkpoint, in the shapes of `like`.

        Raises:
          FileNotFoundError: no checkpoint in this workdir.
          ValueError: a checkpoint of another model (the message names the folder).
        """
        step = self.latest_step
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self._directory}; train first")
        arrays: Any = like.arrays()
        misfit = _misfit(self._manager.item_metadata(step).tree, arrays)
        if misfit:
            raise ValueError(
                f"{self._directory}/{step} does not fit this config's model ({misfit}); use the "
                "config it was trained with, or another --workdir"
            )
        restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(arrays))
        return like.with_arrays(restored)


def _misfit(saved: Any, wanted: Any) -> str:
    """The first array whose shape differs or that only one side has; '' if there is none."""
    shapes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (saved, wanted)
    ]
    there, here = shapes
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"{name}: {there.get(name)} there, {here.get(name)} here"
    return ""
