"""Memory on a device: chunks as large as fit, halved when they do not; frames as images."""

from __future__ import annotations

import numpy as np
import pytest

from tokenization.engines.protocol import WorkerUnfit
from tokenization.learned import DeviceSettings

pytestmark = pytest.mark.torch

FREE = 1000
PER_ITEM = 10  # with the probe of 8 items: half of the free memory holds 50


@pytest.fixture(scope="module")
def devices(torch):
    from tokenization import devices

    return devices


@pytest.fixture
def chunks(devices, torch, monkeypatch):
    """Chunks on a device that is not there, whose memory is what `work` says."""
    used = {"peak": 0, "emptied": 0}
    for name, fake in {
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: 0,
        "memory_reserved": lambda _: 0,
        "max_memory_allocated": lambda _: used["peak"],
        "mem_get_info": lambda _: (FREE, 2 * FREE),
        "empty_cache": lambda: used.update(emptied=used["emptied"] + 1),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return devices.Chunks(torch.device("cuda")), used


def test_chunks_are_planned_by_what_the_first_one_took(chunks):
    planned, used = chunks
    done = []

    def work(part: slice) -> None:
        done.append((part.start, part.stop))
        used["peak"] = PER_ITEM * (part.stop - part.start)

    planned.run(120, work)
    assert done == [(0, 8), (8, 58), (58, 108), (108, 120)]
    planned.run(60, work)
    assert done[4:] == [(0, 50), (50, 60)]


def test_heavier_items_are_measured_anew_and_few_ones_not_at_all(chunks):
    planned, used = chunks
    done = []

    def work(load: int):
        def one(part: slice) -> None:
            done.append(part.stop - part.start)
            used["peak"] = 100 + 5 * load * (part.stop - part.start)

        return one

    planned.run(1, work(2), load=2)
    assert planned.size is None, "its fixed cost is not that of every item"
    planned.run(40, work(2), load=2)
    assert planned.size == int(500 * 8 / 180) == 22
    planned.run(30, work(1), load=1)
    assert done == [1, 8, 22, 10, 22, 8], "lighter ones fit, too"
    planned.run(30, work(6), load=6)
    assert done[6:] == [8, 11, 11] and planned.size == 11


def test_out_of_memory_halves_chunks_for_good(chunks, torch):
    planned, used = chunks
    done = []

    def work(part: slice) -> None:
        if part.stop - part.start > 15:
            raise torch.OutOfMemoryError
        done.append((part.start, part.stop))
        used["peak"] = PER_ITEM * (part.stop - part.start)

    planned.run(40, work)
    # Planned are 50: the 32 that are left, then 16 do not fit.
    assert done == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40)]
    assert planned.size == 8
    assert used["emptied"] == 2


def test_one_item_that_does_not_fit_is_an_error(chunks, torch):
    planned, _ = chunks

    def work(part: slice) -> None:
        raise torch.OutOfMemoryError("not enough")

    with pytest.raises(torch.OutOfMemoryError, match="not enough"):
        planned.run(9, work)


def test_a_fixed_size_is_kept_on_a_cpu(devices, torch):
    done = []
    devices.Chunks(torch.device("cpu"), 4).run(9, lambda part: done.append(part.stop - part.start))
    assert done == [4, 4, 1]


def test_devices(devices, torch):
    assert devices.Device(DeviceSettings("cpu")).bfloat16 is False
    assert devices.Device(DeviceSettings("cpu", precision="bfloat16")).bfloat16 is True
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"there is no device '{name}'.*use 'auto'"):
            devices.Device(DeviceSettings(name))


def test_a_device_that_fails_is_no_fault_of_the_video(devices, torch):
    def fail(error):
        with devices.faults():
            raise error

    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        torch.AcceleratorError("CUDA error: device-side assert triggered\nCompile with ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ):
        with pytest.raises(WorkerUnfit, match=r"the device failed \(\w+: .*\)$"):
            fail(error)
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised:
        fail(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not isinstance(raised.value, WorkerUnfit)


def test_a_gpu_that_cannot_be_used_is_not_replaced_by_the_cpu(devices, torch, monkeypatch):
    """A worker whose driver has gone would go on a hundred times slower, and say nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(devices, "visible_gpus", lambda: ("3",))
    with pytest.raises(WorkerUnfit, match=r"cannot use the GPU \(3\): check its driver"):
        devices.Device(DeviceSettings())
    assert devices.Device(DeviceSettings("cpu")).torch.type == "cpu"
    monkeypatch.setattr(devices, "visible_gpus", lambda: ())
    assert devices.Device(DeviceSettings()).torch.type == "cpu"


def test_images_are_squashed_as_pil_does_it(devices, torch):
    from PIL import Image

    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3)).astype(np.uint8)
    small = [Image.fromarray(f).resize((32, 32), Image.Resampling.BILINEAR) for f in frames]
    expected = (np.stack(small) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    found = devices.Device(DeviceSettings("cpu")).images(frames, 32)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, atol=1.01 / 255 / 0.224)
