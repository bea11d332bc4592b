"""What more devices cost and save, from the compiled programs: collectives, FLOPs and memory.

  python -m benchmarks.scaling --json=scaling.json   # goes on where it was stopped
  python -m benchmarks.scaling --only=memory         # one of the two tables: ten minutes
  python -m benchmarks.scaling --quick               # 1 and 2 devices: under a minute

Weak scaling: 8 videos a device on 1 to 8 virtual CPU devices, a small model with every part of the
paper's. FLOPs and collectives are of the compiled program; its layers are unrolled, as XLA counts
the FLOPs of a loop's body once (what is left of loops draws random numbers and changes colours).
Exchanges within loops are multiplied. No time is told: virtual devices share the cores, and the
programs are compiled without most optimizations of machine code. Two bounds, and exit code 1 where
one does not hold: a device computes what one alone does, within 5%; and what reaches it is what
parameters and gradients need, and at most a fifth more.

Memory: the paper's models in their recipe, 256 videos a step, with parameters and optimizer
divided over 1 to 64 devices, by XLA's memory analysis. Nothing of it is allocated. It is the CPU
compiler's, which computes bfloat16 in float32; a GPU's does not, may fuse attention, and schedules
otherwise.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks.parts.command import parser_of, run_command
from benchmarks.parts.quick_programs import quick_programs
from tokenization.files import write_text
from tokenization.markdown import markdown_table
from trajvit_jax.run.provenance import commit

if TYPE_CHECKING:
    from benchmarks.parts.hlo import Collective
    from trajvit_jax.experiment import ExperimentSettings

_GIB, _MIB = 2.0**30, 2.0**20
_A_DEVICE = 8  # videos, of the small model
STORED = 256  # pixels a side of the records
_FLOPS_OFF, _RECEIVED_OVER = 0.05, 0.2  # the bounds


@dataclasses.dataclass(frozen=True)
class Case:
    """One compiled step.

    Attributes:
      model: 'trajvit' or 'vit3d'.
      size: of the encoder; 'small' is compiled in seconds.
      data: devices along that axis of the mesh, as are the next two.
      batch: videos a step.
      group: videos that share rows.
      remat: of the encoder's layers.
      micro_batches: parts that the encoders work on one after the other.
    """

    model: str = "trajvit"
    size: str = "L"
    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    batch: int = 256
    group: int = 8
    remat: str = "none"
    micro_batches: int = 1

    @property
    def devices(self) -> int:
        """Of the whole mesh."""
        return self.data * self.fsdp * self.tensor

    @property
    def mesh(self) -> str:
        """In words."""
        axes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        return " x ".join(f"{name}={size}" for name, size in axes.items() if size > 1) or "1 device"


def weak_cases(*, quick: bool) -> list[Case]:
    """Meshes of up to eight devices, and as many videos on each."""
    meshes = [(n, 1, 1) for n in ((1, 2) if quick else (1, 2, 4, 8))]
    meshes += [(1, n, 1) for n in ((2,) if quick else (2, 4, 8))]
    meshes += [] if quick else [(2, 2, 2)]
    return [Case("trajvit", "small", *mesh, batch=_A_DEVICE * mesh[0] * mesh[1]) for mesh in meshes]


def memory_cases() -> list[Case]:
    """The paper's models; devices share whole groups, so 64 of them take groups of 4.

    One device does not pool 256 videos of TrajViT at once: their coarse masks are more than 32-bit
    indices can number. There it takes two micro-batches.
    """
    found = []
    for model in ("trajvit", "vit3d"):
        for remat, meshes in (("none", (1, 2, 4, 8, 16, 32, 64)), ("layers", (8, 32))):
            for fsdp in meshes:
                group = min(8, 256 // fsdp)
                parts = 2 if (model, fsdp) == ("trajvit", 1) else 1
                case = Case(model, "L", fsdp=fsdp, group=group, remat=remat, micro_batches=parts)
                found.append(case)
    return found


def settings_of(case: Case) -> ExperimentSettings:
    """The paper's recipe, in the size of the case."""
    from trajvit_jax.config import to_settings
    from trajvit_jax.experiment import ExperimentSettings
    from trajvit_jax.recipe import pretraining

    size = "S" if case.size == "small" else case.size
    arguments = (
        f"model={case.model},size={size},batch={case.batch},micro_batches={case.micro_batches}"
    )
    if case.model == "trajvit":  # of no other do videos share rows
        arguments += f",group={case.group}"
    config = pretraining(arguments, videos=2_000_000, records="none")
    settings = to_settings(ExperimentSettings, config)
    model = dataclasses.replace(
        settings.model, encoder=dataclasses.replace(settings.model.encoder, remat=case.remat)
    )
    settings = dataclasses.replace(settings, model=model)
    return _small(settings) if case.size == "small" else settings


