"""What the commands of all protocols share: options, the model, the records, the result."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import os
import re
import shlex
import sys
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import Mesh

from tokenization import interrupts
from trajvit_jax import config as configs
from trajvit_jax.config import require_positive, to_settings
from trajvit_jax.data.absent import absent_records
from trajvit_jax.data.clips import Clips
from trajvit_jax.data.index import find_place, read_index
from trajvit_jax.data.source import Record, RecordSource, open_records
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.loaded import Loaded, load, with_frames
from trajvit_jax.evals.results import CONFIDENCE, Measured, Result, with_intervals
from trajvit_jax.pod import cluster
from trajvit_jax.run.provenance import commit, versions
from trajvit_jax.sharding import MeshSettings, make_mesh

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CommonSettings:
    """What every protocol can be told.

    Attributes:
      dataset: name of the data in the paper's tables; '' = the name of the records' folder.
      split: of the records to evaluate on.
      frames: that the model reads of a video; 0 = as many as it was trained with. Records with
        more give some of theirs.
      batch: videos at once.
      draws: of the bootstrap that gives intervals; 0 = none.
      seed: of what is drawn.
    """

    dataset: str = ""
    split: str = "test"
    frames: int = 0
    batch: int = 64
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "batch")
        for name in ("frames", "draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}={getattr(self, name)} must be at least 0")


S = TypeVar("S", bound=CommonSettings)


@dataclasses.dataclass(frozen=True, eq=False)
class Job(Generic[S]):
    """What a protocol is given by its command.

    Attributes:
      settings: of the protocol.
      loaded: the model, for the frames that are asked for.
      folder: of the records.
      mesh: of the devices; None = one device.
    """

    settings: S
    loaded: Loaded
    folder: str
    mesh: Mesh | None

    @functools.cached_property
    def embedder(self) -> Embedder:
        """The model on the devices."""
        return Embedder(self.loaded.model, batch=self.settings.batch, mesh=self.mesh)

    @property
    def frames(self) -> int:
        """That the model reads."""
        return self.loaded.model.settings.frames

    def open(self, split: str, *, views: int = 1) -> Sequence[Record]:
        """Records of a split as the model reads them.

        Raises:
          ValueError: records with too few frames, one of which the message names.
        """
        return as_read(open_records(self.folder, split), self.frames, views=views)


def as_read(source: Sequence[Record], frames: int, *, views: int = 1) -> Sequence[Record]:
    """Records as a model reads them that takes so many frames of each view.

    Raises:
      ValueError: a record with too few frames.
    """
    index = read_index(source)
    for stored, number in index.frames.items():
        if stored // views < frames:
            place = find_place(source, index, number)
            needs = f"{views} views of {frames} frames" if views > 1 else f"{frames} frames"
            raise ValueError(
                f"{place.file}: record {place.id!r} has {stored} frames, {needs} are to be read; "
                "lower --frames, or extract again with more "
                f"(--config=configs/tokenization/classical.py:frames={views * frames})"
            )
    if views == 1 and set(index.frames) == {frames}:
        return source
    return Clips(source, frames, views)


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol(Generic[S]):
    """An evaluation as a command.

    Attributes:
      name: of the module.
      about: what `--help` says.
      settings: their class, whose docstring explains each.
      measure: does it.
    """

    name: str
    about: str
    settings: type[S]
    measure: Callable[[Job[S]], Measured]


def parser_of(protocol: Protocol[Any]) -> argparse.ArgumentParser:
    """The command's options: those of all commands, and one for each setting."""
    parser = argparse.ArgumentParser(
        prog=f"python -m trajvit_jax.evals.{protocol.name}",
        description=protocol.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workdir",
        required=True,
        help="a run of trajvit_jax.main, or a folder of trajvit_jax.convert",
    )
    parser.add_argument("--records", required=True, help="folder of tokenization.extract")
    parser.add_argument(
        "--config",
        help="of configs/eval: how the paper evaluates on a dataset; options change it",
    )
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    parser.add_argument("--vocabulary", help="vocab.txt, where the workdir has none")
    parser.add_argument(
        "--missing", help="MANIFEST.missing.txt: videos that were never there, to be counted"
    )
    parser.add_argument(
        "--json",
        help="file of the result; WORKDIR/evals/PROTOCOL-DATASET-SPLIT-FRAMES-STEP-HASH.json by "
        "default",
    )
    group = parser.add_argument_group("settings")
    described = _described(protocol.settings)
    hints = typing.get_type_hints(protocol.settings)
    for field in dataclasses.fields(protocol.settings):
        flags = dict.fromkeys(f"--{name}" for name in (field.name.replace("_", "-"), field.name))
        help_text = f"{described[field.name]} ({field.default!r})".replace("%", "%%")
        if hints[field.name] is bool:
            group.add_argument(
                *flags,
                dest=field.name,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=help_text,
            )
            continue
        group.add_argument(
            *flags,
            dest=field.name,
            type=hints[field.name],
            metavar=hints[field.name].__name__.upper(),
            help=help_text,
        )
    return parser


