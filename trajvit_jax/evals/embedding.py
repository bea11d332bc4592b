"""Records and captions through a model, on one device or many, in batches of one shape."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8
from tqdm import tqdm

from trajvit_jax.data.evaluation import EvalVideos, eval_videos
from trajvit_jax.data.samples import usable_captions
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.failures import ComesAgain
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere
from trajvit_jax.sharding import batch_parts, put_whole

_LOG = logging.getLogger(__name__)


def do_nothing() -> None:
    """What is done between batches where nobody asks for anything."""


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """Videos that were read.

    Attributes:
      vectors: unit vectors, in the order of the records, bad ones left out.
      kept: what was wanted of each record.
      bad: records that could not be used, and are no part of this.
    """

    vectors: Float32[np.ndarray, "v p"]
    kept: tuple[Any, ...]
    bad: tuple[BadRecord, ...]


@nnx.jit
def embed_video(
    model: VideoTextModel,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b t y x"],
    rows: Rows | None,
) -> Float[Array, "b p"]:
    """A unit vector of each video, whole on every device."""
    return everywhere(model.embed_video(video, labels, rows))


@nnx.jit
def _embed_text(
    model: VideoTextModel, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
) -> Float[Array, "b p"]:
    return everywhere(model.embed_text(ids, mask))


class Embedder:
    """A model that is not trained.

    With a mesh, all processes make the same calls; each reads all records, and has all results.

    Args:
      model: what embeds.
      batch: videos, or captions, at once; with `mesh` rounded up to its parts.
      mesh: of the devices that share the work; None = one device.
      between: called after each batch, at the same places by all processes; what it raises ends
        the evaluation.
    """

    def __init__(
        self,
        model: VideoTextModel,
        *,
        batch: int = 64,
        mesh: Mesh | None = None,
        between: Callable[[], None] = do_nothing,
    ):
        devices = 1 if mesh is None else batch_parts(mesh)
        self.batch = -(-batch // devices) * devices
        alone = jax.default_backend() == "cpu" and devices == 1
        model = model.lossless()
        self.model = model.for_cpu() if alone else model
        self.mesh, self.between, self._devices = mesh, between, devices

    def put(self, tree: Any) -> Any:
        """A batch's arrays, on the devices."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        mesh = self.mesh
        return jax.tree.map(lambda x: put_whole(x, mesh), tree)

    def batches(
        self,
        source: Sequence[Record],
        keep: Callable[[Record], Any] = usable_captions,
        *,
        name: str = "embed videos",
    ) -> Iterator[EvalVideos]:
        """Reads all records, with a progress bar; see `eval_videos`.

        Args:
          source: the records.
          keep: what is wanted of a record besides its frames.
          name: of the bar.

        Raises:
          ValueError: more than a tenth cannot be used: as soon as that is certain.
          OSError: the storage cannot be read.
        """
        settings = self.model.settings
        # Videos share rows where their numbers of tokens differ; a device has rows of its own.
        group = self.batch // self._devices if settings.name == "trajvit" else None
        read = eval_videos(source, settings, self.batch, keep=keep, group=group)
        total = -(-len(source) // self.batch)
        shown = jax.process_index() == 0
        bar = {"total": total, "unit": "batch", "leave": False, "mininterval": 1}
        bad: list[BadRecord] = []
        for videos in tqdm(read, desc=name, disable=not shown, **bar):
            bad += [one for one in videos.bad if one is not None]
            if len(bad) > len(source) / 10:
                raise ComesAgain(f"at least {_said(bad, len(source))}; extract them again")
            yield videos
            self.between()

    def videos(
        self, source: Sequence[Record], keep: Callable[[Record], Any] = usable_captions
    ) -> Embedded:
        """Embeds all records that can be used.

        Raises:
          ValueError, OSError: as `batches` says.
        """
        vectors: list[np.ndarray] = []
        kept: list[Any] = []
        bad: list[BadRecord] = []
        for videos in self.batches(source, keep):
            found = embed_video(self.model, *self.put((videos.video, videos.labels, videos.rows)))
            good = [number for number, one in enumerate(videos.bad) if one is None]
            vectors.append(np.asarray(found)[good])
            kept += [videos.kept[number] for number in good]
            bad += [one for one in videos.bad if one is not None]
        tell_bad(bad, len(source))
        return Embedded(np.concatenate(vectors), tuple(kept), tuple(bad))

    def texts(self, captions: Sequence[str], text: WordPiece) -> Float32[np.ndarray, "n p"]:
        """A unit vector of each caption.

        Raises:
          ValueError: there is none.
        """
        if not captions:
            raise ValueError("there is no caption to embed")
        parts = []
        starts = range(0, len(captions), self.batch)
        shown = jax.process_index() == 0
        for start in tqdm(
            starts, desc="embed captions", unit="batch", leave=False, delay=2, disable=not shown
        ):
            chunk = list(captions[start : start + self.batch])
            tokens = text(chunk + chunk[-1:] * (self.batch - len(chunk)))
            found = _embed_text(self.model, *self.put((tokens.ids, tokens.mask)))
            parts.append(np.asarray(found)[: len(chunk)])
            self.between()
        return np.concatenate(parts)


def tell_bad(bad: Sequence[BadRecord], count: int) -> None:
    """Names records that cannot be used in a warning."""
    if bad:
        _LOG.warning("%s: they are left out", _said(bad, count))


def _said(bad: Sequence[BadRecord], count: int) -> str:
    first = "; ".join(f"{one.file}: record {one.id!r}: {one.reason}" for one in bad[:3])
    first += "; .." if len(bad) > 3 else ""
    return f"{len(bad)} of {count} records cannot be evaluated ({first})"
