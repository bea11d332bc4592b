"""What a run shows of itself: rates, compilations, a profile, a page of samples."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.data.batch import Batch
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.profiling import Profiler, ProfileSettings
from trajvit_jax.run.sample_page import write_sample_page
from trajvit_jax.run.throughput import Meter, Work, peak_flops


def device(kind: str) -> object:
    return types.SimpleNamespace(device_kind=kind)


def test_rates_are_of_the_interval():
    meter = Meter(peak=1e6)
    work = Work(videos=8, slots=100, flops=4e5)
    meter.add(work, tokens=90, seconds=1.0, waited=0.0)
    meter.add(work, tokens=70, seconds=3.0, waited=1.0)
    assert meter.read() == {
        "videos_a_second": 4.0,
        "tokens_a_second": 40.0,
        "slot_use": 0.8,
        "data_wait": 0.25,
        "mfu": pytest.approx(0.2),
    }
    meter.add(work, tokens=100, seconds=1.0, waited=0.0)
    assert meter.read()["videos_a_second"] == 8.0


def test_hardware_that_is_not_known_has_no_utilization():
    assert peak_flops([device("NVIDIA H200"), device("NVIDIA H100 80GB HBM3")]) == 2 * 989e12
    assert peak_flops([device("NVIDIA H100 PCIe")]) == 756e12  # the longer name, not the shorter
    assert peak_flops([device("NVIDIA H200"), device("cpu")]) is None
    meter = Meter(peak=None)
    meter.add(Work(1, 1, 1.0), tokens=1, seconds=1.0, waited=0.0)
    assert "mfu" not in meter.read()


def test_a_compilation_after_warm_up_is_told_with_its_shapes(caplog):
    function = jax.jit(lambda batch: batch["x"].sum())
    watch = CompileWatch(function)
    for step, size in enumerate((3, 5, 3, 5), 1):
        batch = {"x": jnp.zeros((size,))}
        function(batch)
        assert not watch.check(step, f"stream{size}", batch)
    assert not caplog.records
    batch = {"x": jnp.zeros((7,))}
    function(batch)
    assert watch.check(5, "stream5", batch)
    assert "program 3: x float32[7] (before: x float32[5])" in caplog.text
    function(batch)
    assert not watch.check(6, "stream5", batch)  # told once


def test_a_profile_window_writes_a_trace(tmp_path):
    with Profiler(ProfileSettings(start=2, steps=1), tmp_path) as profiler:
        for step in range(1, 5):
            profiler.before(step)
            jnp.ones(3).sum().block_until_ready()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    with pytest.raises(ValueError, match=r"profile\.start must be at least 0"):
        ProfileSettings(start=-1)


def test_no_profile_without_a_request(tmp_path):
    with Profiler(ProfileSettings(), tmp_path) as profiler:
        profiler.before(1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_sample_page_shows_what_was_fed(tmp_path, dtype):
    text = WordPiece.train(["a <red> square"], 8)
    tokens = text(["A red square", "square"])
    labels = np.zeros((2, 3, 4, 4), np.int32)
    labels[0, 0, 0] = 1
    labels[0, 1, 1] = 5
    batch = Batch(
        video=np.ones((2, 3, 8, 8, 3), dtype),
        labels=labels,
        text=tokens.ids,
        text_mask=tokens.mask,
        caption_hash=np.zeros((2, 2), np.uint32),
        dropped=np.array([0, 4], np.int32),
        sample=np.zeros((2, 2), np.uint32),
        epoch=np.zeros(2, np.int32),
    )
    write_sample_page(tmp_path / "samples.html", batch, text, ["clip <1>", "clip 2"])
    page = (tmp_path / "samples.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "a red square" in page
    assert "clip &lt;1&gt;: 2 tokens visible, 0 dropped" in page
    assert "clip 2: 0 tokens visible, 4 dropped" in page
    assert "http" not in page