def _small(settings: ExperimentSettings) -> ExperimentSettings:
    """Every part of the model and of the step, in sizes that compile in seconds."""
    from trajvit_jax.data.packing import PackingSettings
    from trajvit_jax.models.settings import (
        EncoderSettings,
        ModelSettings,
        ResNetSettings,
        TextSettings,
        TrajViTSettings,
    )

    layers: dict[str, Any] = {"width": 256, "heads": 4, "mlp": 1024, "depth": 2, "unroll": 2}
    model = ModelSettings(
        frames=2,
        image_size=64,
        encoder=EncoderSettings(**layers),
        trajvit=TrajViTSettings(
            max_trajectories=63, resnet=ResNetSettings(16, (16, 32, 64, 128), (1, 1, 1, 1))
        ),
        text=TextSettings(**layers, vocabulary=1000, length=16),
    )
    stream = dataclasses.replace(
        settings.data.streams[0], frames=2, packing=PackingSettings(8, 1, 160)
    )
    data = dataclasses.replace(settings.data, streams=(stream,))
    return dataclasses.replace(settings, model=model, data=data)


def measure(case: Case) -> dict[str, Any]:
    """Compiles the step of one case, in this process, which has as many devices."""
    import jax

    from benchmarks.parts.hlo import collectives, loops
    from trajvit_jax.data.abstract import abstract_batch
    from trajvit_jax.optim import optimizer
    from trajvit_jax.sharding import MeshSettings, make_mesh, of_batch
    from trajvit_jax.state import TrainState
    from trajvit_jax.step import make_step

    settings, small = settings_of(case), case.size == "small"
    model, stream = settings.model, settings.data.streams[0]
    mesh = make_mesh(MeshSettings(case.data, case.fsdp, case.tensor), jax.devices())
    tx = optimizer(settings.optimizer, settings.steps)
    with jax.set_mesh(mesh):
        state = TrainState.shapes(model, tx, mesh=mesh)
        where = jax.tree.map(lambda shape: shape.sharding, state)
        step = make_step(tx, settings.step, model, seed=0, where=where)
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=of_batch(mesh)),
            abstract_batch(stream, model, stored=model.image_size if small else STORED),
        )
        started = time.perf_counter()
        compiled = step.lower(state, batch).compile()
        result = {"case": dataclasses.asdict(case), "compiling": time.perf_counter() - started}
        memory, text = compiled.memory_analysis(), compiled.as_text()
        found = collectives(text, case.devices)
        result |= {
            "parameters": state.parameters,
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "received": {kind: _received(found, kind) for kind in sorted({c.kind for c in found})},
            "sources": _sources(found),
            "loops": [dataclasses.asdict(loop) for loop in loops(text)],
        }
        if small:
            result["flops"] = (compiled.cost_analysis() or {})["flops"]
    return result


def _received(found: Sequence[Collective], kind: str) -> float:
    return sum(one.received for one in found if one.kind == kind)


def _sources(found: Sequence[Collective]) -> list[dict[str, Any]]:
    """The largest exchanges by where they come from."""
    sums: collections.Counter[tuple[str, str]] = collections.Counter()
    for one in found:
        sums[one.kind, one.name] += round(one.received)
    return [
        {"kind": kind, "name": name, "received": received}
        for (kind, name), received in sums.most_common(40)
    ]


def in_process(case: Case) -> dict[str, Any]:
    """`measure` in a process of its own, which has as many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={case.devices}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--case", json.dumps(vars(case))]
    environment = quick_programs(os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def weak_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one line a mesh."""
    head = ["mesh", "videos", "GFLOP a device", "MiB that reach a device: all"]
    lines = []
    for row in rows:
        case, received = Case(**row["case"]), dict(row["received"])
        total = sum(received.values())
        parts = [received.pop(kind, 0.0) for kind in ("all-reduce", "all-gather")]
        sizes = [f"{size / _MIB:.1f}" for size in (total, *parts, sum(received.values()))]
        lines.append([case.mesh, f"{case.batch}", f"{row['flops'] / 1e9:.1f}", *sizes])
    return markdown_table([*head, "all-reduce", "all-gather", "other"], lines)


