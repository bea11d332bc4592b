r"""Trains a video-text model, evaluates it, and goes on where it stopped.

Example:
  python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine

The workdir holds checkpoints, vocab.txt, metrics.jsonl, TensorBoard's events, results.json, pages
of what the model was fed (samples-*.html) and bad_records.jsonl, the records it could not be fed.
Behind the config's name stand its arguments, which its first lines explain:
  --config=configs/demo.py:records=runs/records,frames=16,steps=200
  python -m pydoc configs/demo.py   # prints these lines
Any setting that the config names can be changed, too:
  --config.data.batch=16 --config.optimizer.learning_rate=3e-4

A run is evaluated by retrieval at its end and every `evaluate_every` steps. Other protocols of
trajvit_jax.evals join by a line each:
  --config.protocols="('probing --records=data/ucf101 --views=1',)"

A run that has made all its steps, and whose results.json is of these settings, does nothing: remove
that file to evaluate it again.

Exit codes: 0 done; 75 preempted (SIGTERM or SIGUSR1) and 130 Ctrl-C: the running step was
finished and saved, and the same command goes on; 2 an error that will come again (of settings,
records, numbers), 1 any other, as what a disk or a library does after the first step.
On many hosts, launch/run_pod.sh starts this on each. --only_check_args checks the config, and the
records where their folder is on this machine, names what is not there, and ends.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from tokenization import exit_codes, interrupts
from trajvit_jax.command_flags import reader
from trajvit_jax.config import to_settings
from trajvit_jax.pod import cluster
from trajvit_jax.run.results import FILE as RESULTS

if TYPE_CHECKING:
    from trajvit_jax.experiment import ExperimentSettings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as file.py or file.py:arg.")
_COMES_AGAIN = 2  # exit code: starting again would not help
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


@dataclasses.dataclass(frozen=True)
class Program:
    """A training command.

    Attributes:
      doc: what it says of itself.
      load: imports JAX and what is trained; gives the class of its settings, and what trains by
        them in a workdir, where it writes results.json.
      check: of a config, what can be known before a run starts; raises ValueError.
    """

    doc: str | None
    load: Callable[[], tuple[Any, Callable[..., dict[str, float]]]]
    check: Callable[[Any], None] | None = None


def main(argv: list[str], program: Program) -> None:
    """Trains as the flags say."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown argument {argv[1]!r}; settings are --config.NAME=VALUE", _COMES_AGAIN
        )
    assert _WORKDIR.value is not None  # required, see `run`
    _log_plainly()
    workdir = Path(_WORKDIR.value)
    own = None
    try:
        kind, train = program.load()
        settings = to_settings(kind, _CONFIG.value)
        _compile_as(settings)
        own = cluster.from_environment(os.environ)
        cluster.start(own)
        train(settings, workdir)
        if own is None or own.process == 0:
            text = (workdir / RESULTS).read_text("utf-8").strip()
            logging.getLogger(__package__).info("results: %s", text)
    except KeyboardInterrupt as stop:
        interrupts.heed_no_reminder()
        cluster.stop(own)
        message = f"{str(stop) or 'interrupted'}; run the same command again to go on"
        interrupts.leave(message, interrupts.exit_code(stop))
    except (ValueError, FloatingPointError) as error:
        _fail(error, _COMES_AGAIN, alone=own is None)
    except OSError as error:
        _fail(error, 1, alone=own is None)
    except Exception:
        if own is not None:  # else the others would wait for this one
            interrupts.leave(traceback.format_exc(), 1)
        raise
    cluster.stop(own)


def _compile_as(settings: ExperimentSettings) -> None:
    if not settings.optimize:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)


def _fail(error: Exception, code: int, *, alone: bool) -> NoReturn:
    message = f"error: {error}"
    if not alone:  # on the way out of the interpreter JAX would wait for the others, in vain
        interrupts.leave(message, code)
    print(message, file=sys.stderr)
    sys.exit(code)


def _log_plainly() -> None:
    """Our lines as they are; of the libraries, which tell of every step, only warnings."""
    if not flags.FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)


def _video_text() -> Any:
    from trajvit_jax.experiment import ExperimentSettings
    from trajvit_jax.train import train

    return ExperimentSettings, train


def _check_records(config: Any) -> None:
    """Whether there are records to train and evaluate on; other machines may have other folders."""
    from trajvit_jax.data.held_out import open_held_out
    from trajvit_jax.data.index import check_index, read_index
    from trajvit_jax.data.source import open_records
    from trajvit_jax.evals import during_training
    from trajvit_jax.experiment import ExperimentSettings

    settings = to_settings(ExperimentSettings, config)
    data, elsewhere = settings.data, []
    for stream in data.train_streams(settings.model.frames):
        for own in stream.sources:
            if Path(own.path).is_dir():
                source = open_records(own.path, own.split)
                check_index(source, read_index(source), stream.frames)
    if Path(data.evaluation_folder).is_dir():
        held_out = open_held_out(data)
        check_index(held_out, read_index(held_out), settings.model.frames)
    for one in during_training.plan(settings.protocols):
        if missing := during_training.missing(one):
            elsewhere += missing
        else:
            during_training.check([one], settings.model)
    named = [source.path for source in data.train_sources]
    named += [data.evaluation_folder, settings.initial, data.vocabulary]
    elsewhere += [path for path in named if path and not Path(path).exists()]
    tell_checked(elsewhere)


def tell_checked(elsewhere: Iterable[str | Path]) -> None:
    """Says that what is here was checked, and what is not here."""
    for path in dict.fromkeys(map(str, elsewhere)):
        print(f"not checked: {path} is not on this machine", file=sys.stderr)
    print("checked: nothing is wrong with the config and what is here", file=sys.stderr)


def _reader(program: Program) -> Callable[[list[str]], list[str]]:
    """Reads the flags; under --only_check_args, where app.run ends next, checks the config."""
    read = reader(_CONFIG, program.doc)

    def checked(argv: list[str]) -> list[str]:
        rest = read(argv)
        if flags.FLAGS["only_check_args"].value and program.check:
            try:
                program.check(_CONFIG.value)
            except (ValueError, OSError) as error:
                _fail(error, exit_codes.code_of(error), alone=True)
        return rest

    return checked


def run(program: Program) -> None:
    """Entry point of a training command."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flags_as_required(["config", "workdir"])
    interrupts.install("stopping; a running step is finished and saved first", preemption=True)
    app.run(functools.partial(main, program=program), flags_parser=_reader(program))


if __name__ == "__main__":
    run(Program(__doc__, _video_text, _check_records))
