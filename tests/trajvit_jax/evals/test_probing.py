"""What a head learns from and how, against a slow program; what several views of a video score."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.evals import probing
from trajvit_jax.evals.features import Frozen
from trajvit_jax.evals.probing import HeadSettings, probe, train_head
from trajvit_jax.evals.token_store import Features
from trajvit_jax.models.map_head import MapHead

VIEWS = 3


class Watched(Features):
    """Remembers which samples are read."""

    def batch(self, samples, length):
        vars(self).setdefault("read", []).append(samples.tolist())
        return super().batch(samples, length)


def watched(videos, views, *, width=4, tokens=3):
    """Random tokens of so many views of each video."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(videos * views, tokens, width)).astype(np.float32)
    return Watched.of(list(samples))


@pytest.fixture(scope="module")
def copying():
    """A head whose scores are the mean of its four tokens' numbers."""
    head = MapHead(4, 4, heads=1, mlp_ratio=0.0, rngs=nnx.Rngs(0))
    head.query.set_value(jnp.zeros(4))
    head.kernels.set_value(jnp.stack([jnp.eye(4)] * 4))
    head.classify.kernel.set_value(jnp.eye(4))
    return head


# Views


@pytest.mark.parametrize("size", [4, 128])
def test_scores_are_the_mean_over_all_views(copying, monkeypatch, size):
    """In each video another view decides; a vote of views, or of probabilities, is no mean."""
    scores = {
        "first": ("a", [[9, 0, 0, 0], [0, 2, 0, 0], [0, 3, 0, 0]]),
        "second": ("b", [[3, 0, 0, 0], [0, 9, 0, 0], [2, 0, 0, 0]]),
        "third": ("c", [[2, 0, 0, 0], [3, 0, 0, 0], [0, 0, 9, 0]]),
        "none": ("d", [[1, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 1]]),
    }
    tokens = [np.array([row], np.float32) for _, rows in scores.values() for row in rows]
    kept = [(name, label) for name, (label, rows) in scores.items() for _ in rows]
    frozen = Frozen(Features.of(tokens), tuple(kept))
    found = []
    measure = probing.measure
    monkeypatch.setattr(probing, "train_head", lambda *_, **__: copying)
    monkeypatch.setattr(probing, "measure", lambda one: found.append(one) or measure(one))
    measured = probe(frozen, frozen, HeadSettings(size=size), views=VIEWS)
    [classified] = found
    expected = [np.mean(rows, 0) for _, rows in scores.values()]
    np.testing.assert_allclose(classified.scores, expected, atol=1e-6)
    assert classified.truth.tolist() == [0, 1, 2, 3]
    assert dict(measured.values())["top1"] == 75


def test_each_epoch_draws_a_view_of_every_video():
    videos, epochs = 16, 12
    features = watched(videos, VIEWS)
    settings = HeadSettings(epochs=epochs, size=8, heads=1, mlp_ratio=0.0)
    train_head(features, np.arange(videos) % 2, 2, settings, views=VIEWS)
    drawn = np.array(features.read).reshape(epochs, videos)
    for epoch in drawn:
        assert sorted(epoch // VIEWS) == list(range(videos))
        assert len(set(epoch % VIEWS)) > 1  # not one view for all
    assert len({tuple(epoch // VIEWS) for epoch in drawn}) == epochs  # another order each time
    seen = Counter(drawn.ravel().tolist())
    # Of a binomial with mean 4 and deviation 1.6 for each view, and 64 and 6.5 for all videos'.
    assert set(seen) == set(range(videos * VIEWS))
    shares = [sum(seen[i * VIEWS + view] for i in range(videos)) for view in range(VIEWS)]
    assert min(shares) > 40


# Training


def plain_loss(head, tokens, targets, multi_label):
    """The mean over videos of what their scores are off, written out."""
    scores = head(tokens, jnp.ones(tokens.shape[:2], bool))
    if multi_label:
        right = targets * jax.nn.log_sigmoid(scores) + (1 - targets) * jax.nn.log_sigmoid(-scores)
        return -right.sum() / len(tokens)
    chance = jnp.exp(scores) / jnp.exp(scores).sum(-1, keepdims=True)
    return -jnp.log(chance[jnp.arange(len(tokens)), targets]).mean()


def slow_training(head, features, targets, settings, read, views):
    """The parameters that AdamW comes to, in NumPy but for the gradient (Loshchilov and Hutter)."""
    graph, state = nnx.split(head)
    gradient = jax.jit(
        jax.grad(
            lambda state, *batch: plain_loss(nnx.merge(graph, state), *batch, settings.multi_label)
        )
    )
    leaves, tree = jax.tree.flatten(state)
    own = [np.asarray(x, np.float64) for x in leaves]
    mean, square = ([np.zeros_like(x) for x in own] for _ in range(2))
    per_epoch = -(-len(targets) // settings.size)
    for step, samples in enumerate(read):
        left = len(targets) - step % per_epoch * settings.size
        samples = samples[:left]  # what fills the last batch up is no part of it
        tokens, _ = features.batch(np.array(samples), features.longest)
        current = jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in own])
        batch = jnp.asarray(tokens), jnp.asarray(targets[np.array(samples) // views])
        for place, g in enumerate(jax.tree.leaves(gradient(current, *batch))):
            g = np.asarray(g, np.float64)
            mean[place] = 0.9 * mean[place] + 0.1 * g
            square[place] = 0.999 * square[place] + 0.001 * g**2
            m = mean[place] / (1 - 0.9 ** (step + 1))
            v = square[place] / (1 - 0.999 ** (step + 1))
            update = m / (np.sqrt(v) + 1e-8) + settings.weight_decay * own[place]
            own[place] = own[place] - settings.learning_rate * update
    return own


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_head_is_trained_as_the_slow_program_trains_it(multi_label):
    """Of eight videos, three a step, two are left: a third that counted would change their mean."""
    settings = HeadSettings(
        epochs=4,
        learning_rate=0.02,
        size=3,
        heads=2,
        mlp_ratio=1.0,
        seed=5,
        multi_label=multi_label,
    )
    assert settings.weight_decay == 0.5
    features, rng = watched(8, VIEWS), np.random.default_rng(1)
    targets = rng.integers(2, size=(8, 3)).astype(np.float32) if multi_label else np.arange(8) % 3
    told = []
    head = train_head(
        features, targets, 3, settings, views=VIEWS, between=lambda: told.append(None)
    )
    read = list(features.read)
    assert [len(samples) for samples in read] == [3] * 12 and len(told) == 12
    start = nnx.jit(lambda: MapHead(4, 3, heads=2, mlp_ratio=1.0, rngs=nnx.Rngs(5)))()
    expected = slow_training(start, features, targets, settings, read, VIEWS)
    for (path, found), value in zip(
        jax.tree_util.tree_leaves_with_path(nnx.state(head)), expected, strict=True
    ):
        np.testing.assert_allclose(found, value, atol=1e-5, err_msg=jax.tree_util.keystr(path))