def _described(kind: type) -> dict[str, str]:
    """What docstrings say of the fields of a class and of those that it is made from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        name = ""
        for line in inspect.cleandoc(one.__doc__ or "").splitlines():
            field = re.match(r"  (\w+): (.+)", line)
            if field:
                name, found[field[1]] = field[1], field[2]
            elif name and line.startswith("    "):
                found[name] += f" {line.strip()}"
            else:
                name = ""
    return {name: text.removesuffix(".") for name, text in found.items()}


def settings_of(protocol: Protocol[S], options: argparse.Namespace) -> S:
    """What the config says, and what the options change of it.

    Raises:
      ValueError: a config of another protocol, or a setting that does not exist.
    """
    values: dict[str, Any] = {}
    if options.config:
        config = dict(configs.load(options.config))
        own = config.pop("protocol", None)
        if own != protocol.name:
            what = f"is for python -m trajvit_jax.evals.{own}" if own else "names no protocol"
            raise ValueError(f"{options.config} {what}, not for {protocol.name}; see configs/eval")
        values |= config
    fields = [field.name for field in dataclasses.fields(protocol.settings)]
    given = {name: getattr(options, name) for name in fields}
    values |= {name: value for name, value in given.items() if value is not None}
    return to_settings(protocol.settings, values)


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
    source = open_records(_first_folder(records, settings), settings.split)
    known = set() if missing is None else _lines(missing)
    with on_all_devices() as mesh:
        loaded = load(workdir, step=step, vocabulary=vocabulary, mesh=mesh)
        if settings.frames not in (0, loaded.model.settings.frames):
            changed = with_frames(loaded.model, settings.frames)
            loaded = dataclasses.replace(loaded, model=changed)
        _LOG.info("%s of %s: %d records", loaded.model.settings.name, workdir, len(source))
        measured = protocol.measure(Job(settings, loaded, records, mesh))
    absent = absent_records(source, known)
    bad = {one.id: dataclasses.asdict(one) for one in measured.bad}
    gone = [*bad.values(), *absent]
    count = len(source) - len(bad)
    stored = read_index(source).frames
    draws, seed = settings.draws, settings.seed
    return Result(
        protocol=protocol.name,
        dataset=settings.dataset or Path(records).resolve().name,
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
        train_records=_trained_on(loaded),
        records=records,
        fingerprint=source.fingerprint if isinstance(source, RecordSource) else "",
        settings=dataclasses.asdict(settings),
        notes=dict(measured.notes),
        interval=f"{CONFIDENCE:.0%} bootstrap, {draws} draws" if draws else "",
        command=command,
        commit=commit(),
        versions=versions("jax", "flax", "numpy", "opencv-python-headless"),
        devices=f"{jax.device_count()} {jax.devices()[0].device_kind}",
        seconds=round(time.perf_counter() - started, 1),
    )


def _first_folder(records: str, settings: CommonSettings) -> str:
    """Of folders that {frames} stands for, the one of the fewest."""
    counts = getattr(settings, "frame_counts", lambda: [0])()
    return records.replace("{frames}", str(min(counts)))


def _trained_on(loaded: Loaded) -> list[str]:
    if loaded.settings is None:
        return []
    return [source.path for source in loaded.settings.data.train_sources]


def _training(loaded: Loaded) -> str:
    if loaded.settings is None:
        return loaded.checkpoint
    same = dataclasses.replace(loaded.settings, seed=0)
    return _hash(dataclasses.asdict(same))


def _hash(values: Any) -> str:
    noted = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(noted.encode()).hexdigest()[:8]


def _lines(file: str) -> set[str]:
    return {line.strip() for line in Path(file).read_text("utf-8").splitlines() if line.strip()}


def main(protocol: Protocol[Any], arguments: Sequence[str] | None = None) -> int:
    """A protocol's command; returns its exit code."""
    options = parser_of(protocol).parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of reading only
    own = None
    try:
        settings = settings_of(protocol, options)
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
        message = f"error: {error}"
        if own is not None:  # on the way out of the interpreter JAX would wait for the others
            interrupts.leave(message, 2)
        print(message, file=sys.stderr)
        return 2
    cluster.stop(own)
    return 0


def default_path(workdir: str, result: Result) -> Path:
    """Where a result goes if nobody says."""
    parts = [result.protocol, result.dataset, result.split]
    parts.append(f"{result.frames}f")
    if result.step is not None:
        parts.append(f"step{result.step}")
    parts.append(_hash(result.settings))  # other settings, another file
    name = re.sub(r"[^\w.-]+", "_", "-".join(parts))
    return Path(workdir) / "evals" / f"{name}.json"


def _command(protocol: Protocol[Any], arguments: Sequence[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", f"trajvit_jax.evals.{protocol.name}", *given])


def run(protocol: Protocol[Any]) -> None:
    """Entry point of `python -m trajvit_jax.evals.NAME`."""
    interrupts.install("stopping; nothing is written")
    sys.exit(main(protocol))
