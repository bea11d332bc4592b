r"""More frames: accuracy, tokens, FLOPs, memory and time of a model that reads 16, 32, .. frames.

Retrieval (R@5 both ways) at each number of frames, with what embedding a video costs: tokens that
the encoder reads and FLOPs by formula, on average over all videos; memory of the compiled program
by XLA's analysis and measured seconds, compilation and reading left out, on one batch (paper,
section 4.2 and Fig. 6).

  python -m trajvit_jax.evals.scaling --workdir=runs/panda4m --records=data/activitynet_256 \
      --at=16,32,64,128,256 --captions=paragraph
  python -m trajvit_jax.evals.scaling --workdir=runs/panda4m --records=data/activitynet_{frames} \
      --at=16,32,64

Records of one folder that have the most frames give fewer of them, with the trajectories of all;
with {frames} in its name each number has records of its own, whose trajectories were made of so
many frames, as in the paper. What trajectories take is told by python -m benchmarks.extraction.
"""

from __future__ import annotations

from trajvit_jax.evals import options
from trajvit_jax.evals.settings import ScalingSettings

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    options.check("scaling", __doc__, ScalingSettings)

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from trajvit_jax.data.source import Record, open_records
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import command
from trajvit_jax.evals.embedding import Embedder, do_nothing, embed_video
from trajvit_jax.evals.features import encode_tokens
from trajvit_jax.evals.loaded import check_frames, with_frames
from trajvit_jax.evals.protocol import Job, Protocol, as_read, folders_of
from trajvit_jax.evals.results import Measured, Metric
from trajvit_jax.evals.retrieval import embed_pairs, own_captions
from trajvit_jax.evals.retrieval import measure as measure_retrieval
from trajvit_jax.models.costs import cost_of, tokens_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.sharding import batch_parts

_TIMED = 5  # batches of which the median is told


def evaluate(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    *,
    at: Sequence[int],
    captions: str = "all",
    batch: int = 64,
) -> Iterator[tuple[str, float]]:
    """Yields (name, value) for each number of frames, names being like '32/txt2vid_r5'.

    Args and errors are those of `measure_at`.
    """
    for frames, own in _sources(model, dict.fromkeys(at, source)).items():
        for metric in measure_at(model, own, text, frames, captions=captions, batch=batch).metrics:
            yield metric.name, metric.value


def _sources(
    model: VideoTextModel, stored: Mapping[int, Sequence[Record]]
) -> dict[int, Sequence[Record]]:
    """Records as they are read at each number of frames: all that cannot be is told beforehand."""
    for frames in stored:
        check_frames(dataclasses.replace(model.settings, frames=frames))
    return {frames: as_read(source, frames, option="--at") for frames, source in stored.items()}


def measure_at(
    model: VideoTextModel,
    source: Sequence[Record],
    text: WordPiece,
    frames: int,
    *,
    captions: str = "all",
    batch: int = 64,
    mesh: Mesh | None = None,
    between: Callable[[], None] = do_nothing,
) -> Measured:
    """Retrieval and cost at one number of frames.

    Args:
      model: of any tokenization that can read so many.
      source: records with as many.
      text: of the model.
      frames: how many.
      captions: see `RetrievalSettings`.
      batch: videos at once.
      mesh: of the devices; None = one device.
      between: called between batches.

    Raises:
      ValueError: a number of frames that the model cannot read, and as `embed_pairs` says.
    """
    # Times are those of full batches.
    embedder = Embedder(
        with_frames(model, frames), batch=min(batch, len(source)), mesh=mesh, between=between
    )
    measured = measure_retrieval(embed_pairs(embedder, source, text, captions=captions))
    shown = [m for m in measured.metrics if m.name in ("txt2vid_r5", "vid2txt_r5")]
    costs = costs_of(embedder, source)
    metrics = [dataclasses.replace(m, name=f"{frames}/{m.name}") for m in shown]
    metrics += [Metric(f"{frames}/{name}", value) for name, value in costs.items()]
    return Measured(metrics, measured.count, measured.bad)


def costs_of(embedder: Embedder, source: Sequence[Record]) -> dict[str, float]:
    """What embedding a video costs: tokens and FLOPs on average over all that can be read, seconds
    and memory as measured on the first batch that holds any.

    Raises:
      ValueError: no record can be read.
    """
    name = embedder.model.settings.name
    measured: dict[str, float] = {}
    counts: list[int] = []
    for videos in embedder.batches(source, lambda _: None, name="cost"):
        # Black videos, of bad records or beyond the last, take the time and memory of others, but
        # have no tokens to count.
        good = [number for number, problem in enumerate(videos.bad) if problem is None]
        if not good:
            continue
        if not measured or name == "rlt":
            arrays = embedder.put((videos.video, videos.labels, videos.rows))
        measured = measured or _measured(embedder, arrays, len(videos.video))
        if name == "rlt":
            used = np.asarray(encode_tokens(embedder.model, *arrays, shared=False)[1])
            counts += used[good].sum(1).tolist()
        elif name == "trajvit":
            counts += [len(np.unique(own[own > 0])) for own in videos.labels[good]]
        else:
            break  # every video has as many
    if not measured:
        raise ValueError(f"no record of {source!r} can be read")
    return _by_formula(embedder.model.settings, counts) | measured


