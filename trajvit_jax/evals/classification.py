r"""Zero-shot classification: which class's sentences is a video (or image) most similar to?

Top-1 and top-5 accuracy, and the mean over classes of top-1, in percent. A class's embedding is
the mean over sentences made of its name: of unit vectors, as the released program averages them,
or normalized again as CLIP does (paper, supplementary sections 11 and 13). Records need a label.

  python -m trajvit_jax.evals.classification --workdir=runs/panda4m --records=data/k400 \
      --config=configs/eval/kinetics400.py --classes=label_map_k400.txt
  python -m trajvit_jax.evals.classification --workdir=runs/mine --records=runs/records \
      --prompts=none

Without --classes they are the labels that occur in the records, ImageNet's synsets being called by
the first of their names. With --views, records have that
many times the frames that the model reads, and similarities are averaged over views.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import ClassificationSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("classification", __doc__, ClassificationSettings)

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float64, Int64

from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord, UnusableRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import command
from trajvit_jax.evals.class_lists import check_labels, name_of, read_classes
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.prompts import read_templates
from trajvit_jax.evals.protocol import Job, Protocol
from trajvit_jax.evals.results import Measured, Metric
from trajvit_jax.metrics import hits_at, retrieval_ranks
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel


def own_label(record: Record, classes: Collection[str] | None = None) -> tuple[str, str]:
    """Id and class of a record; ImageNet's classes are synsets, for some share their name.

    Raises:
      UnusableRecord: it has no class.
      ValueError: it has none of these classes.
    """
    synset = record.extra.get("synset")
    if isinstance(synset, str):
        record = dataclasses.replace(record, label=synset)
    if record.label is None:
        raise UnusableRecord(
            f"record {record.id!r} has no label; add 'label' to its manifest line and extract again"
        )
    if classes is not None:  # at the first record, not after hours
        check_labels([record.label], classes, f"record {record.id!r}")
    return record.id, record.label


def _named(record: Record, classes: Collection[str] | None) -> tuple[str, str, str]:
    """Id, class, and what that is called in a sentence if no list says it.

    Raises:
      UnusableRecord, ValueError: as `own_label`, or it has no name but a synset's number.
    """
    own, label = own_label(record, classes)
    if not isinstance(record.extra.get("synset"), str):
        return own, label, name_of(label)
    # Of several names the first, as `read_classes` takes it.
    name = (record.label or label).split(",")[0].replace("_", " ")
    if classes is None and name == label:
        raise ValueError(
            f"record {record.id!r} is of class {label!r}, a number that no caption has: name the "
            "classes by --classes=LOC_synset_mapping.txt"
        )
    return own, label, name


def class_vectors(
    embedder: Embedder,
    text: WordPiece,
    names: Sequence[str],
    templates: Sequence[str],
    *,
    ensemble: str = "mean",
) -> Float64[np.ndarray, "c p"]:
    """A vector of each class: the mean of its sentences'.

    Args:
      embedder: with the model.
      text: of the model.
      names: of the classes.
      templates: sentences with {} for the name.
      ensemble: see `ClassificationSettings`.
    """
    sentences = [template.replace("{}", name) for name in names for template in templates]
    vectors = embedder.texts(sentences, text)
    return averaged(vectors.reshape(len(names), len(templates), -1), ensemble)


def averaged(vectors: Float[np.ndarray, "c m p"], ensemble: str) -> Float64[np.ndarray, "c p"]:
    """The mean of unit vectors; of 'unit' it is normalized, too, see `ClassificationSettings`."""
    mean = vectors.astype(np.float64).mean(1)
    if ensemble == "unit":
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return mean


@dataclasses.dataclass(frozen=True, eq=False)
class Classified:
    """Videos against classes.

    Attributes:
      scores: of each video and class.
      truth: number of each video's class.
      labels: of the classes.
      bad: records that could not be used, and are no part of this.
    """

    scores: Float[np.ndarray, "v c"]
    truth: Int64[np.ndarray, " v"]
    labels: tuple[str, ...]
    bad: tuple[BadRecord, ...] = ()


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    classes: Mapping[str, str] | None = None,
    templates: Sequence[str] = ("{}",),
    ensemble: str = "mean",
    views: int = 1,
    batch: int = 64,
    mesh: Mesh | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): accuracies in percent.

    Args and errors are those of `classify`.
    """
    embedder = Embedder(model, batch=batch, mesh=mesh)
    found = classify(
        embedder, source, text, classes=classes, templates=templates, ensemble=ensemble, views=views
    )
    yield from measure(found).values()


