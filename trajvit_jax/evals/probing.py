r"""Attentive probing: a small classifier learns from the frozen tokens of videos (paper, 4.1).

The tokens that leave the encoder are layer-normalized and computed once. One attention-pooling
head learns from those of the training split: AdamW, learning rate 1e-4, weight decay 0.5, 128
videos a step, 12 epochs (supplementary section 6). Scores are averaged over 4 temporal views.

  python -m trajvit_jax.evals.probing --workdir=runs/panda4m --records=data/ssv2 \
      --config=configs/eval/ssv2.py --features=features/ssv2
  python -m trajvit_jax.evals.probing --workdir=runs/mine --records=runs/records --views=1 \
      --epochs=100 --learning-rate=1e-3

Records need labels, and with --views that many times the frames that the model reads: extract
with --config=configs/tokenization/classical.py:frames=64 for 4 views of 16. In training a video
is read once an epoch, in a view that is drawn. With --features the tokens stay in a folder, and
another head costs minutes.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import ProbingSettings, TrainedHeadSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("probing", __doc__, ProbingSettings)

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Shaped
from tqdm import tqdm

from trajvit_jax.config import require_positive
from trajvit_jax.data.source import Record
from trajvit_jax.evals import command
from trajvit_jax.evals.class_lists import check_labels, read_classes
from trajvit_jax.evals.classification import Classified, measure, own_label
from trajvit_jax.evals.embedding import Embedder, do_nothing
from trajvit_jax.evals.features import Frozen, frozen_tokens
from trajvit_jax.evals.protocol import Job, Protocol
from trajvit_jax.evals.results import Measured
from trajvit_jax.evals.token_store import Features
from trajvit_jax.models.map_head import MapHead
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.ops.impl import Impl
from trajvit_jax.sharding import MeshSettings, make_mesh

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How a head is trained; the paper's values.

    Attributes:
      epochs: over the training samples.
      learning_rate: of AdamW, the same for all steps.
      weight_decay: of all parameters.
      size: samples of a step.
      heads: of the attention.
      mlp_ratio: width of the MLP behind the attention, in widths of a token; 0 = none.
      seed: of the start and of the order.
      multi_label: samples have any number of classes: a sigmoid for each, no softmax.
      impl: 'fast', or the plain formula, 'reference'.
    """

    epochs: int = 12
    learning_rate: float = 1e-4
    weight_decay: float = 0.5
    size: int = 128
    heads: int = 16
    mlp_ratio: float = 4.0
    seed: int = 0
    multi_label: bool = False
    impl: Impl = "fast"

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "size", "heads")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.mlp_ratio < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be above 0, weight_decay="
                f"{self.weight_decay} and mlp_ratio={self.mlp_ratio} at least 0"
            )


