"""TrajViT's encoder, stage by stage: fast paths, plain formulas, ViT3D, and PyTorch.

Example:
  python -m benchmarks.encoder                 # TrajViT-B and -L, 16 x 224 x 224, 150 trajectories
  python -m benchmarks.encoder --quick         # TrajViT-B at 4 frames: under a minute
  python -m benchmarks.encoder --sizes=B --no-train --json=encoder.json

Everything runs in turn in one process, and the bounds are ratios of what ran in the same round.
Where torch is installed (make sam2), the released program's formulation and a ViT3D with fused
attention run beside ours on CPU, in eager mode, after both sides have shown that they give the
released program's numbers. 'as released' is ours with its position features, and what its
formulation is compared with. Stages are cut a little differently there: its pooling makes the
boxes, which ours makes in the resamplers.

FLOPs are counted by XLA before it optimizes, and rates stand beside the device's own for a large
product and a large copy of the same run. 'temp MB' is what a compiled program allocates beside
its inputs and outputs; for PyTorch, by how much the process grew, outputs and gradients included.
On an accelerator ours computes in bfloat16, and there is no verdict: its bounds are for CPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import encoder_jax
from benchmarks.timing import (
    Contender,
    Timing,
    race,
    ratio,
    share,
    table,
)
from tokenization.files import write_text
from trajvit_jax.config import nearest
from trajvit_jax.convert.official import encode_video
from trajvit_jax.models.settings import SIZES
from trajvit_jax.models.video_text import normalize_pixels

_GOLDENS = Path(os.environ.get("TRAJVIT_GOLDENS", "tests/goldens"))
_TRAJECTORIES, _A_FRAME, _SIDE = 150, 60, 224
_TOLERANCE = 2e-5


@dataclasses.dataclass(frozen=True)
class Bound:
    """A figure that the benchmark promises."""

    text: str
    found: float
    limit: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is kept."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "FAILS"
        return f"{verdict}: {self.text}: {self.found:.3g} (bound {sign} {self.limit:g})"


def golden_error(path: Path) -> float:
    """How far our encoder is from the released program's numbers, relative to the largest."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name[3:]: file[name] for name in file.files if name.startswith("sd/")}
        pixels = normalize_pixels(jnp.asarray(np.moveaxis(file["in/video_u8"], 2, -1)))
        video = np.moveaxis(np.asarray(pixels), -1, 2)
        truth = file["out/rot1_bb1_eager_once"]
        out = encode_video(
            weights,
            video,
            file["in/segmask"].astype(np.int32),
            file["in/graph"],
            heads=int(file["heads"]),
            boxes=True,
        )
    return float(np.abs(out - truth).max() / max(1.0, np.abs(truth).max()))


def ceilings(dtype: str) -> list[Contender]:
    """A large matrix product and a large copy: what this device can do."""
    on_cpu = jax.default_backend() == "cpu"
    side, cells = (2048, 1 << 26) if on_cpu else (8192, 1 << 29)
    square, line = jnp.ones((side, side), dtype), jnp.ones((cells,), jnp.float32)
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    return [
        Contender(
            "ceiling",
            "product",
            lambda: jax.block_until_ready(product(square)),
            flops=2.0 * side**3,
        ),
        Contender(
            "ceiling", "copy", lambda: jax.block_until_ready(copy(line)), traffic=8.0 * cells
        ),
    ]


