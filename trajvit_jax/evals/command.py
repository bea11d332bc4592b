"""What the commands of all protocols share: options, the model, the records, the result."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from tokenization import exit_codes, interrupts
from tokenization.missing import read as read_missing
from trajvit_jax.confidence import LEVEL
from trajvit_jax.convert.stored import kind_of
from trajvit_jax.data.absent import absent_records
from trajvit_jax.data.index import read_index, record_ids
from trajvit_jax.data.source import Record, RecordSource, open_records
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.evals.cut import Cuts, made_by
from trajvit_jax.evals.loaded import Loaded, load
from trajvit_jax.evals.options import parser_of, settings_of
from trajvit_jax.evals.protocol import Job, Protocol, folders_of, name_of_data, reads_frames
from trajvit_jax.evals.results import Result, with_intervals
from trajvit_jax.evals.settings import CommonSettings
from trajvit_jax.evals.variant import ablation_of, size_of
from trajvit_jax.experiment import (
    MADE_BY,
    TOKENIZATION,
    ExperimentSettings,
    has_run,
    read_settings,
    recipe_of,
)
from trajvit_jax.pod import cluster
from trajvit_jax.run.provenance import commit, versions
from trajvit_jax.sharding import MeshSettings, make_mesh

_LOG = logging.getLogger(__name__)


S = TypeVar("S", bound=CommonSettings)


@contextlib.contextmanager
def on_all_devices() -> Iterator[Mesh | None]:
    """Within this the devices of all processes share the work; yields their mesh, if several."""
    if jax.device_count() == 1:
        yield None
        return
    mesh = make_mesh(MeshSettings())
    with jax.set_mesh(mesh):
        yield mesh


def evaluate(
    protocol: Protocol[S],
    settings: S,
    *,
    workdir: str,
    records: str,
    step: int | None = None,
    vocabulary: str | None = None,
    missing: str | None = None,
    command: str = "",
) -> Result:
    """Runs a protocol; every process gets the same result.

    Raises:
      FileNotFoundError, ValueError, OSError: as `load`, `open_records` and the protocol say.
    """
    started = time.perf_counter()
    folders = dict.fromkeys(folders_of(records, settings).values())
    sources = [open_records(folder, settings.split) for folder in folders]
    source, listed = sources[0], {} if missing is None else read_missing(missing)
    with on_all_devices() as mesh:
        loaded = load(workdir, step=step, vocabulary=vocabulary, mesh=mesh)
        loaded = reads_frames(loaded, settings.frames)
        protocol.check(settings, loaded.model.settings)
        _LOG.info("%s of %s: %d records", loaded.model.settings.name, workdir, len(source))
        trained = made_by(Path(loaded.source) / TOKENIZATION)
        cuts = Cuts()
        if loaded.model.settings.name == "trajvit":  # others read pixels alone
            cuts = Cuts.of([made_by(Path(folder) / MADE_BY) for folder in folders], trained)
        if cuts.otherwise:
            _LOG.warning("trajectories are cut otherwise than in training: %s", cuts.otherwise)
        measured = protocol.measure(Job(settings, loaded, records, mesh))
    count, gone = _counted(sources, measured.bad, listed)
    stored = read_index(source).frames
    draws, seed = settings.draws, settings.seed
    notes = dict(measured.notes)
    if cuts.otherwise:
        notes["cut otherwise than in training"] = cuts.otherwise
    return Result(
        protocol=protocol.name,
        dataset=name_of_data(records, settings),
        split=settings.split,
        metrics=with_intervals(measured, draws=draws, seed=seed),
        count=count,
        of=count + len(gone),
        missing=gone,
        frames=loaded.model.settings.frames,
        stored=next(iter(stored)) if len(stored) == 1 else 0,
        views=getattr(settings, "views", 1),
        seed=seed,
        model=loaded.model.settings.name,
        checkpoint=loaded.checkpoint,
        source=loaded.source,
        step=loaded.step,
        train_seed=loaded.seed,
        training=_training(loaded),
        train_records=trained_on(loaded),
        records=records,
        fingerprint=source.fingerprint if isinstance(source, RecordSource) else "",
        settings=dataclasses.asdict(settings),
        notes=notes,
        interval=f"{LEVEL:.0%} bootstrap, {draws} draws" if draws else "",
        command=command,
        commit=commit(),
        versions=versions("jax", "flax", "numpy", "opencv-python-headless"),
        devices=f"{jax.device_count()} {jax.devices()[0].device_kind}",
        seconds=round(time.perf_counter() - started, 1),
        size=size_of(loaded.model.settings),
        ablation=ablation_of(loaded.model.settings, trained),
        cut=cuts.read,
        train_cut=cuts.trained,
        samples={one.name: one.parts for one in measured.metrics if one.parts is not None},
    )


def _counted(
    sources: Sequence[Sequence[Record]], bad: Sequence[BadRecord], listed: Mapping[str, str]
) -> tuple[int, list[dict[str, str]]]:
    """How many records the numbers are of, and those that they should be of, too.

    Of several folders, those that are in all of them.
    """
    gone = {one.id: dataclasses.asdict(one) for one in bad}
    for source in sources:
        gone |= {one["id"]: one for one in absent_records(source, listed)}
    held = [set(record_ids(source)) for source in sources]
    shared = set.intersection(*held)
    for name in sorted(set.union(*held) - shared - gone.keys()):
        gone[name] = {"id": name, "file": "", "reason": "it is not among those of all --at"}
    return len(shared - gone.keys()), list(gone.values())


def trained_on(loaded: Loaded) -> list[str]:
    """Folders of the records that a model learned from, those of what it started from first.

    Of a start that is no run, or a run that is not there any more, its own folder: it learned from
    something, and what that was nobody knows.
    """
    return [] if loaded.settings is None else _trained_on(loaded.settings)


def _trained_on(settings: ExperimentSettings) -> list[str]:
    own = [source.path for source in settings.data.train_sources]
    if not settings.initial:
        return own
    initial = Path(settings.initial)
    if kind_of(initial) == "bert":
        return own  # the text side alone, which the released program starts from it, too
    if not has_run(initial):
        return [settings.initial, *own]
    # What it started from was trained, too: images before videos.
    return [*_trained_on(read_settings(initial)), *own]


def _training(loaded: Loaded) -> str:
    return loaded.checkpoint if loaded.settings is None else _hash(recipe_of(loaded.settings))


def _hash(values: Any) -> str:
    noted = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(noted.encode()).hexdigest()[:8]


def main(protocol: Protocol[Any], arguments: Sequence[str] | None = None) -> int:
    """A protocol's command; returns its exit code."""
    options = parser_of(protocol.name, protocol.about, protocol.settings).parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of reading only
    own = None
    try:
        settings = settings_of(protocol.name, protocol.settings, options)
        own = cluster.from_environment(os.environ)
        cluster.start(own)
        result = evaluate(
            protocol,
            settings,
            workdir=options.workdir,
            records=options.records,
            step=options.step,
            vocabulary=options.vocabulary,
            missing=options.missing,
            command=_command(protocol, arguments),
        )
        if jax.process_index() == 0:
            path = Path(options.json) if options.json else default_path(options.workdir, result)
            result.write(path)
            print(f"{result.markdown()}\n\nwrote {path}")
    except KeyboardInterrupt:
        interrupts.leave("interrupted; nothing was written")
    except (ValueError, OSError, FloatingPointError) as error:
        if own is not None:  # on the way out of the interpreter JAX would wait for the others
            interrupts.leave(f"error: {error}", exit_codes.code_of(error))
        return exit_codes.tell(error)
    cluster.stop(own)
    return 0


def default_path(workdir: str, result: Result) -> Path:
    """Where a result goes if nobody says."""
    parts = [result.protocol, result.dataset, result.split]
    parts.append(f"{result.frames}f")
    if result.step is not None:
        parts.append(f"step{result.step}")
    parts.append(_hash(result.decisive))  # other settings, another file
    name = re.sub(r"[^\w.-]+", "_", "-".join(parts))
    return Path(workdir) / "evals" / f"{name}.json"


def _command(protocol: Protocol[Any], arguments: Sequence[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", f"trajvit_jax.evals.{protocol.name}", *given])


def run(protocol: Protocol[Any]) -> None:
    """Entry point of `python -m trajvit_jax.evals.NAME`."""
    interrupts.install("stopping; nothing is written")
    sys.exit(main(protocol))
