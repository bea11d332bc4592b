"""TrajViT's encoder, stage by stage: fast paths, plain formulas, ViT3D, and PyTorch.

Example:
  python -m benchmarks.encoder                 # TrajViT-B and -L, 16 x 224 x 224, 150 trajectories
  python -m benchmarks.encoder --quick         # two layers, small frames: does everything run?
  python -m benchmarks.encoder --sizes=B --only=forward --json=encoder.json

Everything runs in turn in one process, and the bounds are ratios of what ran in the same round;
training steps, of which there are no bounds, run one model after the other.
Where torch is installed (make sam2), the released program's formulation and a ViT3D with fused
attention run beside ours on CPU, in eager mode, after both sides have shown that they give the
released program's numbers. 'as released' is ours with its position features, and what its
formulation is compared with. Stages are cut a little differently there: its pooling makes the
boxes, which ours makes in the resamplers.

A training step is that of the encoder: both passes and AdamW, without text and contrastive loss.

FLOPs are counted by XLA before it optimizes, without what a backward pass computes again, and
rates stand beside the device's own for a large product and a large copy of the same run. 'temp MB'
is what a compiled program allocates beside its inputs and outputs; for PyTorch, by how much the
process grew, outputs and gradients included.
On an accelerator ours computes in bfloat16, and there is no verdict: its bounds are for CPUs.
Bounds that a run leaves out are named at its end.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts import encoder_jax
from benchmarks.parts.arguments import count, some_of
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.quick_programs import use_quick_programs
from benchmarks.parts.timing import (
    Contender,
    Timing,
    race,
    ratio,
    share,
    table,
)
from trajvit_jax.convert.official import encode_video
from trajvit_jax.models.settings import SIZES, EncoderSettings
from trajvit_jax.models.video_text import normalize_pixels

_GOLDENS = Path(os.environ.get("TRAJVIT_GOLDENS", "tests/goldens"))
_TRAJECTORIES, _A_FRAME, _SIDE = 150, 60, 224
_TOLERANCE = 2e-5
PARTS = ("forward", "training")
# Every stage of a model that compiles in seconds; its ratios say nothing about the bounds.
_QUICK = {"frames": 2, "side": 64, "trajectories": 20, "a_frame": 9}


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
    # As unequal as a model's: equal numbers take a GPU less power, and it multiplies them faster.
    square = jax.random.normal(jax.random.key(0), (side, side), dtype)
    line = jnp.ones((cells,), jnp.float32)
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
    encoder: EncoderSettings,
    clip: encoder_jax.Clip,
    trajectories: int,
    *,
    dtype: str,
    rounds: int,
    with_torch: bool,
    parts: Collection[str] = PARTS,
) -> list[Timing]:
    """Times every stage, the forward pass and the training step of one encoder.

    Args:
      encoder: of all models.
      clip: what they read.
      trajectories: slots for them.
      dtype: what ours compute in.
      rounds: runs of each.
      with_torch: PyTorch's beside ours.
      parts: of `PARTS`; a training step runs in half as many rounds.
    """
    ours = (encoder, clip, trajectories)
    theirs = (encoder, np.asarray(clip.video), np.asarray(clip.labels), trajectories)
    contenders = ceilings(dtype)
    if "forward" in parts:
        contenders += encoder_jax.stages(*ours, dtype=dtype)
        contenders += encoder_jax.forwards(*ours, dtype=dtype)
        if with_torch:
            contenders += _torch_contenders(*theirs, train=False)
    timings = race(contenders, rounds)
    if "training" in parts:
        del contenders
        # One after the other: five models of this size and their moments are no machine's memory.
        for one in encoder_jax.training(*ours, dtype=dtype):
            timings += race([one], max(1, rounds // 2))
            del one
        if with_torch:
            timings += race(_torch_contenders(*theirs, train=True), max(1, rounds // 2))
    return timings


def _torch_contenders(*what: Any, train: bool) -> list[Contender]:
    from benchmarks.parts import encoder_torch

    return encoder_torch.contenders(*what, train=train)


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


def unchecked(
    sizes: Collection[str], parts: Collection[str], *, with_torch: bool, on_cpu: bool
) -> list[str]:
    """The bounds that a run of these sizes and parts does not look at, and what they would take."""
    if not on_cpu:
        return ["all bounds: they are for CPUs"]
    if "forward" not in parts:
        return ["all bounds: they are of forward passes (--only=forward)"]
    missing = []
    if "B" not in sizes:
        missing.append("the forward pass against others: --sizes=B")
    elif not with_torch:
        missing.append("the released formulation and the fastest ViT3D: PyTorch (make sam2)")
    if "L" not in sizes:
        missing.append("memory of pooling: --sizes=L")
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 0 if the bounds that it checks hold."""
    parser = parser_of(__file__, __doc__, quick="a tiny model, no verdict")
    parser.add_argument(
        "--sizes", type=some_of(SIZES), default="B,L", help=f"of {', '.join(SIZES)} (default: B,L)"
    )
    parser.add_argument("--rounds", type=count, default=7, help="runs of each (default: 7)")
    parser.add_argument("--only", choices=PARTS, help="of the two")
    parser.add_argument("--no_torch", action="store_true", help="ours alone")
    options = parser.parse_args(arguments)
    if options.quick:
        use_quick_programs()
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

        from benchmarks.parts import encoder_torch

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

    if options.quick:
        clip, small = encoder_jax.Clip.random(**_QUICK), dataclasses.replace(SIZES["S"], depth=2)
        timings = measure(
            small,
            clip,
            _QUICK["trajectories"],
            dtype=dtype,
            rounds=1,
            with_torch=has_torch,
        )
        print(f"\nTrajViT-S of two layers, {_shape(clip)}")
        print(table(timings))
        print("everything runs; a model this small proves no ratio: the verdict needs the full run")
        write_json(options.json, report | {"quick": {"timings": _plain(timings)}})
        return 0
    parts = [options.only] if options.only else PARTS
    kept, clip = True, encoder_jax.Clip.random(16, _SIDE, _TRAJECTORIES, _A_FRAME)
    for size in options.sizes:
        timings = measure(
            SIZES[size],
            clip,
            _TRAJECTORIES,
            dtype=dtype,
            rounds=options.rounds,
            with_torch=has_torch,
            parts=parts,
        )
        print(f"\nTrajViT-{size}, {_shape(clip)}, {_TRAJECTORIES} trajectories")
        print(table(timings))
        judged = on_cpu and "forward" in parts
        verdicts = bounds(size, timings, with_torch=has_torch) if judged else []
        for bound in verdicts:
            print(bound)
            kept &= bound.holds
        report[size] = {"timings": _plain(timings), "bounds": _plain(verdicts)}
        write_json(options.json, report)
    for bound in unchecked(options.sizes, parts, with_torch=has_torch, on_cpu=on_cpu):
        print(f"not checked: {bound}")
    return 0 if kept else 1


def _shape(clip: encoder_jax.Clip) -> str:
    return " x ".join(str(length) for length in clip.video.shape[1:4])


def _plain(found: Sequence[Timing | Bound]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in found]


if __name__ == "__main__":
    run_command(main)