def measure(
    size: str, frames: int, *, dtype: str, rounds: int, with_torch: bool, train: bool
) -> list[Timing]:
    """Times every stage, the forward pass and the two passes of training of one size."""
    clip = encoder_jax.Clip.random(frames, _SIDE, _TRAJECTORIES, _A_FRAME)
    ours = (size, clip, _TRAJECTORIES)
    theirs = (size, np.asarray(clip.video), np.asarray(clip.labels))
    contenders = ceilings(dtype) + encoder_jax.stages(*ours, dtype=dtype)
    contenders += encoder_jax.forwards(*ours, dtype=dtype)
    if with_torch:
        from benchmarks import encoder_torch

        contenders += encoder_torch.contenders(*theirs, _TRAJECTORIES, train=False)
    timings = race(contenders, rounds)
    if train:
        del contenders
        steps = encoder_jax.training(*ours, dtype=dtype)
        if with_torch:
            steps += encoder_torch.contenders(*theirs, _TRAJECTORIES, train=True)
        timings += race(steps, max(1, rounds // 2))
    return timings


def bounds(size: str, timings: list[Timing], *, with_torch: bool) -> list[Bound]:
    """The promised ratios of one size; those of memory are at width 1024 (TrajViT-L)."""
    memory = {(one.stage, one.name): one.memory or 0.0 for one in timings}
    fast, plain = ("pooling", "fast"), ("pooling", "reference")
    found = [
        Bound("pooling, times faster than the formula", ratio(timings, plain, fast), 10),
        Bound(
            "resamplers, times faster than the formula",
            ratio(timings, ("resamplers", "reference"), ("resamplers", "fast")),
            3,
        ),
        Bound(
            "pooling and resamplers, share of the forward pass",
            share(timings, [fast, ("resamplers", "fast")], ("forward", "fast")),
            0.15,
            at_least=False,
        ),
    ]
    if size == "L":
        smaller = memory[plain] / max(1.0, memory[fast])
        found.append(Bound("pooling, times less temporary memory", smaller, 15))
    if size == "B":
        whole = ("forward", "fast")
        patches = ratio(timings, ("forward", "ViT3D"), whole)
        found.append(Bound("times faster than our ViT3D", patches, 4))
        if with_torch:
            released = ratio(timings, ("forward", "PyTorch"), ("forward", "as released"))
            found.append(Bound("times faster than the released formulation", released, 2))
            fused = ratio(timings, ("forward", "ViT3D PyTorch"), whole)
            found.append(Bound("times faster than the faster ViT3D", min(fused, patches), 2.3))
    return found


def main() -> int:
    """Prints the tables; returns 0 if the bounds hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="TrajViT-B, 4 frames, no verdict")
    parser.add_argument(
        "--sizes", type=_sizes, default="B,L", help=f"of {', '.join(SIZES)} (default: B,L)"
    )
    parser.add_argument("--rounds", type=_rounds, default=7, help="runs of each (default: 7)")
    parser.add_argument("--no-train", action="store_true", help="forward passes alone")
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path, default=None, help="also write the timings here")
    options = parser.parse_args()
    on_cpu = jax.default_backend() == "cpu"
    has_torch = on_cpu and not options.no_torch and importlib.util.find_spec("torch") is not None
    dtype = "float32" if on_cpu else "bfloat16"
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "dtype": dtype,
        "jax": jax.__version__,
    }
    errors = {"ours": golden_error(_GOLDENS / "trajvit_tiny.npz")}
    if has_torch:
        import torch

        from benchmarks import encoder_torch

        report |= {"torch": torch.__version__, "torch threads": torch.get_num_threads()}
        errors["PyTorch"] = encoder_torch.golden_error(_GOLDENS / "trajvit_tiny.npz")
        errors["ViT3D PyTorch"] = encoder_torch.vit3d_golden_error(_GOLDENS / "vit3d_vivit.npz")
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    for name, error in errors.items():
        print(f"from the released program's numbers, {name}: {error:.1e}")
        if not error <= _TOLERANCE:
            print(f"FAILS: {name} must be within {_TOLERANCE:g} before it is timed")
            return 1
    report["errors"] = errors

    frames, rounds = (4, 2) if options.quick else (16, options.rounds)
    kept = True
    for size in ["B"] if options.quick else options.sizes:
        train = not (options.no_train or options.quick)
        timings = measure(
            size, frames, dtype=dtype, rounds=rounds, with_torch=has_torch, train=train
        )
        print(f"\nTrajViT-{size}, {frames} x {_SIDE} x {_SIDE}, {_TRAJECTORIES} trajectories")
        print(table(timings))
        verdicts = bounds(size, timings, with_torch=has_torch) if on_cpu else []
        for bound in verdicts:
            print(bound)
            kept &= bound.holds
        report[size] = {
            "timings": [dataclasses.asdict(one) for one in timings],
            "bounds": [dataclasses.asdict(one) for one in verdicts],
        }
        if options.json:
            write_text(options.json, json.dumps(report, indent=2) + "\n")
    if options.quick:
        print("four frames prove little: the verdict needs the full run")
    return 0 if kept or options.quick else 1


def _sizes(text: str) -> list[str]:
    sizes = text.split(",")
    for size in sizes:
        if size not in SIZES:
            raise argparse.ArgumentTypeError(f"unknown size {size!r}: {nearest(size, SIZES)}")
    return sizes


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
