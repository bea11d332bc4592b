"""The end-to-end benchmark adds up what it says, and its chunks compute what a layer does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import end_to_end
from benchmarks.end_to_end import Row, Sample, crossover, line, measure, notes, sample, verdict
from benchmarks.parts import end_to_end_models as models
from benchmarks.parts.end_to_end_models import Part
from benchmarks.parts.made_clips import made_clip
from tokenization import pipeline
from tokenization.video import Frames, VideoInfo
from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.transformer import Layer


def row(frames: int, ours: float, theirs: float, dtype: str = "float32") -> Row:
    """Half of our time is extraction, and 0.5 s of either side's is reading."""
    layer = Part("fused", ((theirs - 0.5) / 8, (theirs - 0.5) / 8, 9.0), times=8)
    forward = Part("ours", (ours / 2 - 0.5,))
    return Row(dtype, frames, 75, 0, 40, 0.5, 0.5, ours / 2, forward, (layer,))


def test_a_layer_stands_for_all_and_reading_and_extraction_count():
    one = row(16, ours=2.0, theirs=8.0)
    assert one.ours == 2.0 and one.theirs == 8.0 and one.speedup == 4.0
    parts = (Part("patches", (0.5,)), Part("layer", (1.0, 3.0, 2.0), times=4))
    two = Row("float32", 1, 0, 0, 1, 0.25, 0.125, 3.0, Part("x", (1.0,)), parts)
    assert two.ours == 4.25 and two.theirs == 8.625 and two.their_forward == 8.5


@pytest.mark.parametrize(("slow", "holds"), [(9.0, False), (1.0, True)])
def test_the_verdict_needs_every_number_of_frames(slow: float, holds: bool):
    rows = [row(16, 1.0, 8.0), row(32, slow, 8.0)]
    kept, said = verdict(rows)
    assert kept is holds
    assert said.startswith("holds" if holds else "FAILS") and ("slower at 32" in said) != holds


def test_the_crossover_is_where_it_stays_ahead():
    rows = [row(16, 1, 2, "bfloat16"), row(32, 3, 2, "bfloat16"), row(64, 1, 2, "bfloat16")]
    assert "faster from 64 on" in crossover(rows)
    assert "ViT3D is faster at 32" in crossover(rows[:2])


def test_the_table_marks_what_one_layer_stands_for():
    whole = Row(
        "float32", 16, 75, 0, 9, 0.1, 0.1, 1.0, Part("ours", (1.0,)), (Part("fused", (4.0,)),), 4.4
    )
    parts = (Part("patches", (0.5,)), Part("layer", (1.0,), times=4))
    layers = Row("float32", 128, 635, 28, 9, 0.2, 0.1, 1.0, Part("ours", (1.0,)), parts)
    assert "4.60*" in line(layers) and "4.10 " in line(whole)
    said = "\n".join(notes([whole, layers]))
    assert "at 16 frames: 1.10" in said and "128 frames: the video is shorter, 28 of" in said
    assert notes([dataclasses.replace(whole, by_layer=None)]) == []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Row | BaseException]]:
    """What `measure` gives in place of rows that take minutes."""
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    given: list[Row | BaseException] = []

    def rows(*_: object) -> Iterator[Row]:
        for one in given:
            if isinstance(one, BaseException):
                raise one
            yield one

    monkeypatch.setattr(end_to_end, "measure", rows)
    monkeypatch.setattr(end_to_end, "no_bfloat16", lambda: "no units")
    yield given
    jax.config.update("jax_platforms", platforms)


