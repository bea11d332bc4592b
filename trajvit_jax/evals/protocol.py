"""What a protocol is, and what it is given: by its command, or by a run that is evaluated."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from jax.sharding import Mesh

from trajvit_jax.data.absent import absent_records
from trajvit_jax.data.clips import Clips
from trajvit_jax.data.index import find_place, read_index
from trajvit_jax.data.source import Record, RecordSource, open_records
from trajvit_jax.evals.embedding import Embedder, do_nothing
from trajvit_jax.evals.loaded import Loaded, with_frames
from trajvit_jax.evals.results import Measured
from trajvit_jax.evals.settings import CommonSettings, ScalingSettings
from trajvit_jax.models.settings import ModelSettings

S = TypeVar("S", bound=CommonSettings)


@dataclasses.dataclass(frozen=True, eq=False)
class Job(Generic[S]):
    """What a protocol measures.

    Attributes:
      settings: of the protocol.
      loaded: the model, for the frames that are asked for.
      folder: of the records.
      mesh: of the devices; None = one device.
      between: called between batches; what it raises ends the evaluation.
    """

    settings: S
    loaded: Loaded
    folder: str
    mesh: Mesh | None
    between: Callable[[], None] = do_nothing

    @functools.cached_property
    def embedder(self) -> Embedder:
        """The model on the devices."""
        return Embedder(
            self.loaded.model, batch=self.settings.batch, mesh=self.mesh, between=self.between
        )

    @property
    def frames(self) -> int:
        """That the model reads."""
        return self.loaded.model.settings.frames

    def about(self, split: str) -> dict[str, Any]:
        """What features of a split's records depend on, as JSON."""
        source = open_records(self.folder, split)
        return {
            "checkpoint": self.loaded.checkpoint,
            "records": source.fingerprint if isinstance(source, RecordSource) else "",
            "split": split,
            "frames": self.frames,
        }

    def absent(self, split: str) -> int:
        """How many videos of a split became no record."""
        return len(absent_records(open_records(self.folder, split)))

    def open(self, split: str, *, views: int = 1) -> Sequence[Record]:
        """Records of a split as the model reads them.

        Raises:
          ValueError: records with too few frames, one of which the message names.
        """
        return as_read(open_records(self.folder, split), self.frames, views=views)


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol(Generic[S]):
    """An evaluation.

    Attributes:
      name: of its module.
      about: what `--help` says.
      settings: their class, whose docstring explains each.
      measure: does it.
      wants: of a record, by the settings; raises UnusableRecord where the record has it not, and
        ValueError where no record should be like it.
      check: what settings and a model's say beforehand: files that they name, heads that cannot be;
        raises ValueError and OSError.
    """

    name: str
    about: str
    settings: type[S]
    measure: Callable[[Job[S]], Measured]
    wants: Callable[[S], Callable[[Record], Any]]
    check: Callable[[S, ModelSettings], None] = lambda settings, model: None


def as_read(
    source: Sequence[Record], frames: int, *, views: int = 1, option: str = "--frames"
) -> Sequence[Record]:
    """Records as a model reads them that takes so many frames of each view.

    Args:
      source: the records.
      frames: of each view.
      views: of a video.
      option: what sets the number of frames.

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
                f"lower {option}{' or --views' if views > 1 else ''}, or extract again with more "
                f"(--config=configs/tokenization/classical.py:frames={views * frames})"
            )
    if views == 1 and set(index.frames) == {frames}:
        return source
    return Clips(source, frames, views)


def reads_frames(loaded: Loaded, frames: int) -> Loaded:
    """The same model, to be given so many frames of a video; 0 = as many as it is given now.

    Raises:
      ValueError: a number of frames that the model cannot read.
    """
    if frames in (0, loaded.model.settings.frames):
        return loaded
    return dataclasses.replace(loaded, model=with_frames(loaded.model, frames))


def folders_of(records: str, settings: CommonSettings) -> dict[int, str]:
    """The folder of records for each number of frames that is measured; 0 = the settings' own.

    What a name has for {frames} is the number. The fewest frames come first.
    """
    if not isinstance(settings, ScalingSettings):
        return {0: records}
    return {own: records.replace("{frames}", str(own)) for own in sorted(settings.frame_counts())}


def name_of_data(records: str, settings: CommonSettings) -> str:
    """What a result calls the data that it is of."""
    return settings.dataset or Path(records).resolve().name
