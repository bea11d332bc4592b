"""Zero-shot video-text retrieval (paper §4.1): rank captions for videos and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8
from tqdm import tqdm

from trajvit_jax.data.pipeline import eval_videos
from trajvit_jax.data.samples import same_text
from trajvit_jax.data.source import Record
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.metrics import retrieval_metrics
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere
from trajvit_jax.sharding import batch_parts, put_whole


@nnx.jit
def _embed_video(
    model: VideoTextModel, video: UInt8[Array, "b t h w 3"], labels: Int[Array, "b t y x"]
) -> Float[Array, "b p"]:
    return everywhere(model.embed_video(video, labels))


@nnx.jit
def _embed_text(
    model: VideoTextModel, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
) -> Float[Array, "b p"]:
    return everywhere(model.embed_text(ids, mask))


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    batch: int = 64,
    mesh: Mesh | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): R@1/5/10 in percent and median rank both ways, and the counts.

    Every caption of a video is a positive of it, and equal captions are one text.

    Args:
      model: what embeds.
      source: held-out records.
      text: of the model.
      batch: videos, or captions, embedded at once; with `mesh` rounded up to its parts.
      mesh: of the devices that share the work; every process reads all records. None = one
        device.

    Raises:
      ValueError: embeddings that are not finite, or a video without a caption.
    """
    devices = 1 if mesh is None else batch_parts(mesh)
    batch = -(-batch // devices) * devices
    if jax.default_backend() == "cpu" and devices == 1:
        model = model.for_cpu()

    def put(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x) if mesh is None else put_whole(x, mesh)

    videos, texts = [], {}
    pairs: list[tuple[int, int]] = []
    groups = eval_videos(source, model.settings, batch)
    batches = -(-len(source) // batch)
    bar = tqdm(groups, desc="embed videos", total=batches, unit="batch", leave=False, mininterval=1)
    for group in bar:
        embedded = _embed_video(model, put(group.video), put(group.labels))
        for row, captions in zip(np.asarray(embedded), group.captions, strict=False):
            if not captions:
                raise ValueError(
                    f"record {source[len(videos)].id!r} has no caption to retrieve; add "
                    "'captions' to its manifest line and extract again"
                )
            pairs += [(len(videos), texts.setdefault(same_text(c), len(texts))) for c in captions]
            videos.append(row)
    embedded_texts = _embed_captions(model, list(texts), text, batch, put)
    positives = np.zeros((len(videos), len(texts)), bool)
    positives[tuple(np.array(pairs, np.int64).reshape(-1, 2).T)] = True
    yield from retrieval_metrics(np.stack(videos) @ embedded_texts.T, positives).items()
    yield "videos", float(len(videos))
    yield "texts", float(len(texts))


def _embed_captions(
    model: VideoTextModel,
    captions: Sequence[str],
    text: WordPiece,
    batch: int,
    put: Callable[[np.ndarray], jax.Array],
) -> Float[np.ndarray, "n p"]:
    parts = []
    for start in range(0, len(captions), batch):
        chunk = list(captions[start : start + batch])
        tokens = text(chunk + chunk[-1:] * (batch - len(chunk)))
        embedded = _embed_text(model, put(tokens.ids), put(tokens.mask))
        parts.append(np.asarray(embedded)[: len(chunk)])
    return np.concatenate(parts)