@jax.jit
def _widened(tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """In float32: a program of its own, for within the step XLA widens at every use."""
    return tokens.astype(jnp.float32)


@nnx.jit(static_argnames=("multi_label", "impl"))
def _step(
    head: MapHead,
    optimizer: nnx.Optimizer,
    tokens: Float[Array, "b n d"],
    used: Bool[Array, "b n"],
    targets: Shaped[Array, "b ..."],
    weight: Float[Array, " b"],
    *,
    multi_label: bool,
    impl: Impl,
) -> Float[Array, ""]:
    def loss(head: MapHead) -> jax.Array:
        scores = head(tokens, used, impl=impl)
        if multi_label:
            each = optax.sigmoid_binary_cross_entropy(scores, targets).sum(-1)
        else:
            each = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
        return (each * weight).sum() / weight.sum()

    value, gradient = nnx.value_and_grad(loss)(head)
    optimizer.update(head, gradient)
    return value


@nnx.jit
def _scores(
    head: MapHead, tokens: Float[Array, "b n d"], used: Bool[Array, "b n"]
) -> Float[Array, "b classes"]:
    return head(tokens, used)


def train_head(
    features: Features,
    targets: Shaped[np.ndarray, "n ..."],
    classes: int,
    settings: HeadSettings = HeadSettings(),
    *,
    views: int = 1,
    between: Callable[[], None] = do_nothing,
) -> MapHead:
    """A head that has learned; the same arguments give the same numbers on one kind of device.

    It runs on this process's first device, whatever mesh there is.

    Args:
      features: a sample a view, the views of a video one after the other.
      targets: of each video: the number of its class, or with `multi_label` 0 or 1 for each.
      classes: how many there are.
      settings: of the head.
      views: of each video, one of which is drawn in each epoch.
      between: called after each step; what it raises ends the training.

    Raises:
      ValueError: targets that do not belong to the features.
      FloatingPointError: a loss that is not finite.
    """
    if len(targets) * views != len(features) or not len(features):
        raise ValueError(f"{len(features)} samples are not {views} views of {len(targets)} videos")
    size = min(settings.size, len(targets))
    steps = -(-len(targets) // size)
    with jax.set_mesh(make_mesh(MeshSettings(data=1), jax.local_devices()[:1])):
        head = nnx.jit(
            lambda: MapHead(
                features.width,
                classes,
                heads=settings.heads,
                mlp_ratio=settings.mlp_ratio,
                rngs=nnx.Rngs(settings.seed),
            )
        )()
        optimizer = nnx.Optimizer(
            head,
            optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay),
            wrt=nnx.Param,
        )
        shown = jax.process_index() == 0
        bar = tqdm(
            total=settings.epochs * steps,
            desc="train the head",
            unit="step",
            leave=False,
            mininterval=1,
            disable=not shown,
        )
        loss: jax.Array | None = None
        with bar:
            for epoch in range(settings.epochs):
                batches = _batches(features, targets, settings, epoch, views)
                for tokens, *rest in _prefetched(batches):
                    loss = _step(
                        head,
                        optimizer,
                        _widened(tokens),
                        *rest,
                        multi_label=settings.multi_label,
                        impl=settings.impl,
                    )
                    bar.update()
                    between()
                assert loss is not None  # there is a step in every epoch
                told = float(loss)
                if not np.isfinite(told):
                    raise FloatingPointError(
                        f"the head's loss is {told} after epoch {epoch + 1}; lower "
                        "--learning-rate, or look for features that are not finite"
                    )
                bar.set_postfix(loss=f"{told:.3f}", refresh=False)
    return head


def _batches(
    features: Features,
    targets: Shaped[np.ndarray, "n ..."],
    settings: HeadSettings,
    epoch: int,
    views: int,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Tokens, which are used, targets and weights of an epoch's steps, all of one shape."""
    size = min(settings.size, len(targets))
    rng = np.random.default_rng((settings.seed, epoch))
    order, drawn = rng.permutation(len(targets)), rng.integers(views, size=len(targets))
    for start in range(0, len(order), size):
        own = order[start : start + size]
        filled = np.pad(own, (0, size - len(own)), mode="edge")
        weight = (np.arange(size) < len(own)).astype(np.float32)
        tokens, used = features.batch(filled * views + drawn[filled], features.longest)
        yield tokens, used, targets[filled], weight


def _prefetched(batches: Iterator[T]) -> Iterator[T]:
    """The same, the next one being made meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, batches, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, batches, None)
            yield batch


def score_samples(
    head: MapHead, features: Features, *, size: int = 128
) -> Float[np.ndarray, "n classes"]:
    """Scores of all samples, before any softmax."""
    size, length, found = min(size, len(features)), features.longest, []
    with jax.set_mesh(make_mesh(MeshSettings(data=1), jax.local_devices()[:1])):
        for start in range(0, len(features), size):
            own = np.arange(start, min(start + size, len(features)))
            filled = np.pad(own, (0, size - len(own)), mode="edge")
            tokens, used = features.batch(filled, length)
            found.append(np.asarray(_scores(head, _widened(tokens), used))[: len(own)])
    return np.concatenate(found)


def by_video(frozen: Frozen, views: int) -> tuple[list[str], list[str]]:
    """Ids and labels of the videos, whose views follow one another.

    Raises:
      ValueError: views of a video are missing.
    """
    ids, labels = zip(*frozen.kept, strict=True)
    videos = ids[::views]
    if ids != tuple(name for name in videos for _ in range(views)):
        raise ValueError(f"not every video has its {views} views")
    return list(videos), list(labels[::views])


def probe(
    train: Frozen,
    test: Frozen,
    settings: HeadSettings = HeadSettings(),
    *,
    classes: Sequence[str] | None = None,
    views: int = 1,
    between: Callable[[], None] = do_nothing,
) -> Measured:
    """Trains a head on one set of features and measures it on another.

    Args:
      train: of labelled videos, as `own_label` keeps them.
      test: likewise.
      settings: of the head.
      classes: all labels there are; None = those of `train`.
      views: of each video; scores are averaged over them.
      between: called after each step of the head.

    Raises:
      ValueError: a label that is no class.
      FloatingPointError: a loss that is not finite.
    """
    _, learned = by_video(train, views)
    _, asked = by_video(test, views)
    classes = sorted(set(learned)) if classes is None else list(classes)
    check_labels(learned, classes, "training split")
    check_labels(asked, classes, "test split")
    numbers = {label: number for number, label in enumerate(classes)}
    targets = np.array([numbers[label] for label in learned], np.int64)
    head = train_head(train.features, targets, len(classes), settings, views=views, between=between)
    scores = score_samples(head, test.features, size=settings.size)
    scores = scores.reshape(len(asked), views, -1).mean(1)
    truth = np.array([numbers[label] for label in asked], np.int64)
    measured = measure(Classified(scores, truth, tuple(classes), test.bad))
    notes = {
        "training videos": len(learned),
        "training records left out": len({one.id for one in train.bad}),
        "tokens a sample": round(test.features.mean, 1),
        "head": dataclasses.asdict(settings),
    }
    return dataclasses.replace(measured, notes=notes | dict(measured.notes))


def evaluate(
    embedder: Embedder,
    train: Sequence[Record],
    test: Sequence[Record],
    settings: HeadSettings = HeadSettings(),
    *,
    classes: Sequence[str] | None = None,
    views: int = 1,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value): accuracies in percent. Args and errors are those of `probe`."""
    frozen = [frozen_tokens(embedder, source, own_label) for source in (train, test)]
    yield from probe(*frozen, settings, classes=classes, views=views).values()


def head_settings(
    own: TrainedHeadSettings, *, size: int, width: int, heads: int, multi_label: bool = False
) -> HeadSettings:
    """Of a protocol's head.

    Args:
      own: what the protocol was told.
      size: samples of a step.
      width: of the tokens that it reads.
      heads: of the encoder.
      multi_label: see `HeadSettings`.

    Raises:
      ValueError: heads that do not share the width.
    """
    if width % (own.heads or heads):
        raise ValueError(
            f"--heads={own.heads or heads} cannot share tokens of width {width}; choose a divisor"
        )
    return HeadSettings(
        epochs=own.epochs,
        learning_rate=own.learning_rate,
        weight_decay=own.weight_decay,
        size=size,
        heads=own.heads or heads,
        seed=own.seed,
        multi_label=multi_label,
    )


def _wants(settings: ProbingSettings) -> Callable[[Record], Any]:
    classes = frozenset(read_classes(settings.classes)) if settings.classes else None
    return functools.partial(own_label, classes=classes)


def _check(settings: ProbingSettings, model: ModelSettings) -> None:
    _head(settings, model)


def _head(own: ProbingSettings, model: ModelSettings) -> HeadSettings:
    encoder = model.encoder
    return head_settings(own, size=own.size, width=encoder.width, heads=encoder.heads)


def _measure(job: Job[ProbingSettings]) -> Measured:
    own, head = job.settings, _head(job.settings, job.loaded.model.settings)
    classes = list(read_classes(own.classes)) if own.classes else None

    def frozen(split: str) -> Frozen:
        return frozen_tokens(
            job.embedder,
            job.open(split, views=own.views),
            _wants(own),
            folder=f"{own.features}/{split}" if own.features else "",
            about=job.about(split) | {"views": own.views} if own.features else None,
            dtype=own.feature_dtype,
        )

    train = frozen(own.train_split)
    if classes is None:
        classes = sorted({label for _, label in train.kept})
    test = frozen(own.split)  # a label that no training video has is told at its first record
    measured = probe(train, test, head, classes=classes, views=own.views, between=job.between)
    notes = {"training videos that are missing": job.absent(own.train_split)}
    return dataclasses.replace(measured, notes=notes | dict(measured.notes))


PROTOCOL = Protocol("probing", __doc__ or "", ProbingSettings, _measure, _wants, _check)

if __name__ == "__main__":
    command.run(PROTOCOL)
