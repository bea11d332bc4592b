"""All settings of one experiment: what a config file may change."""

from __future__ import annotations

import dataclasses

from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.optim import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class ExperimentSettings:
    """One training run.

    Attributes:
      steps: updates in all.
      log_every: steps between metric lines.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      evaluate_every: steps between evaluations; 0 = at the end only.
      keep: checkpoints that stay.
    """

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    seed: int = 0
    steps: int = 1000
    log_every: int = 10
    checkpoint_every: int = 500
    evaluate_every: int = 0
    keep: int = 2
