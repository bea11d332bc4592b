"""Evaluations at the sizes that count: memory of retrieval, and time of probing.

retrieval  100,000 videos against 100,000 captions, random unit vectors of 256: ranks both ways
           in a process of its own, whose peak memory is read. Bound: 2 GB.
probing    12 epochs of an attention-pooling head on 10,000 cached samples of 150 tokens of 384,
           the key and value projections absorbed into the one query. Bound: two minutes. Beside
           it some steps of the plain head, which projects every token: how many times as fast.

python -m benchmarks.evaluation
python -m benchmarks.evaluation --quick        # small sizes, no verdict
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json

MEMORY_BOUND = 2e9  # bytes
TIME_BOUND = 120.0  # seconds, two cores
PAIRS, WIDTH = 100_000, 256
SAMPLES, TOKENS, TOKEN_WIDTH, CLASSES, HEADS, EPOCHS = 10_000, 150, 384, 400, 6, 12
PLAIN_STEPS = 8


def unit_vectors(count: int, width: int, seed: int) -> np.ndarray:
    """Random directions."""
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def retrieval(count: int, width: int = WIDTH) -> dict[str, float]:
    """Ranks of random pairs; to be run in a process of its own."""
    from trajvit_jax.evals.ranking import rank_pairs

    started, busy = time.perf_counter(), time.process_time()
    videos = unit_vectors(count, width, 0)
    texts = videos + 0.5 * unit_vectors(count, width, 1)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    numbers = np.arange(count)
    ranks = rank_pairs(videos, texts, np.stack([numbers, numbers], 1))
    return {
        "pairs": count,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        "vid2txt_median_rank": float(np.median(ranks.of_videos) + 1),
        "txt2vid_median_rank": float(np.median(ranks.of_texts) + 1),
    }


def probing(samples: int, tokens: int, width: int, epochs: int) -> dict[str, float]:
    """Seconds of the head's training, and of its plain twin's steps."""
    from trajvit_jax.evals.probing import HeadSettings, train_head
    from trajvit_jax.evals.token_store import Features

    rng = np.random.default_rng(0)
    # Drawn in parts: float64 of everything would not fit.
    values = np.empty((samples * tokens, width), np.float16)
    for start in range(0, len(values), 50_000):
        part = values[start : start + 50_000]
        part[:] = rng.standard_normal(part.shape, np.float32)
    features = Features(values, np.arange(samples + 1) * tokens)
    targets = rng.integers(CLASSES, size=samples)

    started, busy = time.perf_counter(), time.process_time()
    train_head(features, targets, CLASSES, HeadSettings(heads=HEADS, epochs=epochs))
    whole, busy = time.perf_counter() - started, time.process_time() - busy
    steps = epochs * -(-samples // 128)
    few = min(samples, 128 * PLAIN_STEPS)
    some = Features(values[: few * tokens], features.starts[: few + 1])

    def a_step(impl: str) -> float:
        """The median over epochs of few steps; the first, which compiles, is none of them."""
        steps, times = -(-few // 128), []
        settings = HeadSettings(heads=HEADS, epochs=5, impl=impl)
        ticks = lambda: times.append(time.perf_counter())  # noqa: E731
        train_head(some, targets[:few], CLASSES, settings, between=ticks)
        return float(np.median(np.diff(times[steps::steps]))) / steps

    plain, fast = a_step("reference"), a_step("fast")
    return {
        "samples": samples,
        "seconds": whole,
        "cpu_seconds": busy,
        "seconds_a_step": whole / steps,
        "fast_step": fast,
        "plain_step": plain,
        "ratio": plain / fast,
    }


def alone(function: Any, *arguments: Any) -> Any:
    """Runs a function in a new process, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 if its bounds hold or it was quick, 1 if not."""
    parser = parser_of(__file__, __doc__, quick="small sizes, no verdict")
    parser.add_argument("--only", choices=("retrieval", "probing"), help="one of the two")
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, float]] = {}
    if options.only != "probing":
        found["retrieval"] = alone(retrieval, 2_000 if options.quick else PAIRS)
        own = found["retrieval"]
        print(
            f"retrieval  {own['pairs']:,} x {own['pairs']:,}: {own['peak_bytes'] / 1e9:.2f} GB at "
            f"most, {own['seconds']:.0f} s ({own['cpu_seconds']:.0f} s of CPU); median ranks "
            f"{own['vid2txt_median_rank']:g} and {own['txt2vid_median_rank']:g}"
        )
    if options.only != "retrieval":
        sizes = (256, 20, 48, 2) if options.quick else (SAMPLES, TOKENS, TOKEN_WIDTH, EPOCHS)
        found["probing"] = alone(probing, *sizes)
        own = found["probing"]
        print(
            f"probing    {own['samples']:,} samples of {sizes[1]} x {sizes[2]}, {sizes[3]} epochs: "
            f"{own['seconds']:.0f} s ({own['cpu_seconds']:.0f} s of CPU); a step "
            f"{1e3 * own['fast_step']:.0f} ms, of the plain head {1e3 * own['plain_step']:.0f} ms "
            f"({own['ratio']:.1f}x)"
        )
    write_json(options.json, found)
    if options.quick:
        return 0
    bounds = {}
    if "retrieval" in found:
        peak = found["retrieval"]["peak_bytes"]
        bounds[f"retrieval in {peak / 1e9:.2f} GB, under 2"] = peak < MEMORY_BOUND
    if "probing" in found:
        took = found["probing"]["seconds"]
        bounds[f"probing in {took:.0f} s, under two minutes"] = took < TIME_BOUND
    return tell_bounds(bounds)


if __name__ == "__main__":
    run_command(main)
