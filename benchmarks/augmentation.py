"""What augmentation costs inside the compiled step, part by part, against a plain resize.

Example:
  python -m benchmarks.augmentation              # 4 videos of 16 x 256 x 256, to 224
  python -m benchmarks.augmentation --quick      # 2 videos of 4 frames: under a minute
  python -m benchmarks.augmentation --videos=32 --json=augmentation.json

Parts run alone, each in a program of its own, so they need not add up to the whole. Beside two of
them stands the obvious other way: JAX's own resize, which lets pixels from outside the crop leak
into its border, and the colour changes one after another in place of a scan.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.timing import Contender, Timing, race, ratio
from trajvit_jax.data.augment import AugmentSettings, augment, draw, sample_keys
from trajvit_jax.ops.blur import blur, gaussian_taps
from trajvit_jax.ops.color import CHANGES, grayscale, jitter
from trajvit_jax.ops.crop import crop_labels, crop_pixels

_STORED, _SIZE, _GRID = 256, 224, 56
_PLAIN = ("whole", "plain resize")


def contenders(videos: int, frames: int) -> list[Contender]:
    """Plain resize and full augmentation of a batch, and the parts of the latter."""
    rng = np.random.default_rng(0)
    shape = (videos, frames, _STORED, _STORED)
    video = jnp.asarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 150, shape, dtype=np.uint16))
    keys = sample_keys(0, 0, jnp.asarray(rng.integers(0, 2**32, (videos, 2), dtype=np.uint32)))
    planes = jnp.asarray(rng.uniform(0, 255, (videos, 3, frames, _SIZE, _SIZE)), dtype=jnp.float32)

    settings = AugmentSettings()
    draws = jax.vmap(functools.partial(draw, settings=settings, height=_STORED, width=_STORED))
    drawn = jax.jit(draws)(keys)
    sized = functools.partial(augment, image_size=_SIZE, grid=_GRID)
    stored, pixels, cells = (_STORED, _STORED), functools.partial(crop_pixels, size=_SIZE), _GRID

    def crop_of_labels(labels: Any, one: Any) -> Any:
        return crop_labels(labels, one.box, frame=stored, size=cells, mirror=one.flip)

    ways: dict[tuple[str, str], tuple[Callable[..., Any], tuple[Any, ...]]] = {
        _PLAIN: (lambda v, y, k: sized(v, y, k, AugmentSettings.none()), (video, labels, keys)),
        ("whole", "augmented"): (lambda v, y, k: sized(v, y, k, settings), (video, labels, keys)),
        ("part", "draw"): (draws, (keys,)),
        ("part", "crop"): (
            jax.vmap(lambda v, one: pixels(v, one.box, mirror=one.flip)),
            (video, drawn),
        ),
        ("part", "labels"): (jax.vmap(crop_of_labels), (labels, drawn)),
        ("part", "jitter"): (
            jax.vmap(lambda x, one: jitter(x, one.order, one.factors)),
            (planes, drawn),
        ),
        ("part", "grayscale"): (
            jax.vmap(lambda x, one: jnp.where(one.grayscale, grayscale(x), x)),
            (planes, drawn),
        ),
        ("part", "blur"): (
            jax.vmap(lambda x, one: blur(x, gaussian_taps(one.sigma, settings.blur_taps))),
            (planes, drawn),
        ),
        ("other way", "JAX's resize"): (jax.vmap(_jax_crop), (video, drawn)),
        ("other way", "jitter unroll"): (jax.vmap(_jitter_unrolled), (planes, drawn)),
    }
    return [_contender(*names, run, arguments) for names, (run, arguments) in ways.items()]


def _contender(
    stage: str, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Contender:
    program = jax.jit(function).lower(*arguments).compile()
    analysis = program.memory_analysis()
    return Contender(
        stage,
        name,
        lambda: jax.block_until_ready(program(*arguments)),
        memory=None if analysis is None else float(analysis.temp_size_in_bytes),
    )


def _jax_crop(video: jax.Array, drawn: Any) -> jax.Array:
    box = drawn.box
    scale = _SIZE / jnp.stack([box.height, box.width]).astype(jnp.float32)
    shift = -jnp.stack([box.top, box.left]) * scale
    shape = (video.shape[0], _SIZE, _SIZE, 3)
    frames = video.astype(jnp.float32)
    return jax.image.scale_and_translate(frames, shape, (1, 2), scale, shift, "linear")


def _jitter_unrolled(x: jax.Array, drawn: Any) -> jax.Array:
    for change in drawn.order:
        x = jax.lax.switch(change, CHANGES, x, drawn.factors[change])
    return x


def table(timings: list[Timing], videos: int) -> str:
    """One line a way: time and temporary memory of a video, and how many plain resizes it takes."""
    head = f"{'':10} {'way':14} {'ms a video':>11} {'plain resizes':>14} {'temp MB a video':>16}"
    lines = [head]
    for one in timings:
        times = ratio(timings, (one.stage, one.name), _PLAIN)
        memory = "-" if one.memory is None else f"{one.memory / videos / 1e6:.1f}"
        lines.append(
            f"{one.stage:10} {one.name:14} {1e3 * one.median / videos:11.2f} {times:14.2f} "
            f"{memory:>16}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = parser_of(__file__, __doc__, quick="2 videos of 4 frames, 3 rounds")
    parser.add_argument("--videos", type=count, default=4, help="a batch (default: 4)")
    parser.add_argument("--frames", type=count, default=16, help="of a video (default: 16)")
    parser.add_argument("--rounds", type=count, default=7, help="runs of each (default: 7)")
    options = parser.parse_args(arguments)
    videos, frames, rounds = options.videos, options.frames, options.rounds
    if options.quick:
        videos, frames, rounds = 2, 4, 3
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "videos": videos,
        "frames": frames,
    }
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    timings = race(contenders(videos, frames), rounds)
    print(table(timings, videos))
    report["timings"] = [dataclasses.asdict(one) for one in timings]
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    run_command(main)
