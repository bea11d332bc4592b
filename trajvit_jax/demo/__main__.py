"""The whole chain on this machine, in minutes: clips, trajectories, two models, one report.

  1. renders a procedural world of captioned clips to H.264 files;
  2. cuts them into trajectories;
  3. trains TrajViT and ViT3D on the same clips for the same number of steps, and evaluates
     both on held-out clips;
  4. cuts some real clips into trajectories and writes report.html.

A second run keeps what is done. Examples, from the folder that holds configs/:
  python -m trajvit_jax.demo --output=runs/demo
  python -m trajvit_jax.demo --output=runs/longer --steps=600
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(
        prog="python -m trajvit_jax.demo",
        description=__doc__,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to fill")
    parser.add_argument("--config", default="configs/demo.py", help="experiment config")
    parser.add_argument(
        "--data-config", default="configs/tokenization/demo.py", help="world and extraction config"
    )
    parser.add_argument("--steps", type=int, default=None, help="training steps of each model")
    parser.add_argument("--seed", type=int, default=0, help="of the models")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    start = time.monotonic()
    try:
        # Imported late: jax takes seconds, and --help should not.
        from trajvit_jax.demo import chain

        report, path = chain.run(
            output=options.output,
            config=options.config,
            data_config=options.data_config,
            seed=options.seed,
            steps=options.steps,
        )
    except KeyboardInterrupt:
        interrupts.leave("interrupted; run the same command again to go on")
    except (ValueError, OSError, FloatingPointError) as error:
        return exit_codes.tell(error)
    print(report.table())
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes. Report: {path.resolve()}")
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; what is finished is kept")
    sys.exit(main())
