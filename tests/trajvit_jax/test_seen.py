"""What a run shows of itself: rates, compilations, a profile, a page of samples."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import math
import re
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.data.augment import AugmentSettings
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.steps import Loaded
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.run import run_log
from trajvit_jax.run.compile_watch import CompileWatch
from trajvit_jax.run.profiling import Profiler, ProfileSettings
from trajvit_jax.run.progress import Progress
from trajvit_jax.run.sample_page import SamplePages
from trajvit_jax.run.throughput import Meter, Work, peak_flops
from trajvit_jax.step import StepSettings


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
    assert peak_flops([device("NVIDIA H100 NVL")]) == 835e12
    assert peak_flops([device("NVIDIA H200"), device("cpu")]) is None
    for peak, flops in ((None, 1.0), (1.0, math.nan)):
        meter = Meter(peak)
        meter.add(Work(1, 1, flops), tokens=1, seconds=1.0, waited=0.0)
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


def loaded_batch(text, stream="video"):
    """Two videos that are white but for one black corner; the second could not be used."""
    tokens = text(["A red square", ""])
    video = np.full((2, 3, 8, 8, 3), 255, np.uint8)
    video[:, :, :4, :4] = 0
    labels = np.zeros((2, 3, 8, 8), np.uint16)
    labels[0, 0, :4] = 1
    labels[0, 1, 4:] = 5
    batch = Batch(
        video=video,
        labels=labels,
        text=tokens.ids,
        text_mask=tokens.mask,
        caption_hash=np.zeros((2, 2), np.uint32),
        dropped=np.array([3, 0], np.int32),
        sample=np.zeros((2, 2), np.uint32),
        epoch=np.zeros(2, np.int32),
        present=np.array([True, False]),
    )
    return Loaded(stream, batch, ("clip <1>", "clip 2"))


def pictures(page):
    data = re.findall(r"data:image/png;base64,([^']+)", page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), 1) for one in data]


@pytest.fixture
def pages(tiny, tmp_path):
    text = WordPiece.train(["a <red> square"], 8)

    def show(loaded, step=1, *, first=0, name="trajvit", **augment):
        none = dataclasses.replace(AugmentSettings.none(), **augment)
        settings = StepSettings(augment=none)
        model = tiny(name, image_size=8)
        shown = SamplePages(tmp_path, settings, model, text, seed=0, first=first)
        for one in loaded:
            shown.show(step, one)
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    return text, show


def test_a_sample_page_shows_what_the_model_was_fed(pages):
    text, show = pages
    found = show([loaded_batch(text)], flip=1.0)
    page = found.pop("samples-video.html")
    assert not found and "http" not in page
    assert "a red square" in page and "Stream video, step 1" in page
    assert "clip &lt;1&gt;: 2 tokens visible, 3 dropped" in page
    assert "clip 2: could not be used" in page
    first, second = pictures(page)
    side = first.shape[0] // 2
    frame = first[:side, :side]
    # Flipped, and in the colours it had before it was normalized.
    assert (frame[: side // 2, side // 2 :] == 0).all() and (frame[:, : side // 2] == 255).all()
    covered = first[side:, :side]
    np.testing.assert_array_equal(covered[side // 2 :], frame[side // 2 :])
    assert (covered[: side // 2, : side // 2] < 250).all()
    np.testing.assert_array_equal(second[:side], second[side:])  # nothing over the frames


def test_a_model_of_patches_is_shown_with_its_frames_alone(pages):
    text, show = pages
    page = show([loaded_batch(text)], name="vit3d")["samples-video.html"]
    assert "<small>clip &lt;1&gt;</small>" in page and "clip 2: could not be used" in page
    assert not re.search("under their tokens|visible|dropped", page)
    side = pictures(page)[0].shape[0]
    assert pictures(page)[0].shape == (side, 3 * side, 3)


def test_every_stream_has_a_page_of_its_first_step(pages):
    text, show = pages
    found = show([loaded_batch(text), loaded_batch(text, "an/image"), loaded_batch(text)], step=7)
    assert sorted(found) == ["samples-an%2Fimage.html", "samples-video.html"]
    resumed = show([loaded_batch(text), loaded_batch(text, "late")], step=9, first=8)
    assert resumed["samples-video.html"] == found["samples-video.html"]
    assert "Stream late, step 9" in resumed["samples-late.html"]
    anew = show([loaded_batch(text)])
    assert "Stream video, step 1" in anew["samples-video.html"]


@pytest.mark.usefixtures("annotations_unchecked")
def test_an_evaluation_that_is_left_is_no_part_of_a_step(monkeypatch, tmp_path):
    ticks = itertools.count(0.0, 10.0)  # each look at the clock is ten seconds after the last
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(run_log, "time", clock)
    bar = Progress(disable=True)
    watch = run_log.StepWatch(None, bar, run_log.Clock(), {}, ExperimentSettings(), tmp_path)
    with pytest.raises(KeyboardInterrupt), watch.paused():
        raise KeyboardInterrupt
    assert watch._since == 10.0


@pytest.mark.usefixtures("annotations_unchecked")
def test_the_time_left_is_that_of_steps_that_compile_nothing(monkeypatch, tmp_path):
    """A step takes two seconds; compiling the first takes a minute, an evaluation half an hour."""
    now = 0.0
    clock = types.SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(run_log, "time", clock)
    monkeypatch.setattr("tqdm.std.time", clock.perf_counter)
    bar = Progress(initial=5, total=20, file=io.StringIO(), mininterval=0)
    log = types.SimpleNamespace(note_samples=lambda *_: None, write=lambda *_: None)
    works = {"video": Work(videos=8, slots=100, flops=1.0)}
    watch = run_log.StepWatch(log, bar, run_log.Clock(), works, ExperimentSettings(), tmp_path)
    measures = {"loss": 1.0, "tokens": 90, "skipped": 0, "absent": 0}

    def read(number):
        watch.read(run_log.InFlight(number, "video", (), measures, waited=0.0, compilations=1))

    now += 60.0
    read(6)
    assert " 6/20 " in str(bar) and "00:00<?" in str(bar)
    for number in range(7, 11):
        now += 2.0
        read(number)
    assert " 10/20 [00:08<00:20, " in str(bar)
    with watch.paused():
        now += 1800.0
    now += 2.0
    read(11)
    assert " 11/20 [00:10<00:18, " in str(bar)
