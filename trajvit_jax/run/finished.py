"""Whether a run has nothing left to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from trajvit_jax.pod.agreement import from_first_process
from trajvit_jax.run.results import FILE, read_results
from trajvit_jax.run.whole_files import find_damage

_LOG = logging.getLogger(__name__)


def finished(workdir: Path, facts: Mapping[str, Any], steps: int) -> dict[str, float] | None:
    """The results of a run that made all its steps and was evaluated; None if anything is missing.

    Of several processes, process 0 decides for all, and has the results alone.

    Args:
      workdir: of the run, whose settings are these (see `experiment.check`).
      facts: that the results must be of.
      steps: in all; the checkpoint of the last one must be there, and whole.

    Raises:
      OSError: storage that cannot be read.
    """
    found = None
    if jax.process_index() == 0 and not find_damage(workdir / "checkpoints" / str(steps)):
        found = read_results(workdir, facts)
    if not from_first_process(found is not None):
        return None
    _LOG.info(
        "%s is finished: all %d steps are made and evaluated. Its results are in %s; remove that "
        "file to evaluate again, or train anew in another --workdir",
        workdir,
        steps,
        workdir / FILE,
    )
    return found or {}
