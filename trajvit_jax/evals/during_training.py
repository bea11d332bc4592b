"""Protocols that a run is evaluated by, besides its own retrieval: one line each in its config.

A line is what stands behind `python -m trajvit_jax.evals.` in the protocol's own command, less the
workdir:

  config.protocols = (
      "classification --records=data/kinetics400 --config=configs/eval/kinetics400.py:zero_shot "
      "--classes=label_map_k400.txt",
      "probing --records=data/ucf101 --views=1 --epochs=5",
  )

Results are called PROTOCOL-DATASET/METRIC, as `classification-kinetics400/top1`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jax.sharding import Mesh

from tokenization.arguments import ArgumentParser
from trajvit_jax.config import nearest
from trajvit_jax.data.source import Record, RecordSource, open_records
from trajvit_jax.data.unusable import UnusableRecord, read_record
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import (
    classification,
    detection,
    probing,
    retrieval,
    scaling,
    temporal_clips,
)
from trajvit_jax.evals.boxes import hash_of_file
from trajvit_jax.evals.loaded import Loaded, check_frames
from trajvit_jax.evals.options import add_settings, settings_of
from trajvit_jax.evals.prompts import TEMPLATES
from trajvit_jax.evals.protocol import (
    Job,
    Protocol,
    as_read,
    folders_of,
    name_of_data,
    reads_frames,
)
from trajvit_jax.evals.settings import CommonSettings
from trajvit_jax.failures import ComesAgain
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel

PROTOCOLS: Mapping[str, Protocol[Any]] = {
    module.PROTOCOL.name: module.PROTOCOL
    for module in (retrieval, classification, probing, detection, temporal_clips, scaling)
}

_NAMED_WRONG = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_TRIED = 10  # records of all, evenly spread, before a run begins


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """A line that was read.

    Attributes:
      line: as the config has it.
      name: of its results.
      protocol: that it names.
      settings: of the protocol.
      records: their folder.
    """

    line: str
    name: str
    protocol: Protocol[Any]
    settings: CommonSettings
    records: str


class _LineParser(ArgumentParser):
    """The options of a line, of which what is wrong is an error of the config."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def plan(lines: Sequence[str]) -> tuple[Planned, ...]:
    """Reads the lines.

    Raises:
      ValueError: a line that is none, named; or two whose results would have one name.
    """
    found: dict[str, Planned] = {}
    for line in lines:
        with _named(line):
            own = _planned(line)
        if own.name in found:
            raise ValueError(
                f"config.protocols: results of two lines would be called {own.name!r}; tell them "
                "apart by --dataset=NAME"
            )
        found[own.name] = own
    return tuple(found.values())


@contextlib.contextmanager
def _named(line: str) -> Iterator[None]:
    """Within this, what is wrong is told with the line."""
    try:
        yield
    except (ValueError, *_NAMED_WRONG) as error:
        raise ValueError(f"config.protocols: {line!r}: {error}") from error


def _planned(line: str) -> Planned:
    name, *options = shlex.split(line) or [""]
    if name not in PROTOCOLS:
        raise ValueError(f"{name!r} is no protocol: {nearest(name, PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    parser = _LineParser(prog=name, add_help=False)
    parser.add_argument("--records", required=True)
    parser.add_argument("--config")
    add_settings(parser, protocol.settings)
    given = parser.parse_args(options)
    settings = settings_of(name, protocol.settings, given)
    if getattr(settings, "features", ""):
        raise ValueError(
            "--features keeps tokens of one state of the model, and a run has another one at each "
            "evaluation; leave it out"
        )
    called = f"{name}-{name_of_data(given.records, settings)}"
    return Planned(line, called, protocol, settings, given.records)


def check(planned: Sequence[Planned], model: ModelSettings) -> None:
    """Tells, before anything is trained, what can be known of an evaluation that will fail.

    Args:
      planned: the protocols.
      model: of the run.

    Raises:
      ValueError: files that are not there or hold something else, no records, records with fewer
        frames than are to be read or without what the protocol reads, or a number of frames or
        heads that the model cannot have.
      OSError: storage that cannot be read.
    """
    for one in planned:
        with _named(one.line):
            _check(one, model)


def _check(one: Planned, model: ModelSettings) -> None:
    own = one.settings
    one.protocol.check(own, model)
    wants, views = one.protocol.wants(own), getattr(own, "views", 1)
    for at, source in _sources(one):
        frames = at or own.frames or model.frames
        check_frames(dataclasses.replace(model, frames=frames))
        as_read(source, frames, views=views, option="--at" if at else "--frames")
        _try(source, wants)


def _sources(one: Planned) -> Iterator[tuple[int, RecordSource]]:
    """All records that a protocol reads, with the number of frames, as `folders_of` has it."""
    own = one.settings
    splits = dict.fromkeys((own.split, getattr(own, "train_split", own.split)))
    for at, folder in folders_of(one.records, own).items():
        for split in splits:
            yield at, open_records(folder, split)


def _try(source: RecordSource, wants: Callable[[Record], Any]) -> None:
    """Reads some records; raises ValueError if a protocol can use none of them."""
    unusable: list[UnusableRecord] = []
    tried = min(len(source), _TRIED)
    for number in np.linspace(0, len(source) - 1, tried).astype(int).tolist():
        try:
            wants(read_record(source, number))
        except UnusableRecord as error:
            unusable.append(error)
    if tried and len(unusable) == tried:
        raise ValueError(f"none of {tried} records that were tried can be used: {unusable[0]}")


def missing(one: Planned) -> list[str]:
    """Folders and files of a protocol that are not on this machine."""
    paths = [*folders_of(one.records, one.settings).values(), *_files(one.settings)]
    return [path for path in paths if not Path(path).exists()]


def _files(settings: CommonSettings) -> list[str]:
    named = [getattr(settings, name, "") for name in ("classes", "boxes", "prompts")]
    return [name for name in named if name and name not in TEMPLATES]


def facts(planned: Sequence[Planned]) -> dict[str, Any]:
    """What decides the results of each, as JSON: settings, and hashes of records and files."""
    return {
        one.name: dataclasses.asdict(one.settings)
        | {
            "records": [source.fingerprint for _, source in _sources(one)],
            "files": {path: hash_of_file(path) for path in _files(one.settings)},
        }
        for one in planned
    }


def evaluate(
    planned: Sequence[Planned],
    model: VideoTextModel,
    text: WordPiece,
    workdir: Path,
    *,
    mesh: Mesh,
    between: Callable[[], None],
) -> dict[str, float]:
    """What the protocols find, NaN where there is nothing to tell.

    Args:
      planned: the protocols.
      model: in the form in which it is evaluated.
      text: its vocabulary.
      workdir: of the run.
      mesh: of the devices that share the work.
      between: called between batches, at the same places by all processes; what it raises ends
        the evaluation.

    Raises:
      ComesAgain: more than a tenth of the records cannot be used, or labels or boxes are others
        than the protocol's files have; the message names the line.
      ValueError: as the protocol says.
      OSError: storage that cannot be read.
      FloatingPointError: embeddings or losses that are not finite.
    """
    loaded, found = Loaded(model, text, str(workdir)), {}
    for one in planned:
        try:
            own = reads_frames(loaded, one.settings.frames)
            measured = one.protocol.measure(Job(one.settings, own, one.records, mesh, between))
        except ComesAgain as error:
            raise ComesAgain(f"config.protocols: {one.line!r}: {error}") from error
        found |= {f"{one.name}/{name}": value for name, value in measured.values()}
    return found
