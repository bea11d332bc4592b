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

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jax.sharding import Mesh

from tokenization.arguments import ArgumentParser
from trajvit_jax.config import nearest
from trajvit_jax.data.source import open_records
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import (
    classification,
    detection,
    probing,
    retrieval,
    scaling,
    temporal_clips,
)
from trajvit_jax.evals.loaded import Loaded, check_frames
from trajvit_jax.evals.options import add_settings, settings_of
from trajvit_jax.evals.protocol import (
    Job,
    Protocol,
    as_read,
    folders_of,
    name_of_data,
    reads_frames,
)
from trajvit_jax.evals.settings import CommonSettings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel

PROTOCOLS: Mapping[str, Protocol[Any]] = {
    module.PROTOCOL.name: module.PROTOCOL
    for module in (retrieval, classification, probing, detection, temporal_clips, scaling)
}


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """A line that was read.

    Attributes:
      name: of its results.
      protocol: that it names.
      settings: of the protocol.
      records: their folder.
    """

    name: str
    protocol: Protocol[Any]
    settings: CommonSettings
    records: str


class _LineParser(ArgumentParser):
    """The options of a line, of which what is wrong is an error of the config."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def plan(lines: Sequence[str]) -> tuple[Planned, ...]:
    """Reads the lines, and the files that they name, records aside.

    Raises:
      ValueError: a line that is none, or names a file that is not there or holds something else;
        or two whose results would have one name.
      OSError: a file that cannot be read.
    """
    found: dict[str, Planned] = {}
    for line in lines:
        try:
            own = _planned(line)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"config.protocols: {line!r}: {error}") from error
        if own.name in found:
            raise ValueError(
                f"config.protocols: results of two lines would be called {own.name!r}; tell them "
                "apart by --dataset=NAME"
            )
        found[own.name] = own
    return tuple(found.values())


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
    protocol.check(settings)
    called = f"{name}-{name_of_data(given.records, settings)}"
    return Planned(called, protocol, settings, given.records)


def fingerprints(planned: Sequence[Planned], model: ModelSettings) -> dict[str, list[str]]:
    """Of the records of each, by its name; all that a model cannot read is told.

    Raises:
      ValueError: records with fewer frames than are to be read, or a number of frames that the
        model cannot read.
      RecordsError: there are no records.
    """
    found: dict[str, list[str]] = {}
    for one in planned:
        own, found[one.name] = one.settings, []
        splits = dict.fromkeys((own.split, getattr(own, "train_split", own.split)))
        views = getattr(own, "views", 1)
        for at, folder in folders_of(one.records, own).items():
            frames = at or own.frames or model.frames
            check_frames(dataclasses.replace(model, frames=frames))
            for split in splits:
                source = open_records(folder, split)
                as_read(source, frames, views=views)
                found[one.name].append(source.fingerprint)
    return found


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
      ValueError: more than a tenth of the records cannot be used, or as the protocol says.
      OSError: storage that cannot be read.
      FloatingPointError: embeddings or losses that are not finite.
    """
    loaded, found = Loaded(model, text, str(workdir)), {}
    for one in planned:
        own = reads_frames(loaded, one.settings.frames)
        measured = one.protocol.measure(Job(one.settings, own, one.records, mesh, between))
        found |= {f"{one.name}/{name}": value for name, value in measured.values()}
    return found
