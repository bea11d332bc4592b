r"""Temporal clip retrieval: which of a video's descriptions is this clip's? (paper, section 4.1)

A video is cut at its annotated times. Each clip looks for its own description among those of the
same video, and each description for its clip. Accuracy in percent, both ways: the mean over videos
of each video's accuracy, as the released program reports it, and beside it over all clips.

  python -m trajvit_jax.evals.temporal_clips --workdir=runs/panda4m \
      --records=data/activitynet_clips --config=configs/eval/activitynet_clips.py
  python -m trajvit_jax.evals.temporal_clips --workdir=runs/mine --records=data/youcook2_clips

Records are clips that say which video they are from (`video`): python -m tokenization.annotations
activitynet --per=event, or youcook2. Clips that are equally similar share the middle place.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import TemporalSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("temporal_clips", __doc__, TemporalSettings)

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float64, Int64

from trajvit_jax.data.samples import same_text, usable_captions
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import UnusableRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import command
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.protocol import Job, Protocol
from trajvit_jax.evals.results import Measured, Metric
from trajvit_jax.metrics import chance_recall, hits_at, retrieval_ranks
from trajvit_jax.models.video_text import VideoTextModel


def own_description(record: Record) -> tuple[str, str]:
    """The video that a clip is from, and its description.

    Raises:
      UnusableRecord: it does not say.
    """
    video = record.extra.get("video")
    if not isinstance(video, str) or not video:
        raise UnusableRecord(
            f"record {record.id!r} does not say which video it is from; write the manifest with "
            "python -m tokenization.annotations activitynet --per=event, or youcook2"
        )
    return video, usable_captions(record)[0]


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    least: int = 1,
    batch: int = 64,
    mesh: Mesh | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): accuracies in percent. Args and errors are those of `measure`."""
    yield from measure(Embedder(model, batch=batch, mesh=mesh), source, text, least=least).values()


def measure(
    embedder: Embedder, source: Sequence[Record], text: WordPiece, *, least: int = 1
) -> Measured:
    """Finds descriptions among those of the same video, and back.

    Args:
      embedder: with the model.
      source: clips with a description and the name of their video.
      text: of the model.
      least: see `TemporalSettings`.

    Raises:
      ValueError: more than a tenth of the records cannot be used, or no video has enough clips.
      OSError: the storage cannot be read.
    """
    clips = embedder.videos(source, own_description)
    vectors = embedder.texts([description for _, description in clips.kept], text)
    videos: dict[str, list[int]] = {}
    for number, (video, _) in enumerate(clips.kept):
        videos.setdefault(video, []).append(number)
    groups = [np.array(own, np.int64) for own in videos.values() if len(own) >= least]
    if not groups:
        raise ValueError(f"{source!r} has no video of {least} described clips; lower --least")
    descriptions = [same_text(description) for _, description in clips.kept]
    found = [within(clips.vectors, vectors, descriptions, group) for group in groups]
    metrics = []
    for way in ("vid2txt", "txt2vid"):
        by_video = np.array([hits[way].mean() * 100 for hits in found])
        metrics.append(Metric.mean(way, by_video, share=True))
    video_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    metrics += [
        Metric.of_clusters(
            f"{way}_over_clips",
            100 * np.concatenate([hits[way] for hits in found]),
            video_of,
            len(groups),
            share=True,
        )
        for way in ("vid2txt", "txt2vid")
    ]
    chance = np.array([chance_recall(same_words(descriptions, group), 1) for group in groups])
    metrics.append(Metric.mean("chance", chance))
    notes = {
        "videos": len(groups),
        "clips": sum(map(len, groups)),
        "videos of one clip": sum(len(group) == 1 for group in groups),
        "clips of videos with too few": len(descriptions) - sum(map(len, groups)),
    }
    return Measured(metrics, sum(map(len, groups)), clips.bad, notes)


def within(
    clips: Float[np.ndarray, "n p"],
    descriptions: Float[np.ndarray, "n p"],
    words: Sequence[str],
    group: Int64[np.ndarray, " g"],
) -> dict[str, Float64[np.ndarray, " g"]]:
    """Which of a video's clips found their description, and back: 1 or 0 of each.

    Equal descriptions are each a right answer of the other's clip.
    """
    similarity = clips[group].astype(np.float64) @ descriptions[group].astype(np.float64).T
    similarity = similarity.astype(np.float32)
    same = same_words(words, group)
    return {
        "vid2txt": hits_at(retrieval_ranks(similarity, same), 1).astype(np.float64),
        "txt2vid": hits_at(retrieval_ranks(similarity.T, same), 1).astype(np.float64),
    }


def same_words(words: Sequence[str], group: Int64[np.ndarray, " g"]) -> Bool[np.ndarray, "g g"]:
    """Which of a video's clips are described alike."""
    own = np.array([words[number] for number in group])
    return own[:, None] == own


def _wants(_: TemporalSettings) -> Callable[[Record], Any]:
    return own_description


def _measure(job: Job[TemporalSettings]) -> Measured:
    own = job.settings
    return measure(job.embedder, job.open(own.split), job.loaded.words(), least=own.least)


PROTOCOL = Protocol("temporal_clips", __doc__ or "", TemporalSettings, _measure, _wants)

if __name__ == "__main__":
    command.run(PROTOCOL)
