"""Where a language model lies on a mesh, and that its losses do not depend on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from trajvit_jax.llm.hugging_face import abstract
from trajvit_jax.llm.settings import LLAMAS, to_hugging_face
from trajvit_jax.sharding import partition

MESH = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("llm.layers.query.kernel", (32, 4096, 4096), (None, "fsdp", "tensor")),
        ("llm.layers.key.kernel", (32, 4096, 1024), (None, "fsdp", "tensor")),
        ("llm.layers.attention_out.kernel", (32, 4096, 4096), (None, "tensor", "fsdp")),
        ("llm.layers.gate.kernel", (32, 4096, 14336), (None, "fsdp", "tensor")),
        ("llm.layers.mlp_out.kernel", (32, 14336, 4096), (None, "tensor", "fsdp")),
        ("llm.table.embedding", (128256, 4096), ("tensor", "fsdp")),
        ("llm.head.kernel", (4096, 128256), ("fsdp", "tensor")),
        ("llm.layers.norm_mlp.scale", (32, 4096), (None, "fsdp")),
        ("connector.bias", (4096,), (None,)),
    ],
)
def test_where_parameters_lie(path, shape, expected):
    assert partition(path.split("."), shape, MESH) == PartitionSpec(*expected)


def test_a_device_holds_its_share():
    """Of Llama-3-8B on 8 devices little more than an eighth."""
    settings = LLAMAS["llama3_8b"]
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(abstract(settings))))
    own = 0
    for path, leaf in leaves:
        spec = partition([key.key for key in path], leaf.shape, MESH)
        own += leaf.size // np.prod([MESH.shape[axis] for axis in spec if axis])
    assert 1 <= own / (settings.parameters / 8) < 1.01


@pytest.mark.slow
def test_losses_are_the_same_on_any_mesh(written, golden_settings):
    folder = written("llama", shard_bytes=60_000)
    (folder / "config.json").write_text(json.dumps(to_hugging_face(golden_settings["llama"])))
    script = Path(__file__).parent / "sharded_talks.py"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    meshes = ["1,1,1", "1,8,1", "2,2,2", "8,1,1"]
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *meshes],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    expected, _ = found["1,1,1"]
    assert expected[-1] < expected[0]
    for mesh, (losses, where) in found.items():
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=mesh)
        assert "fsdp" in where, mesh
