"""What `model.deterministic` costs: sums in one order against scatters, forward and backward.

  python -m benchmarks.ordered_sums                 # 4 videos of 16 frames, TrajViT-L's sizes
  python -m benchmarks.ordered_sums --quick         # one video of 4 frames: under a minute
  python -m benchmarks.ordered_sums --videos=32 --json=ordered_sums.json

'pooling' is mask pooling of a ResNet-18's four stages to width 1,024 at 224 pixels, one video a row
of 256 slots; 'words' the gradient of BERT's word table for as many captions of 77 tokens. Both are
small beside a training step; `benchmarks.train_step --deterministic` tells the share of a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.timing import Contender, race, ratio, table
from trajvit_jax.ops.mask_pooling import Projection, pool_stages
from trajvit_jax.ops.ordered_sums import read_rows
from trajvit_jax.ops.segments import Segments

CHANNELS, GRIDS, WIDTH, SLOTS = (64, 128, 256, 512), (56, 28, 14, 7), 1024, 256
WORDS, TEXT_WIDTH, LENGTH = 30_522, 768, 77
WAYS = {"in any order": False, "ordered": True}


def contenders(videos: int, frames: int) -> list[Contender]:
    """Both things in both ways, with their gradients."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    stages = [
        normal(videos, frames, grid, grid, channels)
        for channels, grid in zip(CHANNELS, GRIDS, strict=True)
    ]
    projection = Projection(
        tuple(normal(channels, WIDTH) for channels in CHANNELS),
        tuple(normal(WIDTH) for _ in CHANNELS),
        normal(WIDTH),
        normal(WIDTH),
    )
    cells = jnp.asarray(rng.integers(0, 151, (videos, frames, GRIDS[0], GRIDS[0])), jnp.int32)
    # Words are as common as their rank is low (Zipf).
    ranks = np.minimum(rng.zipf(1.2, (videos, LENGTH)), WORDS) - 1
    ids, words = jnp.asarray(ranks, jnp.int32), normal(WORDS, TEXT_WIDTH)

    def pooling(*, ordered: bool) -> Callable[..., jax.Array]:
        def number(stages: Any, projection: Projection, cells: jax.Array) -> jax.Array:
            segments = Segments.of(cells, SLOTS, ordered=ordered)
            return jnp.square(pool_stages(stages, projection, segments)).mean()

        return jax.grad(number, argnums=(0, 1))

    def reading(*, ordered: bool) -> Callable[..., jax.Array]:
        return jax.grad(
            lambda words, ids: jnp.square(read_rows(words, ids, ordered=ordered)).mean()
        )

    found = []
    for name, ordered in WAYS.items():
        for stage, function, inputs in (
            ("pooling", pooling(ordered=ordered), (stages, projection, cells)),
            ("words", reading(ordered=ordered), (words, ids)),
        ):
            compiled = jax.jit(function).lower(*inputs).compile()
            memory = compiled.memory_analysis()
            found.append(
                Contender(
                    stage,
                    name,
                    lambda run=compiled, inputs=inputs: jax.block_until_ready(run(*inputs)),
                    memory=memory.temp_size_in_bytes if memory else None,
                )
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and the ratios."""
    parser = parser_of(__file__, __doc__, quick="one video of 4 frames, one round")
    parser.add_argument("--videos", type=count, default=4, help="of a batch (default: 4)")
    parser.add_argument("--rounds", type=count, default=5, help="of each (default: 5)")
    options = parser.parse_args(arguments)
    videos, frames, rounds = (1, 4, 1) if options.quick else (options.videos, 16, options.rounds)
    timings = race(contenders(videos, frames), rounds)
    any_order, ordered = WAYS
    ratios = {
        stage: ratio(timings, (stage, ordered), (stage, any_order))
        for stage in ("pooling", "words")
    }
    print(f"{jax.devices()[0].device_kind}, {videos} videos of {frames} frames\n")
    print(table(timings) + "\n")
    for stage, times in ratios.items():
        print(f"{stage}, ordered: {times:.1f}x the time")
    report = {"ratios": ratios, "timings": [dataclasses.asdict(one) for one in timings]}
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    run_command(main)
