"""The same training on one device, on eight, in micro-batches and in two processes."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tokenization.shards import write_records
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.settings import RLTSettings
from trajvit_jax.sharding import MeshSettings, check_batch, make_mesh, partition
from trajvit_jax.step import StepSettings
from trajvit_jax.train import train

SCRIPT = "sharded_run.py"


def assert_equal_losses(found: dict[str, list[float]], expected: list[float]) -> None:
    for mesh, values in found.items():
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=mesh)


def test_every_axis_and_micro_batches_at_once_are_one_device(start_script, printed):
    found = printed(start_script(SCRIPT, "1,1,1", "2,2,2,2", devices=8))
    assert len(set(found["1,1,1"])) == 10  # it learns something at every step
    assert_equal_losses(found, found["1,1,1"])


@pytest.mark.slow
def test_every_mesh_is_one_device(start_script, printed):
    meshes = ("1,1,1", "8,1,1", "1,8,1", "2,2,2", "1,1,1,4")
    found = printed(start_script(SCRIPT, *meshes, devices=8))
    assert_equal_losses(found, found["1,1,1"])


@pytest.mark.slow
def test_two_processes_are_one_device(start_script, printed, free_address):
    expected = printed(start_script(SCRIPT, "1,1,1", devices=1))["1,1,1"]
    cluster = {"TRAJVIT_COORDINATOR": free_address(), "TRAJVIT_PROCESSES": "2"}
    processes = [
        start_script(SCRIPT, "4,2,1", devices=4, TRAJVIT_PROCESS=str(number), **cluster)
        for number in range(2)
    ]
    for process in processes:
        assert_equal_losses(printed(process), expected)


def mesh_of(data: int, fsdp: int, tensor: int):
    shape = {"data": data, "fsdp": fsdp, "tensor": tensor}
    return jax.sharding.AbstractMesh(tuple(shape.values()), tuple(shape))


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("encoder.layers.mlp_in.kernel", (24, 1024, 4096), (None, "fsdp", "tensor")),
        (
            "encoder.layers.query_key_value.kernel",
            (24, 1024, 3, 1024),
            (None, "fsdp", None, "tensor"),
        ),
        ("encoder.layers.mlp_in.bias", (24, 4096), (None, "tensor")),
        ("encoder.layers.mlp_out.kernel", (24, 4096, 1022), (None, "tensor", None)),  # 1022 / 4
        ("text.word.embedding", (30524, 768), (None, "fsdp")),  # never by words
        ("tokenizer.appearance.norm.scale", (1024,), (None,)),  # too small to gather
        ("temperature", (), ()),
    ],
)
def test_where_parameters_lie(path, shape, expected):
    assert partition(path.split("."), shape, mesh_of(2, 4, 2)) == PartitionSpec(*expected)


def test_what_the_optimizer_keeps_lies_with_its_parameter():
    path = ["0", "mu", "encoder", "layers", "attention_out", "kernel"]
    assert partition(path, (2, 64, 64), mesh_of(1, 2, 2)) == PartitionSpec(None, "tensor", "fsdp")


def test_a_mesh_fills_its_devices():
    assert MeshSettings(data=-1, fsdp=2, tensor=2).shape(8) == (2, 2, 2)
    assert make_mesh(MeshSettings()).shape == {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(ValueError, match=r"fsdp=3, .* does not fill 8 devices.* product is 8"):
        MeshSettings(fsdp=3).shape(8)
    with pytest.raises(ValueError, match="one of them may be -1"):
        MeshSettings(data=-1, fsdp=-1)
    with pytest.raises(ValueError, match="at least 1"):
        MeshSettings(data=0)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as XLA names it: every host is a slice, and ids need not go host by host."""

    id: int
    process_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"

    @property
    def slice_index(self) -> int:
        return self.process_index


def test_hosts_of_gpus_are_one_mesh():
    """JAX's own `make_mesh` refuses them."""
    gpus = [Gpu(id=(i + 4) % 8, process_index=i // 4) for i in range(8)]
    mesh = make_mesh(MeshSettings(data=-1, tensor=2), gpus)
    assert mesh.shape == {"data": 4, "fsdp": 1, "tensor": 2}
    assert list(mesh.devices.flat) == gpus
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 3


def test_batches_that_devices_cannot_share_are_told(annotations_unchecked):
    mesh = mesh_of(4, 2, 1)
    check_batch("video", 64, 8, mesh)
    check_batch("video", 128, 8, mesh, micro_batches=2)
    with pytest.raises(ValueError, match="96 videos in groups of 8 cannot be shared by 8 devices"):
        check_batch("video", 96, 8, mesh)
    reason = "64 videos in groups of 8, in 2 micro-batches, cannot be .* a multiple of 128"
    with pytest.raises(ValueError, match=reason):
        check_batch("video", 64, 8, mesh, micro_batches=2)


def test_rows_of_rlt_are_groups_too(tiny, toy_record, tmp_path):
    """Two videos a row and two micro-batches: a batch of six has no rows of two in each."""
    write_records(tmp_path / "records", [toy_record(i) for i in range(6)])
    data = DataSettings(train=str(tmp_path / "records"), eval_split="train", batch=6, threads=1)
    model = tiny("rlt", rlt=RLTSettings(group=2, slots=20))
    settings = ExperimentSettings(model=model, data=data, step=StepSettings(micro_batches=2))
    with pytest.raises(ValueError, match="6 videos in groups of 2, in 2 micro-batches"):
        train(settings, tmp_path / "run")
