"""What more devices cost and save, from the compiled programs: collectives, FLOPs and memory.

Weak scaling: 32 videos a device on 1 to 8 virtual CPU devices. For each mesh: FLOPs a device,
bytes a device that collectives bring, and the time of a step (virtual devices share the
cores: the time says little). Memory: TrajViT-L at 256 videos, with parameters and optimizer
divided over 1 to 64 devices, by XLA's memory analysis. It is the CPU compiler's: the GPU's
fuses attention and schedules otherwise.

  python -m benchmarks.scaling            # some minutes; nothing as large is ever allocated
  python -m benchmarks.scaling --quick    # 1 and 2 devices, a small model
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DTYPES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_DTYPES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Case:
    """One compiled step.

    Attributes:
      size: of the model: 'L', or 'small', whose layers are unrolled so that XLA counts all.
      data: devices along that axis, as are the next two.
      batch: videos a step.
      run: whether it is run and timed, too.
    """

    size: str
    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    batch: int = 256
    run: bool = False

    @property
    def devices(self) -> int:
        """Of the whole mesh."""
        return self.data * self.fsdp * self.tensor

    @property
    def mesh(self) -> str:
        """In words."""
        axes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        return " x ".join(f"{name}={size}" for name, size in axes.items() if size > 1) or "1 device"


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes that each kind of collective of an HLO program hands a device, by kind.

    Loops count once; of an asynchronous pair, its start does.
    """
    found = dict.fromkeys(_COLLECTIVES, 0)
    pattern = re.compile(rf"= (.*?) ({'|'.join(_COLLECTIVES)})(?:-start)?\(")
    for line in program.splitlines():
        if match := pattern.search(line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            found[match[2]] += sum(_bytes(*shape) for shape in shapes)
    return found


def _bytes(dtype: str, shape: str) -> int:
    count = 1
    for size in filter(None, shape.split(",")):
        count *= int(size)
    return count * _DTYPES.get(dtype, 4)


def measure(case: Case) -> dict[str, Any]:
    """Compiles the step of one case, in this process, which has as many devices."""
    import jax

    from trajvit_jax.models.settings import SIZES, ModelSettings, ResNetSettings, TextSettings
    from trajvit_jax.optim import OptimizerSettings, optimizer
    from trajvit_jax.sharding import MeshSettings, make_mesh, of_batch
    from trajvit_jax.state import TrainState
    from trajvit_jax.step import StepSettings, make_step

    if case.size == "small":
        jax.config.update("jax_disable_most_optimizations", True)
        encoder = dataclasses.replace(SIZES["S"], width=128, depth=4, heads=4, mlp=512, unroll=4)
        model = ModelSettings(image_size=64, frames=4, encoder=encoder)
        model = dataclasses.replace(
            model,
            trajvit=dataclasses.replace(
                model.trajvit, resnet=ResNetSettings(8, (8, 16, 32, 64), (1, 1, 1, 1))
            ),
            text=TextSettings(width=128, depth=2, heads=4, mlp=512, unroll=2, vocabulary=1000),
        )
    else:
        encoder = dataclasses.replace(SIZES[case.size], remat="layers")
        model = ModelSettings(encoder=encoder, dtype="bfloat16")
    mesh = make_mesh(MeshSettings(case.data, case.fsdp, case.tensor), jax.devices())
    tx = optimizer(OptimizerSettings(), 1000)
    with jax.set_mesh(mesh):
        state = TrainState.shapes(model, tx, mesh=mesh)
        where = jax.tree.map(lambda shape: shape.sharding, state)
        step = make_step(tx, StepSettings(), model, seed=0, where=where)
        batch = jax.tree.map(lambda x: _placed(x, of_batch(mesh)), abstract_batch(model, case))
        compiled = step.lower(state, batch).compile()
        memory = compiled.memory_analysis()
        cost = compiled.cost_analysis() or {}
        result = dataclasses.asdict(case) | {
            "mesh": case.mesh,
            "flops": cost.get("flops", float("nan")),
            "collectives": collective_bytes(compiled.as_text()),
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
        }
        if case.run:
            result["seconds"] = _time(compiled, state, batch)
    return result


def _placed(x: Any, sharding: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def abstract_batch(model: Any, case: Case) -> Any:
    """Shapes of a packed batch: groups of at most eight videos, which devices do not share."""
    import jax
    import numpy as np

    from trajvit_jax.data.batch import Batch
    from trajvit_jax.models.tokens import Rows

    b, t = case.batch, model.frames
    group = min(8, b // (case.data * case.fsdp))
    groups = b // group
    rows, slots = max(1, group // 4), 720 if case.size != "small" else 120

    def shape(dtype: Any, *sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype)

    return Batch(
        video=shape(np.uint8, b, t, model.image_size, model.image_size, 3),
        labels=shape(np.int32, b, t, model.grid, model.grid),
        text=shape(np.int32, b, model.text.length),
        text_mask=shape(np.bool_, b, model.text.length),
        caption_hash=shape(np.uint32, b, 2),
        dropped=shape(np.int32, b),
        sample=shape(np.uint32, b, 2),
        epoch=shape(np.int32, b),
        rows=Rows(
            shape(np.int32, groups, rows, slots),
            shape(np.int32, groups, rows, slots),
            shape(np.int32, groups, group),
        ),
    )


def _time(compiled: Any, state: Any, batch: Any) -> float:
    """Median seconds of a step on zeros."""
    import jax
    import jax.numpy as jnp

    def zeros(x: Any) -> Any:
        return jax.device_put(jnp.zeros(x.shape, x.dtype), x.sharding)

    state, batch = jax.tree.map(zeros, state), jax.tree.map(zeros, batch)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[1]


def in_process(case: Case) -> dict[str, Any]:
    """`measure` in a process of its own, which has as many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={case.devices}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--case", json.dumps(vars(case))]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cases(*, quick: bool) -> list[Case]:
    """What is compiled."""
    scaled = (1, 2) if quick else (1, 2, 4, 8)
    found = [Case("small", data=n, batch=32 * n, run=True) for n in scaled]
    found += [Case("small", fsdp=n, batch=32 * n, run=True) for n in scaled[1:]]
    if not quick:
        found.append(Case("small", data=2, fsdp=2, tensor=2, batch=128, run=True))
        found += [Case("L", fsdp=n) for n in (1, 2, 4, 8, 16, 32, 64)]
    return found


def row(result: Mapping[str, Any]) -> str:
    """A line of the table (Markdown)."""
    moved = ", ".join(
        f"{kind} {size / 2**20:.1f}" for kind, size in result["collectives"].items() if size
    )
    seconds = f"{result['seconds']:.2f}" if "seconds" in result else ""
    return (
        f"| {result['size']} | {result['mesh']} | {result['batch']} | "
        f"{result['flops'] / 1e9:.1f} | {moved or '0'} | {result['arguments'] / _GIB:.2f} | "
        f"{result['temporary'] / _GIB:.2f} | {seconds} |"
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows here")
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return 0
    print(
        "| model | mesh | videos | GFLOP a device | MiB a device, collectives | GiB arguments "
        "a device | GiB temporary a device | s |"
    )
    print("|---|---|---:|---:|---|---:|---:|---:|")
    results = []
    for case in cases(quick=options.quick):
        results.append(in_process(case))
        print(row(results[-1]), flush=True)
    print("\nLoops count once in GFLOP and collectives: 'small' has none over layers, L does.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
