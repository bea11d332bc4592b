"""Zero-shot video-text retrieval (paper §4.1): rank captions for videos and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8
from tqdm import tqdm

from trajvit_jax.data.evaluation import eval_videos
from trajvit_jax.data.samples import same_text
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.metrics import retrieval_metrics
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere
from trajvit_jax.sharding import batch_parts, put_whole

_LOG = logging.getLogger(__name__)


@nnx.jit
def _embed_video(
    model: VideoTextModel,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b t y x"],
    rows: Rows | None,
) -> Float[Array, "b p"]:
    return everywhere(model.embed_video(video, labels, rows))


@nnx.jit
def _embed_text(
    model: VideoTextModel, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
) -> Float[Array, "b p"]:
    return everywhere(model.embed_text(ids, mask))


class Comparison(NamedTuple):
    """Every video against every text.

    Attributes:
      similarity: of their embeddings, a cosine.
      positives: whether the text is a caption of the video.
      texts: all captions once, in the form in which they are compared.
      bad: records that could not be used, and are no part of this.
    """

    similarity: Float[np.ndarray, "v l"]
    positives: Bool[np.ndarray, "v l"]
    texts: tuple[str, ...]
    bad: tuple[BadRecord, ...] = ()


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    batch: int = 64,
    mesh: Mesh | None = None,
    between: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): R@1/5/10 in percent and median rank both ways, and the counts.

    Args and errors are those of `compare`.
    """
    compared = compare(model, source, text, batch=batch, mesh=mesh, between=between)
    yield from retrieval_metrics(compared.similarity, compared.positives).items()
    yield "videos", float(len(compared.similarity))
    yield "texts", float(len(compared.texts))
    yield "bad_records", float(len(compared.bad))


def compare(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    batch: int = 64,
    mesh: Mesh | None = None,
    between: Callable[[], None] = lambda: None,
) -> Comparison:
    """Embeds all videos and their captions.

    Every caption of a video is a positive of it, and equal captions are one text. Records that
    cannot be used are left out, and named in a warning.

    Args:
      model: what embeds.
      source: held-out records.
      text: of the model.
      batch: videos, or captions, embedded at once; with `mesh` rounded up to its parts.
      mesh: of the devices that share the work; every process reads all records. None = one
        device.
      between: called after each batch, at the same places by all processes; what it raises ends
        the evaluation.

    Raises:
      ValueError: embeddings that are not finite, or more than a tenth of the records damaged or
        without a caption.
      OSError: the storage cannot be read.
    """
    devices = 1 if mesh is None else batch_parts(mesh)
    batch = -(-batch // devices) * devices
    if jax.default_backend() == "cpu" and devices == 1:
        model = model.for_cpu()

    def put(tree: Any) -> Any:
        return jax.tree.map(jnp.asarray if mesh is None else lambda x: put_whole(x, mesh), tree)

    embeddings, texts = [], {}
    pairs: list[tuple[int, int]] = []
    bad: list[BadRecord] = []
    # Videos share rows where their numbers of tokens differ; a device has rows of its own.
    group = batch // devices if model.settings.name == "trajvit" else None
    read = eval_videos(source, model.settings, batch, group=group)
    batches = -(-len(source) // batch)
    bar = tqdm(read, desc="embed videos", total=batches, unit="batch", leave=False, mininterval=1)
    for videos in bar:
        embedded = _embed_video(model, *put((videos.video, videos.labels, videos.rows)))
        each = zip(np.asarray(embedded), videos.captions, videos.bad, strict=False)
        for embedding, captions, problem in each:
            if problem is not None:
                bad.append(problem)
                continue
            own = (texts.setdefault(same_text(caption), len(texts)) for caption in captions)
            pairs += [(len(embeddings), number) for number in own]
            embeddings.append(embedding)
        between()
    _tell(bad, len(source))
    embedded_texts = _embed_captions(model, list(texts), text, batch, put, between)
    positives = np.zeros((len(embeddings), len(texts)), bool)
    positives[tuple(np.array(pairs, np.int64).reshape(-1, 2).T)] = True
    similarity = np.stack(embeddings) @ embedded_texts.T
    return Comparison(similarity, positives, tuple(texts), tuple(bad))


def _tell(bad: Sequence[BadRecord], count: int) -> None:
    """Raises ValueError where they are more than a tenth."""
    if not bad:
        return
    first = "; ".join(f"{one.file}: record {one.id!r}: {one.reason}" for one in bad[:3])
    first += "; .." if len(bad) > 3 else ""
    message = f"{len(bad)} of {count} records cannot be evaluated ({first})"
    if len(bad) > count / 10:
        raise ValueError(f"{message}; extract them again")
    _LOG.warning("%s: they are left out", message)


def _embed_captions(
    model: VideoTextModel,
    captions: Sequence[str],
    text: WordPiece,
    batch: int,
    put: Callable[[Any], Any],
    between: Callable[[], None],
) -> Float[np.ndarray, "n p"]:
    parts = []
    for start in range(0, len(captions), batch):
        chunk = list(captions[start : start + batch])
        tokens = text(chunk + chunk[-1:] * (batch - len(chunk)))
        embedded = _embed_text(model, put(tokens.ids), put(tokens.mask))
        parts.append(np.asarray(embedded)[: len(chunk)])
        between()
    return np.concatenate(parts)
