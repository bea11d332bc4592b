"""What eyes of either kind cost a Llama-3-8B: prefill FLOPs, memory of the cache and of devices.

  python -m benchmarks.llm_costs --json=costs.json    # some minutes; nothing is allocated
  python -m benchmarks.llm_costs --videos=panda.jsonl # counts trajectories of real clips first
  python -m benchmarks.llm_costs --quick              # a tiny model, few frames, 8 devices

Prefill: FLOPs of reading a video and a question of 64 tokens, counted by XLA in the lowered
program (its layers are unrolled, as XLA counts a loop's body once); the eyes' are by formula. How
videos are cut into trajectories is no part of it. The cache: of as many tokens as there are;
`llm.generation` makes room for a power of two. Memory of a device: the training step of either
eyes' connector (configs/videollm/llama3_8b.py), compiled for 8 to 64 virtual devices, 32
conversations a step and on 64 devices 64, as no group lies on two; as in `benchmarks.scaling`, the
CPU's compiler computes bfloat16 in float32, so that temporary memory is an upper bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json

_TEXT = 64  # tokens of a question with its marks
_FRAMES = (16, 32, 64, 128, 256)
_DEVICES = (8, 16, 32, 64)
# Of a video in the mean, by the default tokenizer on 80 clips of Panda-70M (2 to 10 s), at 4f6daf5;
# see --videos.
_TRAJECTORIES: Mapping[int, int] = {16: 60}
_CONFIG = "configs/videollm/llama3_8b.py"


@dataclasses.dataclass(frozen=True)
class Row:
    """One model at one number of frames.

    Attributes:
      trajectories: of a video; 0 for patches.
      counted: they were counted at this number of frames, and not taken over from fewer.
      tokens: that the language model reads of the video.
      llm: FLOPs of its prefill, by XLA.
      formula: the same, by `trajvit_jax.llm.costs`.
      eyes: FLOPs of the video encoder, less the layers that eyes leave out, by formula.
      cache: bytes of keys and values.
    """

    model: str
    frames: int
    trajectories: int
    counted: bool
    tokens: int
    llm: float
    formula: float
    eyes: float
    cache: int

    @property
    def total(self) -> float:
        """FLOPs of an answer's first token."""
        return self.llm + self.eyes


