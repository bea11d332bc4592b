r"""Trains a video-text model, evaluates it, and goes on where it stopped.

Example:
  python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine

The workdir holds checkpoints, vocab.txt, metrics.jsonl, TensorBoard's events and results.json.
Any setting that the config names can be changed on the command line:
  --config.model.name=vit3d --config.steps=200 --config.optimizer.learning_rate=3e-4
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from tokenization.files import write_text
from trajvit_jax.config import to_settings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as file.py or file.py:arg.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; settings are --config.NAME=VALUE")
    from trajvit_jax.experiment import ExperimentSettings
    from trajvit_jax.train import train

    assert _WORKDIR.value is not None  # required, see `run`
    workdir = Path(_WORKDIR.value)
    try:
        settings = to_settings(ExperimentSettings, _CONFIG.value)
        results = train(settings, workdir)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    facts = {
        "model": settings.model.name,
        "protocol": "zero-shot retrieval, one embedding a video and a text, cosine",
        "evaluation": settings.data.evaluation_folder,
        "split": settings.data.eval_split,
        "frames": settings.model.frames,
        "steps": settings.steps,
        "seed": settings.seed,
    }
    text = json.dumps(facts | results, indent=2)
    write_text(workdir / "results.json", text + "\n")
    logging.getLogger(__package__).info("results: %s", text)


def run() -> None:
    """Entry point of `python -m trajvit_jax.main`."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flags_as_required(["config", "workdir"])
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