def test_what_is_done_is_printed_and_kept(
    measured: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    measured[:] = [row(16, 2, 8), row(32, 2, 8), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        end_to_end.main([f"--json={tmp_path}/kept.json"])
    kept = json.loads((tmp_path / "kept.json").read_text())["float32"]
    assert [(one["frames"], one["speedup"]) for one in kept] == [(16, 4), (32, 4)]
    said = capsys.readouterr().out
    assert line(row(16, 2, 8)) in said and line(row(32, 2, 8)) in said
    assert jax.config.jax_platforms == "cpu"  # as PyTorch's side


@pytest.mark.parametrize(("theirs", "code"), [(8.0, 0), (1.5, 1)])
def test_the_exit_code_is_the_verdict_on_float32(
    measured: list, theirs: float, code: int, capsys: pytest.CaptureFixture[str]
):
    measured[:] = [row(16, 2, 8), row(32, 2, theirs)]
    assert end_to_end.main([]) == code
    assert "bfloat16 is not measured: no units" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        end_to_end.main(["--dtype=bfloat16"])
    assert "no units" in capsys.readouterr().err


def test_long_clips_are_read_layer_by_layer_and_each_way_is_tried(monkeypatch: pytest.MonkeyPatch):
    class Model:
        def __init__(self, seconds: float) -> None:
            self._part = Part(f"{seconds}", (seconds,))

        def seconds(self, *_: object, **again: object) -> Part:
            return self._part

        def whole(self, *_: object, **again: object) -> list[Part]:
            return [Part("whole", (4.0,))]

        def layer(self, *_: object, **again: object) -> list[Part]:
            return [Part("patches", (1.0,)), Part("layer", (0.5,), times=2)]

    monkeypatch.setattr(models, "trajvits", lambda *_: [Model(3.0), Model(2.0)])
    monkeypatch.setattr(models, "vit3d", lambda *_: Model(0.0))
    clip = Sample(np.zeros(1), np.ones((1, 1, 1), np.int32), 5, 0, 0.5, 0.25, 1.0)
    encoder = EncoderSettings(width=16, depth=1, heads=2, mlp=16)
    short, middle, long = measure(lambda _: clip, (16, 64, 128), encoder, 32, "float32", 1)
    assert all(one.trajvit.total == 2.0 and one.ours == 3.5 for one in (short, middle, long))
    assert short.their_forward == 4.0 and short.by_layer == 2.0
    assert middle.their_forward == 4.0 and middle.by_layer is None
    assert long.their_forward == 2.0 and len(long.vit3d) == 2


def test_trajvit_reads_the_frames_between_and_vit3d_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a clip that is made for so many frames, and of one that has fewer."""
    path, asked = made_clip(tmp_path, 2, 64), []
    decode = end_to_end.video.decode

    def noted(*args, **keywords):
        asked.append(keywords["between"])
        return decode(*args, **keywords)

    monkeypatch.setattr(end_to_end.video, "decode", noted)
    one = sample(path, 2, pipeline.PipelineSettings(max_side=64), 32, rounds=1)
    assert asked == [0, 0, 5, 5]  # each once more, to warm up
    assert (one.between, one.repeated) == (5, 0)
    assert one.pixels.shape == (1, 2, 32, 32, 3) and one.labels.shape == (2, 8, 8)
    whole = sample(path, 16, pipeline.PipelineSettings(max_side=64), 32, rounds=1)
    assert (whole.between, whole.repeated) == (0, 4)


def test_the_round_that_warms_up_does_not_count():
    seen = []
    seconds, last = models.timed(lambda: seen.append(0) or len(seen), 2, warm=True)
    assert len(seconds) == 2 and last == 3


def test_attention_in_chunks_is_the_layers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "QUERIES", 4)
    layer = Layer(16, 2, 32, pre_norm=True, eps=1e-6, init_std=0.2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 10, 16))
    plain = layer(x, jnp.ones((1, 1, 1, 10), bool))
    np.testing.assert_allclose(models.in_chunks(layer, x), plain, atol=1e-5)


@pytest.mark.slow
def test_one_set_of_parameters_serves_all_lengths_and_labels_are_real():
    rgb = np.random.default_rng(0).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    rgb[:, 8:24, 8:24] = (200, 30, 30)
    frames = Frames(
        rgb,
        times=np.arange(2, dtype=np.float32),
        indices=np.arange(2),
        video=VideoInfo("a", 48, 32, 1.0, 2.0),
    )
    labels = models.extracted(pipeline.build(), frames, 8)
    assert labels.shape == (2, 8, 8) and labels.min() >= 1
    encoder = EncoderSettings(width=16, depth=1, heads=2, mlp=16)
    model = models.TrajViT(encoder, 32, "float32")
    pixels = models.squashed(rgb, 32)
    assert pixels.shape == (1, 2, 32, 32, 3)
    for length in (1, 2):
        part = model.seconds(pixels[:, :length], labels[:length], 1, warm=False)
        assert part.total > 0
