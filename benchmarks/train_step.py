"""The training step of TrajViT and ViT3D: videos a second, use of the hardware, memory, parts.

  python -m benchmarks.train_step                       # on an accelerator: ViT-L, bfloat16
  python -m benchmarks.train_step --batch=64 --no_parts # no search for the largest batch
  python -m benchmarks.train_step --remat=layers --models=vit3d --json=step.json
  python -m benchmarks.train_step --quick               # under a minute on a CPU: does it run?

The step is that of the paper's recipe (configs/panda4m.py): records of 16 frames of 256 pixels,
augmented and cropped to 224 in the step, packed rows, contrastive loss, AdamW. One device. The
batch is the largest that fits: doubled until the device has no memory left, then bisected in whole
groups of videos; each attempt is a process of its own, with as much of the memory as
launch/run_host.sh gives to training. One whose coarse masks are more than 32-bit indices can number
does not fit, either; --micro_batches=2 halves them. Data is noise that lies on the device, with the
token counts of Panda-70M clips. 'compiling s' is of the search, as what comes after it loads the
program; with JAX_COMPILATION_CACHE_DIR set, the search may do so, too.

MFU is 3 x the FLOPs that XLA counts, before it optimizes, for embedding the videos and captions,
over time and the device's dense bfloat16 peak by its data sheet; what is computed twice does not
count. The time of the step's parts is told twice: from a profile of three steps, by the scopes that
operations come from; and of programs of their own, forward and backward, timed in turn on the same
batch (or a half of it, where they do not fit). These need not add up to the step, in which XLA
fuses across their borders. While it is profiled, a GPU is given operations one by one, not in the
command buffers of the timed steps, and is `idle` for longer than in these.

On a CPU: float32, the tiny model of `debug`, a batch of 16, and no verdict.
"""

from __future__ import annotations

import argparse
import atexit
import dataclasses
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.parts.arguments import count, some_of
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from benchmarks.parts.quick_programs import quick_programs
from benchmarks.parts.train_step_run import DEBUG, Attempt, measure
from tokenization.markdown import markdown_table
from trajvit_jax.config import nearest
from trajvit_jax.models.settings import SIZES
from trajvit_jax.run.provenance import commit

MODELS = {"trajvit": "TrajViT", "vit3d": "ViT3D"}
PROFILED = 3  # steps
TRANSFORMER_MFU, TIMES_FASTER = 0.45, 4.0  # the bounds: at least
MEMORY = "0.92"  # of a GPU's, as in launch/run_host.sh; JAX's own is 0.75
# Names of it, the new one first; JAX ends where both are set.
FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def in_process(attempt: Attempt) -> dict[str, Any]:
    """`measure` in a process of its own, so that each finds the memory empty.

    What they compile alike, they compile once. The tiny model is compiled without most
    optimizations: its times mean nothing.

    Raises:
      RuntimeError: it failed for another reason than its size.
    """
    command = [sys.executable, "-m", "benchmarks.train_step"]
    command += ["--attempt", json.dumps(dataclasses.asdict(attempt))]
    environment = {"JAX_COMPILATION_CACHE_DIR": _cache()} | os.environ
    if not any(os.environ.get(name) for name in FRACTIONS):
        environment[FRACTIONS[-1]] = MEMORY
    if attempt.size == DEBUG:
        environment = quick_programs(environment)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if too_large(done.stderr) or done.returncode == -9:
        return {"attempt": dataclasses.asdict(attempt), "fits": False}
    raise RuntimeError(f"{attempt} failed:\n{done.stderr[-2000:]}")


