r"""Trains a video-text model, evaluates it, and goes on where it stopped.

Example:
  python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine

The workdir holds checkpoints, vocab.txt, metrics.jsonl, TensorBoard's events and results.json.
Behind the config's name stand its arguments, which its first lines explain:
  --config=configs/demo.py:records=runs/records,frames=16,steps=200
  python -m pydoc configs/demo.py   # prints these lines
Any setting that the config names can be changed, too:
  --config.data.batch=16 --config.optimizer.learning_rate=3e-4
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from tokenization import interrupts
from tokenization.files import write_text
from trajvit_jax.config import to_settings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as file.py or file.py:arg.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


def main(argv: list[str]) -> None:
    """Trains as the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; settings are --config.NAME=VALUE")
    assert _WORKDIR.value is not None  # required, see `run`
    _log_plainly()
    workdir = Path(_WORKDIR.value)
    try:
        from trajvit_jax.experiment import ExperimentSettings
        from trajvit_jax.train import train

        settings = to_settings(ExperimentSettings, _CONFIG.value)
        results = train(settings, workdir)
    except KeyboardInterrupt as stop:
        interrupts.leave(f"{str(stop) or 'interrupted'}; run the same command again to go on")
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


def _parse(argv: list[str]) -> list[str]:
    """Reads the flags; what is wrong with the config is told in a line."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.items()  # a file that cannot be read is only found here
        return rest
    except SyntaxError as error:
        reason = f"{error.filename} line {error.lineno}: {error.msg}"
    except AttributeError as error:
        if not (error.args and isinstance(error.args[0], KeyError)):
            raise
        hint = str(error.args[0].args[0]).replace("\n", "; ")
        reason = f"the config names no setting {hint}"
    except (flags.Error, OSError) as error:
        # The reader of configs puts a traceback into the message: its end is the reason.
        reason = str(error).strip().rpartition("\n")[2].strip().removeprefix("ValueError: ")
    sys.exit(f"error: {reason}\nSee --help, and `python -m pydoc CONFIG.py` for its arguments.")


def _log_plainly() -> None:
    """Our lines as they are; of the libraries, which tell of every step, only warnings."""
    if not flags.FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)


def run() -> None:
    """Entry point of `python -m trajvit_jax.main`."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flags_as_required(["config", "workdir"])
    interrupts.install("stopping; a running step is finished and saved first")
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
