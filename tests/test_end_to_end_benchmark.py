"""The end-to-end benchmark adds up what it says, and its chunks compute what a layer does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import end_to_end_models as models
from benchmarks.end_to_end import Row, crossover, table, verdict
from benchmarks.end_to_end_models import Part
from tokenization import pipeline
from tokenization.video import Frames, VideoInfo
from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.transformer import Layer


def row(frames: int, ours: float, theirs: float, dtype: str = "float32") -> Row:
    layer = Part("fused", (theirs / 8, theirs / 8, 9.0), times=8)
    return Row(dtype, frames, 40, ours / 2, Part("ours", (ours / 2,)), (layer,))


def test_a_layer_stands_for_all_and_extraction_counts():
    one = row(16, ours=2.0, theirs=8.0)
    assert one.ours == 2.0 and one.theirs == 8.0 and one.speedup == 4.0
    parts = (Part("patches", (0.5,)), Part("layer", (1.0, 3.0, 2.0), times=4))
    assert Row("float32", 1, 1, 0.0, Part("x", (1.0,)), parts).theirs == 8.5


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
    parts = (Part("patches", (0.5,)), Part("layer", (1.0,), times=4))
    whole = Row("float32", 16, 9, 1.0, Part("ours", (1.0,)), (Part("fused", (4.0,)),), 4.4)
    text = table([whole, Row("float32", 128, 9, 1.0, Part("ours", (1.0,)), parts)])
    assert "4.50*" in text and "4.00 " in text
    assert "at 16 frames: 1.10" in text


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