def rows(counts: Mapping[int, int], frames: Sequence[int], llama: str, size: str) -> list[Row]:
    """Both models at every number of frames; `counts` are trajectories by frames."""
    from trajvit_jax.llm.costs import cache_bytes, eyes_flops, prefill_flops
    from trajvit_jax.llm.eyes import EyesSettings
    from trajvit_jax.llm.settings import LLAMAS, LlamaSettings
    from trajvit_jax.models.settings import SIZES, ModelSettings, TrajViTSettings

    tiny = LlamaSettings(vocabulary=512, width=64, depth=2, heads=4, key_heads=2, mlp=128)
    llm = {**LLAMAS, "tiny": tiny}[llama]
    found = []
    for t in frames:
        n = _at(counts, t)
        for model in ("trajvit", "vit3d"):
            settings = ModelSettings(
                name=model,
                frames=t,
                encoder=SIZES[size],
                trajvit=TrajViTSettings(max_trajectories=n),
            )
            tokens = 1 + (n if model == "trajvit" else t // 2 * 196)
            found.append(
                Row(
                    model=model,
                    frames=t,
                    trajectories=n if model == "trajvit" else 0,
                    counted=model != "trajvit" or t in counts,
                    tokens=tokens,
                    llm=count_prefill(llm, tokens + _TEXT),
                    formula=float(prefill_flops(llm, tokens + _TEXT)),
                    eyes=float(eyes_flops(settings, EyesSettings())),
                    cache=cache_bytes(llm, tokens + _TEXT),
                )
            )
    return found


def _at(counts: Mapping[int, int], frames: int) -> int:
    """Trajectories at a number of frames: as counted, else as at the nearest fewer."""
    return counts[max(t for t in counts if t <= frames)]


def count_prefill(settings: Any, tokens: int) -> float:
    """XLA's count of reading so many tokens and telling one."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from trajvit_jax.llm.llama import Llama
    from trajvit_jax.models.flops import count_flops

    def of(depth: int) -> float:
        own = dataclasses.replace(settings, depth=depth, unroll=depth)
        graph, state = nnx.split(nnx.eval_shape(lambda: Llama(own, rngs=nnx.Rngs(0))))

        def prefill(state: nnx.State, x: jax.Array) -> jax.Array:
            model = nnx.merge(graph, state)
            ones = jnp.ones(x.shape[:2], jnp.int32)
            places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
            return model.logits(model(x, ones, places)[:, -1])

        x = jax.ShapeDtypeStruct((1, tokens, settings.width), jnp.dtype(settings.dtype))
        return count_flops(prefill, state, x)

    # Layers are alike: two and one tell what each adds.
    one, two = of(1), of(2)
    return one + (settings.depth - 1) * (two - one)


def count_trajectories(manifest: Path, frames: Sequence[int], most: int) -> dict[int, int]:
    """Mean trajectories of clips, by how many frames are sampled of them.

    Raises:
      ManifestError: what names no videos, or none that may be opened.
    """
    from tokenization import pipeline, video
    from tokenization.manifest import ManifestError, read_entries

    entries, found = [one for one in read_entries(manifest) if one.problem is None][:most], {}
    if not entries:
        raise ManifestError(f"{manifest} names no video that may be opened")
    for t in frames:
        settings = pipeline.PipelineSettings(frames=t)
        made = pipeline.build(settings)
        counts = []
        for entry in tqdm(entries, f"{t} frames", unit="clip", delay=5):
            decoded = video.decode(
                entry.path,
                frames=t,
                between=settings.between,
                start=entry.start,
                end=entry.end,
                max_side=settings.max_side,
            )
            counts.append(len(made.tokenize(decoded)))
        found[t] = round(statistics.mean(counts))
        print(f"{t} frames: {sorted(counts)} trajectories", flush=True)
    return found


def memory(devices: int, argument: str) -> dict[str, float]:
    """GiB of a device in the training step, by XLA; in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.llm_costs", f"--worker={argument}"],
        env=os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{devices} devices: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def memories(meshes: Sequence[int], *, quick: bool) -> list[dict[str, Any]]:
    """`memory` of both eyes' connectors on meshes of so many devices; prints each."""
    found = []
    with tqdm(total=2 * len(meshes), desc="compiling", unit="mesh") as bar:
        for model in ("trajvit", "vit3d"):
            for devices in meshes:
                # As many devices, as many groups.
                group = 1 if quick else 32 // min(devices, 32)
                batch = devices if quick else max(32, devices)
                # Of trajectories two conversations share a row; of patches a row holds one.
                rows_ = max(1, group // 2) if model == "trajvit" else group
                argument = f"model={model},group={group},rows={rows_},batch={batch}"
                own = memory(devices, argument + ",debug,length=256" * quick)
                found.append({"model": model, "devices": devices, "batch": batch} | own)
                bar.update()
                bar.write(
                    f"{model}, fsdp={devices}, {batch} conversations a step: "
                    f"{own['arguments']:.2f} GiB of parameters and batch, "
                    f"{own['temporary']:.2f} GiB temporary"
                )
    return found


def compile_step(argument: str) -> dict[str, float]:
    """Compiles the training step for this process's devices, and tells its memory."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from trajvit_jax import config as configs
    from trajvit_jax.llm.experiment import VideoLLMExperiment
    from trajvit_jax.llm.model import VideoLLM
    from trajvit_jax.llm.parts import is_trained
    from trajvit_jax.llm.sequences import Sequences
    from trajvit_jax.llm.step import Talks, make_step
    from trajvit_jax.optim import optimizer
    from trajvit_jax.sharding import make_mesh, of_batch, shardings
    from trajvit_jax.state import TrainState

    settings = configs.to_settings(VideoLLMExperiment, configs.load(f"{_CONFIG}:{argument}"))
    mesh, video, own = make_mesh(settings.mesh), settings.model, settings.rows
    batch = of_batch(mesh)

    def placed(tree: Any) -> Any:
        where = shardings(tree, mesh)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where
        )

    def shape(size: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(size), dtype, sharding=batch)

    model = nnx.eval_shape(lambda: VideoLLM(settings.both, rngs=nnx.Rngs(0)))
    graph, params, frozen = nnx.split(model, is_trained(settings.train), ...)
    tx = optimizer(settings.optimizer, settings.steps)
    opt_state = jax.eval_shape(tx.init, params)
    step = jnp.zeros((), jnp.int32)
    like = TrainState(step, params, nnx.State({}), opt_state, None, graph)
    like, frozen = placed(jax.eval_shape(lambda x: x, like)), placed(frozen)
    b, groups = settings.data.batch, settings.data.batch // own.group
    place, videos = (groups * own.rows, own.length), groups * own.places
    talks = Talks(
        video=shape((videos, video.frames, video.image_size, video.image_size, 3), jnp.uint8),
        labels=shape((videos, video.frames, video.grid, video.grid), jnp.int32),
        sequences=Sequences(
            ids=shape(place, jnp.int32),
            source=shape(place, jnp.int32),
            segment=shape(place, jnp.int32),
            target=shape(place, jnp.bool_),
        ),
        dropped=shape((b,), jnp.int32),
        present=shape((b,), jnp.bool_),
        unplaced=shape((b,), jnp.bool_),
    )
    with jax.set_mesh(mesh):
        update = make_step(
            tx,
            group=own.group,
            micro_batches=settings.micro_batches,
            block=settings.loss_block,
            where=jax.tree.map(lambda x: x.sharding, like),
        )
        found = update.lower(like, frozen, talks).compile().memory_analysis()
    gib = 2.0**30
    return {
        "arguments": found.argument_size_in_bytes / gib,
        "temporary": found.temp_size_in_bytes / gib,
    }


def table(found: Sequence[Row]) -> str:
    """For a person to read."""
    lines = ["frames  model    tokens   prefill TFLOP: LLM  eyes   total   KV cache"]
    for row in found:
        lines.append(
            f"{row.frames:6}  {row.model:8} {row.tokens:6}  {row.llm / 1e12:17.2f}  "
            f"{row.eyes / 1e12:5.2f}  {row.total / 1e12:6.2f}  {row.cache / 2**20:6.0f} MiB"
            + ("" if row.counted else "  trajectories assumed as at fewer frames")
            + ("  beyond the context of 8,192" if row.tokens + _TEXT > 8192 else "")
        )
    pairs = zip(found[::2], found[1::2], strict=True)
    for few, many in pairs:
        lines.append(
            f"{few.frames} frames: TrajViT takes {many.total / few.total:.1f}x fewer FLOPs, "
            f"{many.cache / few.cache:.1f}x less cache"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 0 if XLA and formulas agree."""
    parser = parser_of(__file__, __doc__, quick="a tiny model, 16 and 32 frames, 8 devices")
    parser.add_argument("--videos", type=Path, help="manifest or folder of clips to count on")
    parser.add_argument("--clips", type=count, default=6, help="of them, so many (6)")
    parser.add_argument("--no_memory", action="store_true", help="only the first table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        print(json.dumps(compile_step(options.worker)))
        return 0
    frames = _FRAMES[:2] if options.quick else _FRAMES
    counts = dict(_TRAJECTORIES)
    if options.videos:
        counts = count_trajectories(options.videos, frames, options.clips)
    llama, size = ("tiny", "S") if options.quick else ("llama3_8b", "L")
    found = rows(counts, frames, llama, size)
    print(table(found))
    told: dict[str, Any] = {"prefill": [dataclasses.asdict(row) for row in found]}
    if not options.no_memory:
        told["memory"] = memories(_DEVICES[: 1 if options.quick else None], quick=options.quick)
    write_json(options.json, told)
    worst = max(abs(row.llm / row.formula - 1) for row in found)
    said = f"XLA and the formula differ by {worst:.1%} at most"
    if options.quick:
        print(f"{said}; a tiny model proves nothing: the verdict needs the full run")
        return 0
    return tell_bounds({f"{said}, under 5%": worst < 0.05})


if __name__ == "__main__":
    run_command(main)
