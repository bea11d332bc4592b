"""Pooling without keys and values is the plain head, in value and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.map_head import MapHead
from trajvit_jax.ops.attention_pooling import pool_tokens


@pytest.fixture(scope="module")
def head(randomized):
    head = randomized(lambda: MapHead(24, 5, heads=3, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)  # biases and query count as much as kernels
    for part in (head.query, head.kernels, head.biases):
        part.set_value(jnp.asarray(rng.normal(size=part.shape) * 24**-0.5, jnp.float32))
    return head


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(4, 9, 24)).astype(np.float32)
    used = np.arange(9) < np.array([[9], [1], [4], [7]])
    return jnp.asarray(tokens), jnp.asarray(used)


def test_both_ways_are_equal_in_value_and_gradient(head, batch, assert_close):
    graph, state = nnx.split(head)
    aim = jnp.asarray(np.random.default_rng(2).normal(size=(4, 5)), jnp.float32)

    def run(impl):
        def loss(state, tokens):
            scores = nnx.merge(graph, state)(tokens, batch[1], impl=impl)
            return (scores * aim).sum(), scores

        with jax.default_matmul_precision("highest"):
            gradient, scores = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(state, batch[0])
        return nnx.to_pure_dict(gradient[0]), gradient[1], scores

    assert_close(run("fast"), run("reference"))


def test_the_plain_formula_is_attention(head, batch):
    tokens, used = map(np.asarray, batch)
    weights = head.weights()
    q, k, v, o = np.asarray(weights.kernels, np.float64)
    bq, bk, bv, bo = np.asarray(weights.biases, np.float64)
    query = (np.asarray(weights.query) @ q + bq).reshape(3, 8)
    expected = []
    for row, seen in zip(tokens, used, strict=True):
        keys = (row[seen] @ k + bk).reshape(-1, 3, 8)
        values = (row[seen] @ v + bv).reshape(-1, 3, 8)
        read = []
        for h in range(3):
            e = np.exp(keys[:, h] @ query[h] / 8**0.5)
            read.append((e / e.sum()) @ values[:, h])
        expected.append(np.concatenate(read) @ o + bo)
    found = pool_tokens(weights, *batch, impl="reference")
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_unused_tokens_change_nothing(head, batch):
    tokens, used = batch
    noise = jnp.where(used[..., None], tokens, 1e3)
    np.testing.assert_array_equal(head(tokens, used), head(noise, used))


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="5 heads do not divide tokens of width 24"):
        MapHead(24, 2, heads=5, rngs=nnx.Rngs(0))