def _by_formula(settings: ModelSettings, counts: Sequence[int]) -> dict[str, float]:
    """Tokens and GFLOP of a video, on average.

    Args:
      settings: of the model.
      counts: trajectories of each video for TrajViT, tokens for RLT; empty for others.
    """
    tokens, flops = float(tokens_of(settings).first), cost_of(settings).total
    if settings.name == "trajvit":
        each = settings.trajvit.tokens_each
        tokens = 1 + each * sum(counts) / len(counts)
        if flops is not None:
            of = {count: _flops_of(settings, count) for count in set(counts)}
            flops = sum(of[count] for count in counts) / len(counts)
    elif settings.name == "rlt":
        tokens = sum(counts) / len(counts)
    return {"tokens": tokens} | ({} if flops is None else {"gflop": flops / 1e9})


def _flops_of(settings: ModelSettings, trajectories: int) -> int:
    """Of TrajViT and a video with so many."""
    sized = dataclasses.replace(settings.trajvit, max_trajectories=max(1, trajectories))
    return cost_of(dataclasses.replace(settings, trajvit=sized)).total or 0


def _measured(embedder: Embedder, arrays: tuple[Any, ...], b: int) -> dict[str, float]:
    """Memory and seconds of a video, in a batch of `b`."""
    jax.block_until_ready(embed_video(embedder.model, *arrays))  # compiled, if it was not
    seconds = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        jax.block_until_ready(embed_video(embedder.model, *arrays))
        seconds.append(time.perf_counter() - started)
    # Of several devices the analysis tells what one takes, for its part of the batch.
    parts = 1 if embedder.mesh is None else batch_parts(embedder.mesh)
    memory = _memory(embedder.model, arrays, parts)
    found = {} if memory is None else {"memory_mib": memory / (b / parts) / 2**20}
    return found | {"seconds": statistics.median(seconds) / b}


def _memory(model: VideoTextModel, arrays: tuple[Any, ...], parts: int) -> float | None:
    """Bytes of a batch, or of a device's part of it, besides the model: XLA's analysis of the
    compiled program."""
    graph, state = nnx.split(model)

    def run(state: Any, *arrays: Any) -> jax.Array:
        return nnx.merge(graph, state).embed_video(*arrays)

    analysis = jax.jit(run).lower(state, *arrays).compile().memory_analysis()
    if analysis is None:
        return None
    inputs = sum(x.nbytes for x in jax.tree.leaves(arrays))
    return float(analysis.temp_size_in_bytes + inputs / parts)


def _wants(settings: ScalingSettings) -> Callable[[Record], Any]:
    return functools.partial(own_captions, how=settings.captions)


def _measure(job: Job[ScalingSettings]) -> Measured:
    own = job.settings
    metrics: list[Metric] = []
    counts: dict[int, int] = {}
    bad: dict[str, BadRecord] = {}  # a video may be bad at one number of frames alone
    folders = folders_of(job.folder, own)
    stored = {frames: open_records(folders[frames], own.split) for frames in own.frame_counts()}
    for frames, source in _sources(job.loaded.model, stored).items():
        found = measure_at(
            job.loaded.model,
            source,
            job.loaded.words(),
            frames,
            captions=own.captions,
            batch=own.batch,
            mesh=job.mesh,
            between=job.between,
        )
        metrics += found.metrics
        counts[frames] = found.count
        bad |= {one.id: one for one in found.bad}
    made = "each its own" if "{frames}" in job.folder else f"those of {Path(job.folder).name}"
    if job.loaded.model.settings.name == "trajvit":
        made += ", whose making is in no FLOP, second or byte here"
    notes: dict[str, Any] = {"trajectories": made, "seconds and memory": "of a video, in batches"}
    if len(set(counts.values())) > 1:
        notes["videos by frames"] = counts
    return Measured(metrics, min(counts.values()), tuple(bad.values()), notes)


PROTOCOL = Protocol("scaling", __doc__ or "", ScalingSettings, _measure, _wants)

if __name__ == "__main__":
    command.run(PROTOCOL)