def needed_bytes(case: Case, parameters: int) -> float | None:
    """What must reach a device over a ring for the parameters' sake, in float32.

    Gradients are summed, which takes their bytes twice; parameters that are divided are gathered
    for the forward pass and once more for the backward pass. None where `tensor` divides layers:
    it exchanges activations, too.
    """
    if case.tensor > 1:
        return None
    turns = 4 if case.fsdp > 1 else 2
    return turns * 4 * parameters * (case.devices - 1) / case.devices


def broken_bounds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each row of weak scaling that breaks a bound; the first is of one device."""
    broken, alone = [], rows[0]["flops"]
    for row in rows:
        case, received = Case(**row["case"]), sum(row["received"].values())
        ratio = row["flops"] / alone
        # A layer that `tensor` divides takes less of each device.
        if ratio > 1 + _FLOPS_OFF or (case.tensor == 1 and ratio < 1 - _FLOPS_OFF):
            broken.append(f"{case.mesh}: {ratio:.3f} times the FLOPs of one device")
        needed = needed_bytes(case, row["parameters"])
        if needed is not None and received > (1 + _RECEIVED_OVER) * needed:
            over = f"{received / _MIB:.1f} MiB reach a device, {needed / _MIB:.1f} are needed"
            broken.append(f"{case.mesh}: {over}")
    return broken


def memory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one line a model, remat and mesh."""
    head = ["model", "remat", "mesh", "videos a device", "GiB a device: state and batch"]
    head += ["temporary", "all", "GiB that reach a device a step"]
    lines = []
    names = {"trajvit": "TrajViT", "vit3d": "ViT3D"}
    for row in rows:
        case = Case(**row["case"])
        arguments, temporary = row["arguments"] / _GIB, row["temporary"] / _GIB
        received = sum(row["received"].values()) / _GIB
        parts = f", {case.micro_batches} micro-batches" if case.micro_batches > 1 else ""
        sizes = (arguments, temporary, arguments + temporary, received)
        lines.append(
            [
                f"{names[case.model]}-{case.size}",
                case.remat,
                f"{case.mesh}{parts}",
                f"{case.batch // (case.data * case.fsdp)}",
                *(f"{size:.1f}" for size in sizes),
            ]
        )
    return markdown_table(head, lines, left=3)


class Known:
    """Rows that were measured, kept in a file if one is named.

    Args:
      path: the file.
      made: what every row must have been measured with: versions, and the commit. Where files
        differ from the commit, it says nothing of the code, and no row is taken from the file.
    """

    def __init__(self, path: Path | None, made: Mapping[str, str]):
        self._path, self._made = path, dict(made)
        self._rows: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists() and not made["commit"].endswith("+"):
            for row in json.loads(path.read_text("utf-8")):
                if all(row.get(name) == value for name, value in made.items()):
                    self._rows[_key(Case(**row["case"]))] = row

    def __contains__(self, case: Case) -> bool:
        return _key(case) in self._rows

    def __getitem__(self, case: Case) -> dict[str, Any]:
        return self._rows[_key(case)]

    def add(self, case: Case, row: dict[str, Any]) -> None:
        """Keeps a row, and writes the file anew."""
        self._rows[_key(case)] = row | self._made
        if self._path is not None:
            write_text(self._path, json.dumps(list(self._rows.values()), indent=1) + "\n")


def _key(case: Case) -> str:
    return json.dumps(dataclasses.asdict(case), sort_keys=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; 1 if weak scaling breaks a bound."""
    parser = parser_of(
        __file__,
        __doc__,
        quick="weak scaling on 1 and 2 devices",
        numbers="keep the rows here; those that it has of the same commit are not measured again",
    )
    parser.add_argument("--only", choices=("weak", "memory"), default=None, help="one table")
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return 0

    import jax

    weak = weak_cases(quick=options.quick) if options.only != "memory" else []
    memory = memory_cases() if options.only != "weak" and not options.quick else []
    made = {"jax": jax.__version__, "commit": commit()}
    known = Known(options.json, made)
    missing = [case for case in weak + memory if case not in known]
    with tqdm(missing, unit="program", disable=None) as bar:
        for case in bar:
            bar.set_description(f"{case.model} {case.size}, {case.mesh}, {case.remat}")
            known.add(case, in_process(case))
    for cases, table in ((weak, weak_table), (memory, memory_table)):
        if cases:
            print(table([known[case] for case in cases]) + "\n")
    print(f"jax {made['jax']}, CPU compiler, commit {made['commit'] or 'unknown'}")
    broken = broken_bounds([known[case] for case in weak]) if weak else []
    for line in broken:
        print(f"DOES NOT HOLD: {line}")
    if weak and not broken:
        print("the bounds of weak scaling hold")
    return 1 if broken else 0


if __name__ == "__main__":
    run_command(main)
