"""Checkpoints with orbax: the state of training, and the step that the data stands at."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from trajvit_jax.state import TrainState


class Checkpoints:
    """The checkpoints of one workdir; use as a context, so that saves are finished on exit."""

    def __init__(self, workdir: str | os.PathLike[str], *, keep: int = 2):
        self._directory = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

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
        try:
            restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(arrays))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self._directory}/{step} does not fit this config's model; use the config it "
                f"was trained with, or another --workdir ({error})"
            ) from error
        return like.with_arrays(restored)