def classify(
    embedder: Embedder,
    source: Sequence[Record],
    text: WordPiece,
    *,
    classes: Mapping[str, str] | None = None,
    templates: Sequence[str] = ("{}",),
    ensemble: str = "mean",
    views: int = 1,
) -> Classified:
    """Compares videos with classes.

    Args:
      embedder: with the model.
      source: records with labels; with `views`, that many follow one another of each video.
      text: of the model.
      classes: label -> its name in sentences; None = the labels that occur.
      templates: sentences with {} for the name.
      ensemble: see `ClassificationSettings`.
      views: of each video.

    Raises:
      ValueError: a label that is no class, or more than a tenth of the records damaged or without
        a label.
      OSError: the storage cannot be read.
    """
    keep = functools.partial(_named, classes=None if classes is None else frozenset(classes))
    videos = embedder.videos(source, keep)
    labels = [label for _, label, _ in videos.kept]
    if classes is None:
        classes = dict(sorted((label, name) for _, label, name in videos.kept))
    numbers = {label: number for number, label in enumerate(classes)}
    of_classes = class_vectors(embedder, text, list(classes.values()), templates, ensemble=ensemble)
    scores = videos.vectors.astype(np.float64) @ of_classes.T
    ids, first, of_video = np.unique(
        [record for record, *_ in videos.kept], return_index=True, return_inverse=True
    )
    summed = np.zeros((len(ids), len(classes)))
    np.add.at(summed, of_video, scores)
    counts = np.bincount(of_video)
    if counts.max() > views:
        raise ValueError(f"{source!r} has {counts.max()} records of one id, not {views}")
    truth = np.array([numbers[labels[place]] for place in first], np.int64)
    mean = (summed / counts[:, None]).astype(np.float32)
    return Classified(mean, truth, tuple(classes), videos.bad)


def measure(found: Classified) -> Measured:
    """Accuracies, in percent."""
    positives = np.zeros(found.scores.shape, bool)
    positives[np.arange(len(found.truth)), found.truth] = True
    ranks = retrieval_ranks(found.scores, positives)
    top1 = hits_at(ranks, 1)

    def by_class(own: np.ndarray) -> float:
        truth = found.truth[own]
        counts = np.bincount(truth, minlength=len(found.labels))
        right = np.bincount(truth, top1[own], minlength=len(found.labels))
        return float(100 * (right[counts > 0] / counts[counts > 0]).mean())

    everything = np.arange(len(ranks))
    of_class = np.bincount(found.truth)
    of_class = of_class[of_class > 0]
    worth = len(of_class) ** 2 / (1 / of_class).sum()  # a sample of a small class counts more
    metrics = [Metric.percent("top1", top1)]
    if len(found.labels) > 5:
        metrics.append(Metric.percent("top5", hits_at(ranks, 5)))
    metrics += [
        Metric("class_mean", by_class(everything), len(ranks), by_class, share=True, trials=worth),
        Metric("chance_top1", 100 / len(found.labels)),
    ]
    return Measured(metrics, len(ranks), found.bad, {"classes": len(found.labels)})


def _wants(settings: ClassificationSettings) -> Callable[[Record], Any]:
    classes = frozenset(read_classes(settings.classes)) if settings.classes else None
    return functools.partial(_named, classes=classes)


def _check(settings: ClassificationSettings, _: ModelSettings) -> None:
    read_templates(settings.prompts)


def _measure(job: Job[ClassificationSettings]) -> Measured:
    own = job.settings
    templates = read_templates(own.prompts)
    classes = read_classes(own.classes) if own.classes else None
    found = classify(
        job.embedder,
        job.open(own.split, views=own.views),
        job.loaded.words(),
        classes=classes,
        templates=templates,
        ensemble=own.ensemble,
        views=own.views,
    )
    measured = measure(found)
    notes = {"prompts": f"{own.prompts} ({len(templates)}), {own.ensemble}"} | dict(measured.notes)
    return dataclasses.replace(measured, notes=notes)


PROTOCOL = Protocol(
    "classification", __doc__ or "", ClassificationSettings, _measure, _wants, _check
)

if __name__ == "__main__":
    command.run(PROTOCOL)
