"""Micro-batches: the large batch in value, gradient and statistics, and in parts where asked."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.micro_batches import embed_in_parts
from trajvit_jax.step import StepSettings

SCRIPT = Path(__file__).with_name("sharded_run.py")


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("sharded_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embed(run, random_model):
    """Embeddings, gradients and moved statistics, by the number of parts and the scope."""
    drawn = run.batch_of(0)
    video = np.asarray(drawn.video)[:, :, :32, :32]
    labels = np.asarray(drawn.labels)[:, :, :8, :8].astype(np.int32)
    drawn = drawn.replace(video=video, labels=labels)

    @functools.cache
    def program(count: int, scope: str):
        @nnx.jit
        def probed(model, batch):
            def loss(model):
                video, text = embed_in_parts(model, batch, count, norm_scope=scope)
                return (video * jnp.cos(jnp.arange(video.size).reshape(video.shape))).sum() + (
                    text * jnp.sin(jnp.arange(text.size).reshape(text.shape))
                ).sum(), (video, text)

            gradients, embedded = nnx.grad(loss, has_aux=True)(model)
            return embedded, gradients, nnx.state(model, nnx.BatchStat)

        return probed

    def compute(count: int, scope: str = "batch", **changes):
        return program(count, scope)(random_model(run.SETTINGS), drawn.replace(**changes))

    return compute


def test_parts_are_the_large_batch(embed, assert_close):
    assert_close(embed(4), embed(1))


def test_a_part_s_own_statistics_are_others_and_move_the_running_ones_by_their_mean(embed):
    present = np.ones(32, bool)  # so that parts are of one size
    (whole, _), _, one = embed(1, present=present)
    (parts, _), _, four = embed(4, "part", present=present)
    assert np.abs(np.asarray(parts) - np.asarray(whole)).max() > 1e-4
    # The mean of a channel over equal parts is that of the batch, up to what earlier layers did.
    first = [
        jax.tree.leaves(stats["tokenizer"]["appearance"]["backbone"]["stem"])
        for stats in (one, four)
    ]
    np.testing.assert_allclose(first[0][0], first[1][0], rtol=1e-4, atol=1e-5)


def test_parts_that_do_not_divide_the_groups_are_refused(embed):
    with pytest.raises(ValueError, match=r"a batch of 32 videos, .* is not cut into 5"):
        embed(5)


@pytest.mark.usefixtures("annotations_unchecked")
def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match=r"step\.norm_scope must be one of batch, part"):
        StepSettings(norm_scope="video")