@functools.cache
def _cache() -> str:
    folder = tempfile.mkdtemp(prefix="train_step.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def too_large(text: str) -> bool:
    """Whether an error message is of a device without memory left, or of masks without a number."""
    told = ("resource_exhausted", "out of memory", "32-bit indices")
    return any(words in text.lower() for words in told)


def largest(fits: Callable[[int], bool], group: int, most: int) -> int:
    """The largest multiple of `group` that fits, to an eighth: doubling, then bisecting.

    Args:
      fits: whether a batch of so many does.
      group: the smallest batch, and what all are multiples of.
      most: no batch is larger.

    Raises:
      RuntimeError: the smallest does not fit.
    """
    good, bad = 0, 0
    size = group
    while size <= most:
        if not fits(size):
            bad = size
            break
        good, size = size, 2 * size
    if not good:
        raise RuntimeError(f"a batch of {group} does not fit; try --remat=layers or --group=1")
    while bad and bad - good > max(group, good // 8):
        middle = (good + bad) // 2 // group * group
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one line a model."""
    head = ("model", "batch", "slots a video", "ms a step")
    lines = []
    for one in results:
        seconds, batch = statistics.median(one["seconds"]), one["attempt"]["batch"]
        peak, memory = one["peak_flops"], one["peak_memory"]
        cells = (
            _name(one),
            f"{batch}",
            f"{one['slots'] / batch:.0f}",
            f"{1e3 * seconds:.1f}",
            f"{one['videos_a_second']:.1f}",
            f"{one['flops'] / seconds / peak:.0%}" if peak else "-",
            f"{memory / 1e9:.1f}" if memory else "-",
            f"{one['compiling']:.0f}",
        )
        lines.append(cells)
    return markdown_table((*head, "videos/s", "MFU", "peak GB", "compiling s"), lines)


def parts_table(results: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: milliseconds a video of each part, and of the whole step beside their sum."""
    names = list(dict.fromkeys(name for one in results for name in one["parts"]))
    head = ("model", "batch", *names, "sum", "the step")
    lines = []
    for one, step in zip(results, steps, strict=True):
        batch = one["attempt"]["batch"]
        found = [one["parts"].get(name) for name in names]
        whole = statistics.median(step["seconds"]) / step["attempt"]["batch"]
        cells = [_name(one), f"{batch}"]
        cells += ["-" if x is None else f"{1e3 * x / batch:.2f}" for x in found]
        cells += [f"{1e3 * sum(one['parts'].values()) / batch:.2f}", f"{1e3 * whole:.2f}"]
        lines.append(cells)
    return markdown_table(head, lines)


def _name(one: Mapping[str, Any]) -> str:
    return f"{MODELS[one['attempt']['model']]}-{one['attempt']['size']}"


def verdicts(
    steps: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]]
) -> dict[str, bool]:
    """What an accelerator must show: a line, and whether it holds."""
    found = {}
    for one in parts:
        if one["attempt"]["model"] == "vit3d" and one["peak_flops"]:
            mfu = one["transformer_flops"] / one["parts"]["transformer"] / one["peak_flops"]
            text = f"ViT3D's transformer uses {mfu:.0%} of the peak (bound {TRANSFORMER_MFU:.0%})"
            found[text] = mfu >= TRANSFORMER_MFU
    rates = {one["attempt"]["model"]: one["videos_a_second"] for one in steps}
    if rates.keys() >= {"trajvit", "vit3d"}:
        ratio = rates["trajvit"] / rates["vit3d"]
        text = f"TrajViT makes {ratio:.1f}x ViT3D's videos a second (bound {TIMES_FASTER:g}x)"
        found[text] = ratio >= TIMES_FASTER
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 1 if a bound does not hold on an accelerator."""
    parser = parser_of(__file__, __doc__, quick="the tiny model, a round of two steps")
    parser.add_argument(
        "--models", type=some_of(MODELS), default=list(MODELS), help="(trajvit,vit3d)"
    )
    parser.add_argument("--size", default="", help=f"{', '.join(SIZES)} or {DEBUG}")
    parser.add_argument("--batch", type=count, default=0, help="no search for the largest")
    parser.add_argument("--most", type=count, default=1024, help="largest batch that is tried")
    parser.add_argument("--group", type=count, default=8, help="videos that share rows")
    parser.add_argument(
        "--remat",
        choices=("none", "layers", "products"),
        default="none",
        help="what the backward pass computes again (none)",
    )
    parser.add_argument("--micro_batches", type=count, default=1, help="of a step (1)")
    parser.add_argument("--deterministic", action="store_true", help="see `model.deterministic`")
    parser.add_argument("--no_parts", action="store_true", help="the whole step alone")
    parser.add_argument("--attempt", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.attempt:
        print(json.dumps(measure(Attempt(**json.loads(options.attempt)))))
        return 0
    backend, version, device = _device()
    on_cpu = backend == "cpu"
    size = options.size or (DEBUG if on_cpu or options.quick else "L")
    if size != DEBUG and size not in SIZES:
        parser.error(f"unknown size {size!r}: {nearest(size, (*SIZES, DEBUG))}")
    batch = options.batch or (16 if on_cpu or options.quick else 0)

    made = {"device": device, "jax": version, "commit": commit()}
    print(f"{device}, jax {version}, commit {made['commit'] or 'unknown'}")
    steps, parts = [], []
    for model in options.models:
        attempt = Attempt(
            model,
            size,
            batch or options.group,
            group=2 if size == DEBUG else options.group,
            remat=options.remat,
            micro_batches=options.micro_batches,
            dtype="float32" if on_cpu else "bfloat16",
            steps=2 if options.quick else 10,
            rounds=1 if options.quick else 5,
            profiled=0 if options.no_parts else PROFILED,
            deterministic=options.deterministic,
        )
        first: dict[str, float] = {}
        if not batch:
            most, first = _largest(attempt, options.most)
            attempt = dataclasses.replace(attempt, batch=most)
        steps.append(_fitting(attempt) | first)
        print(f"{_name(steps[-1])}: {steps[-1]['videos_a_second']:.1f} videos/s", flush=True)
        if not options.no_parts:
            parts.append(_fitting(dataclasses.replace(attempt, parts=True)))
    print("\n" + table(steps))
    profiles = [one | {"parts": one["profile"]} for one in steps if one.get("profile")]
    if profiles:
        print(f"\nms a video of {PROFILED} profiled steps, on a GPU without command buffers\n")
        print(parts_table(profiles, profiles))
    elif not options.no_parts:
        print("\nno profile: the profiler saw no operation of the steps")
    if parts:
        print("\nms a video of programs of their own\n\n" + parts_table(parts, steps))
    found = {} if on_cpu or size == DEBUG else verdicts(steps, parts)
    code = tell_bounds(found)
    if not found:
        print("\nno verdict: its bounds are for ViT-L on an accelerator")
    write_json(options.json, made | {"steps": steps, "parts": parts})
    return code


def _largest(attempt: Attempt, most: int) -> tuple[int, dict[str, float]]:
    """The largest batch, and `compiling` of its first attempt: a later one loads the program."""
    compiling: dict[int, float] = {}

    def fits(batch: int) -> bool:
        print(f"{attempt.model}: a batch of {batch} ...", file=sys.stderr, flush=True)
        one = dataclasses.replace(attempt, batch=batch, steps=1, rounds=1, profiled=0)
        found = in_process(one)
        if found["fits"]:
            compiling[batch] = found["compiling"]
        return found["fits"]

    batch = largest(fits, attempt.group, most)
    return batch, {"compiling": compiling[batch]}


def _fitting(attempt: Attempt) -> dict[str, Any]:
    """The attempt's result; its parts, which keep what they read, may need a smaller batch."""
    result = in_process(attempt)
    if result["fits"]:
        return result
    smaller = attempt.batch // 2 // attempt.group * attempt.group
    if not attempt.parts or not smaller:
        raise SystemExit(f"error: a batch of {attempt.batch} does not fit; take a smaller --batch")
    return _fitting(dataclasses.replace(attempt, batch=smaller))


def _device() -> tuple[str, str, str]:
    """Backend, device and JAX, asked of another process: this one must leave its memory alone."""
    ask = "import jax; print(jax.default_backend(), jax.__version__, jax.devices()[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    backend, version, kind = done.stdout.splitlines()[-1].split(maxsplit=2)
    return backend, version, kind


if __name__ == "__main__":
    run_command(main)
