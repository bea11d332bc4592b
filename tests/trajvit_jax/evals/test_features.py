"""Frozen tokens are the encoder's states, each layer-normalized on its own."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.data.samples import video_sample
from trajvit_jax.evals.classification import own_label
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.features import frozen_tokens, normalized


def plain(x):
    """Each row minus its mean, by its standard deviation, in float64."""
    x = np.asarray(x, np.float64)
    return np.stack([(row - row.mean()) / np.sqrt(row.var() + 1e-6) for row in x])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_token_is_normalized_by_its_own_numbers(dtype):
    """Tokens of unlike means and sizes: no statistic that they share would fit them all."""
    rng = np.random.default_rng(0)
    size, shift = np.array([1e-1, 1.0, 30.0])[:, None], np.array([0.0, 5.0, -80.0])[:, None]
    tokens = jnp.asarray(shift + size * rng.normal(size=(2, 3, 16)), dtype)
    found = normalized(tokens)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(found.var(-1), 1, atol=1e-3)  # _EPS against a variance of 0.01
    for one, other in zip(found, tokens, strict=True):
        np.testing.assert_allclose(one, plain(other), atol=2e-5)
    np.testing.assert_array_equal(normalized(tokens[:1, :1])[0, 0], found[0, 0])  # alone, the same


@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
def test_frozen_tokens_are_the_normalized_states(tiny, random_model, toy_record, name):
    """Three videos of 2, 3 and 4 trajectories, two of which share a batch, and TrajViT's a row."""
    model = random_model(tiny(name))
    records = []
    for number in range(3):
        record = toy_record(number)
        labels = record.trajectories.labels.copy()
        labels[:, 28:, : 4 * number] = 3 + np.repeat(np.arange(number), 4)
        trajectories = dataclasses.replace(record.trajectories, labels=labels)
        records.append(dataclasses.replace(record, trajectories=trajectories, label="red"))
    frozen = frozen_tokens(Embedder(model, batch=2), records, own_label)
    features = frozen.features
    assert [label for _, label in frozen.kept] == ["red"] * 3
    if name == "trajvit":
        assert features.lengths.tolist() == [1 + 2, 1 + 3, 1 + 4]
    encode = nnx.jit(lambda model, *video: model.encode_video(*video)[:2])
    for number, record in enumerate(records):
        sample = video_sample(record, model.settings)
        states, tokens = encode(
            model, jnp.asarray(sample.video)[None], jnp.asarray(sample.labels)[None]
        )
        own = np.asarray(states[0])[np.asarray(tokens.video[0]) > 0]
        found = features.values[features.starts[number] : features.starts[number + 1]]
        np.testing.assert_allclose(found, plain(own), atol=2e-5)
        np.testing.assert_allclose(found.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(found.var(-1), 1, atol=1e-3)
