"""All settings of one experiment: what a config file may change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tokenization.files import write_text
from trajvit_jax.config import differences
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


_BOOKKEEPING = ("log_every", "checkpoint_every", "evaluate_every", "keep")


def claim(workdir: Path, settings: ExperimentSettings) -> None:
    """Notes the settings in the workdir; a workdir keeps to one experiment.

    How often a run logs and saves may change between its parts, and how it reads data.

    Raises:
      ValueError: the workdir's run had other settings; the message names them.
    """
    path = workdir / "settings.json"
    new = json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        changed = differences(_decisive(old), _decisive(new))
        if changed:
            raise ValueError(
                f"{workdir} belongs to a run with other settings ({'; '.join(changed)}); "
                "choose another --workdir, or go on with the old ones"
            )
    write_text(path, json.dumps(new, indent=2) + "\n")


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """What the trained numbers depend on."""
    kept = {key: value for key, value in settings.items() if key not in _BOOKKEEPING}
    data = {k: v for k, v in settings["data"].items() if k not in ("eval_batch", "threads")}
    return kept | {"data": data}
