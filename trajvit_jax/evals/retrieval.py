r"""Zero-shot retrieval: captions find videos (or images), and videos captions (paper, section 4.1).

R@1, R@5 and R@10 in percent, and the median rank, both ways. Each caption of a video is a right
answer for it, equal captions are one query with several right videos, and of several right
answers the best-placed counts. Candidates that are equally similar share the middle of their
places, so that a model which tells nothing apart does not find everything.

  python -m trajvit_jax.evals.retrieval --workdir=runs/panda4m --records=data/msrvtt \
      --config=configs/eval/msrvtt.py
  python -m trajvit_jax.evals.retrieval --workdir=runs/mine --records=runs/records --captions=first

Images are videos of one frame: --frames=1, which models of tubelets of two frames cannot read.
Any model of videos, on all devices that JAX sees; on several hosts, start it in each as
launch/README.md says of training.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import RetrievalSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("retrieval", __doc__, RetrievalSettings)

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int64

from trajvit_jax.data.samples import same_text, usable_captions
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import command
from trajvit_jax.evals.embedding import Embedder, do_nothing
from trajvit_jax.evals.protocol import Job, Protocol
from trajvit_jax.evals.ranking import Ranks, rank_pairs
from trajvit_jax.evals.results import Measured, Metric
from trajvit_jax.metrics import hits_at
from trajvit_jax.models.video_text import VideoTextModel

RECALLS = (1, 5, 10)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
    """Videos, captions, and who belongs to whom.

    Attributes:
      videos: unit vectors.
      texts: unit vectors.
      pairs: (video, text), by their numbers.
      captions: all captions once, in the form in which they are compared.
      bad: records that could not be used, and are no part of this.
    """

    videos: Float[np.ndarray, "v p"]
    texts: Float[np.ndarray, "l p"]
    pairs: Int64[np.ndarray, "n 2"]
    captions: tuple[str, ...]
    bad: tuple[BadRecord, ...] = ()

    def ranks(self, *, dual_softmax: float = 0.0) -> Ranks:
        """Of all queries, both ways; see `rank_pairs`."""
        return rank_pairs(self.videos, self.texts, self.pairs, dual_softmax=dual_softmax)

    def compared(self) -> Comparison:
        """All similarities at once: for few videos."""
        similarity = self.videos.astype(np.float64) @ self.texts.astype(np.float64).T
        positives = np.zeros(similarity.shape, bool)
        positives[tuple(self.pairs.T)] = True
        return Comparison(similarity.astype(np.float32), positives, self.captions, self.bad)


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    captions: str = "all",
    batch: int = 64,
    mesh: Mesh | None = None,
    between: Callable[[], None] = do_nothing,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): R@1/5/10 in percent and median rank both ways, and the counts.

    Args and errors are those of `embed_pairs`.
    """
    embedder = Embedder(model, batch=batch, mesh=mesh, between=between)
    yield from measure(embed_pairs(embedder, source, text, captions=captions)).values()


def compare(
    model: VideoTextModel, source: Sequence[Record], text: WordPiece, *, batch: int = 64
) -> Comparison:
    """Embeds all videos and their captions on one device, and compares all with all.

    Args and errors are those of `embed_pairs`.
    """
    return embed_pairs(Embedder(model, batch=batch), source, text).compared()


def embed_pairs(
    embedder: Embedder, source: Sequence[Record], text: WordPiece, *, captions: str = "all"
) -> Gallery:
    """Embeds all videos and their captions.

    Equal captions are one text. Records that cannot be used are left out, and named in a warning.

    Args:
      embedder: with the model.
      source: held-out records.
      text: of the model.
      captions: see `RetrievalSettings`.

    Raises:
      ValueError: more than a tenth of the records damaged or without a caption.
      OSError: the storage cannot be read.
    """
    videos = embedder.videos(source, functools.partial(own_captions, how=captions))
    numbers: dict[str, int] = {}
    pairs = [
        (video, numbers.setdefault(same_text(caption), len(numbers)))
        for video, own in enumerate(videos.kept)
        for caption in own
    ]
    texts = embedder.texts(list(numbers), text)
    return Gallery(videos.vectors, texts, np.array(pairs, np.int64), tuple(numbers), videos.bad)


def own_captions(record: Record, *, how: str) -> tuple[str, ...]:
    """The texts that are right answers for a record.

    Raises:
      UnusableRecord: there is none.
    """
    found = usable_captions(record)
    if how == "paragraph":
        return (" ".join(caption.strip() for caption in found),)
    return found[:1] if how == "first" else found


def measure(gallery: Gallery, *, dual_softmax: float = 0.0) -> Measured:
    """The metrics of a gallery.

    Raises:
      ValueError: embeddings that are not finite.
    """
    ranks = gallery.ranks(dual_softmax=dual_softmax)
    suffix = "_dual_softmax" if dual_softmax else ""
    metrics = []
    # A video's captions are not independent: videos are drawn, with all their captions.
    count = len(gallery.videos)
    owner = np.full(len(gallery.texts), count)
    np.minimum.at(owner, gallery.pairs[:, 1], gallery.pairs[:, 0])
    for way, own, of in (
        ("vid2txt", ranks.of_videos, np.arange(count)),
        ("txt2vid", ranks.of_texts, owner),
    ):
        for k in RECALLS:
            name, hits = f"{way}_r{k}{suffix}", 100.0 * hits_at(own, k)
            found = Metric.of_clusters(name, hits, of, count, share=True)
            exact = float(hits_at(own, k).mean() * 100)
            metrics.append(dataclasses.replace(found, value=exact))
        name = f"{way}_median_rank{suffix}"
        metrics.append(Metric.of_clusters(name, own + 1, of, count, median=True))
    counts = {"videos": gallery.videos, "texts": gallery.texts, "bad_records": gallery.bad}
    metrics += [Metric(name, float(len(some))) for name, some in counts.items()]
    notes = {"dual softmax": f"temperature {dual_softmax:g}"} if dual_softmax else {}
    return Measured(metrics, len(gallery.videos), gallery.bad, notes)


def _wants(settings: RetrievalSettings) -> Callable[[Record], Any]:
    return functools.partial(own_captions, how=settings.captions)


def _measure(job: Job[RetrievalSettings]) -> Measured:
    own = job.settings
    source = job.open(own.split)
    gallery = embed_pairs(job.embedder, source, job.loaded.words(), captions=own.captions)
    measured = measure(gallery, dual_softmax=own.dual_softmax)
    notes = {"captions": own.captions} | dict(measured.notes)
    return dataclasses.replace(measured, notes=notes)


PROTOCOL = Protocol("retrieval", __doc__ or "", RetrievalSettings, _measure, _wants)

if __name__ == "__main__":
    command.run(PROTOCOL)
