"""Llama against what transformers computed of it, whole and through a cache."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.llm.llama import Cache, Llama, positions_in
from trajvit_jax.llm.rotary import frequencies
from trajvit_jax.llm.settings import LlamaSettings

NAMES = ["llama", "llama_noscale"]


def whole(model, x, segments, positions):
    return model.logits(model(x, segments, positions))


def plain(ids):
    """Segments and positions of rows that are one sequence each."""
    return jnp.ones(ids.shape, jnp.int32), jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)


@pytest.fixture(scope="module")
def hf(golden):
    return golden("hf_tiny")


@pytest.fixture(scope="module")
def ids(hf):
    return jnp.asarray(hf["llama/in/input_ids"], jnp.int32)


@pytest.mark.parametrize("name", NAMES)
def test_frequencies(hf, golden_settings, name):
    np.testing.assert_allclose(
        frequencies(golden_settings[name]), hf[f"{name}/out/inv_freq"], rtol=2e-7
    )


@pytest.mark.parametrize("name", NAMES)
def test_states_and_logits(hf, ids, golden_llama, assert_golden, name):
    model = golden_llama(name)
    segments, positions = plain(ids)

    @nnx.jit
    def run(model):
        x = model.embed(ids)
        return model.trace(x, segments, positions), whole(model, x, segments, positions)

    states, logits = run(model)
    for level, state in enumerate(states):
        assert_golden(state, hf[f"{name}/out/hidden_{level}"], f"layer {level}")
    assert_golden(logits, hf[f"{name}/out/logits"], "logits")
    nll = -jax.nn.log_softmax(logits[:, :-1])
    loss = jnp.take_along_axis(nll, ids[:, 1:, None], -1).mean()
    assert_golden(loss, hf[f"{name}/out/loss"], "loss")


@pytest.mark.parametrize("name", NAMES)
def test_padding_embeddings_and_late_positions(hf, ids, golden_llama, assert_golden, name):
    model, run = golden_llama(name), nnx.jit(whole)
    mask = jnp.asarray(hf["llama/in/attention_mask_leftpad"], jnp.int32)
    x = model.embed(ids)
    logits = run(model, x, mask, positions_in(mask, mask > 0))
    # Padding is zeroed there.
    logits = jnp.where(mask[..., None] > 0, logits, 0)
    assert_golden(logits, hf[f"{name}/out/logits_leftpad"], "padded on the left")
    segments, positions = plain(ids)
    given = run(model, x + 0.1, segments, positions)
    assert_golden(given, hf[f"{name}/out/logits_from_embeds_plus0.1"], "given embeddings")
    late = run(model, x, segments, positions + 200)
    assert_golden(late, hf[f"{name}/out/logits_pos200"], "positions 200..223")


@pytest.mark.parametrize("name", NAMES)
def test_cached_decoding(hf, ids, golden_llama, assert_golden, name):
    """A prompt, then token after token, with slots to spare."""
    model, extend = golden_llama(name), nnx.jit(Llama.extend)
    segments, positions = plain(ids)
    cache, logits = Cache.empty(model.settings, 2, 32), []
    cuts = [0, 10, *range(11, 25)]
    for start, stop in itertools.pairwise(cuts):
        part = np.s_[:, start:stop]
        states, cache = extend(
            model, model.embed(ids[part]), segments[part] > 0, positions[part], cache
        )
        logits.append(model.logits(states))
    assert_golden(jnp.concatenate(logits, 1), hf[f"{name}/out/logits"], "logits")
    assert int(cache.used) == 24


def test_cached_decoding_behind_padding(hf, ids, golden_llama, assert_golden):
    model, extend = golden_llama(), nnx.jit(Llama.extend)
    mask = jnp.asarray(hf["llama/in/attention_mask_leftpad"], bool)
    positions = positions_in(mask.astype(jnp.int32), mask)
    cache, logits = Cache.empty(model.settings, 2, 24), []
    for part in (np.s_[:, :16], np.s_[:, 16:]):
        states, cache = extend(model, model.embed(ids[part]), mask[part], positions[part], cache)
        logits.append(model.logits(states))
    logits = jnp.where(mask[..., None], jnp.concatenate(logits, 1), 0)
    assert_golden(logits, hf["llama/out/logits_leftpad"])


def test_sequences_of_a_row_do_not_see_each_other(ids, golden_llama, assert_golden):
    """Two sequences in one row give what they give apart."""
    model, run = golden_llama(), nnx.jit(whole)
    row = jnp.concatenate([ids[:1, :10], ids[1:, :9], ids[:1, :5]], 1)
    segments = jnp.asarray([[1] * 10 + [2] * 9 + [0] * 5], jnp.int32)
    positions = positions_in(segments, segments > 0)
    assert positions[0, :19].tolist() == [*range(10), *range(9)]
    packed = run(model, model.embed(row), segments, positions)
    apart = run(model, model.embed(ids), *plain(ids))
    assert_golden(packed[0, :10], apart[0, :10])
    assert_golden(packed[0, 10:19], apart[1, :9])


def test_positions_skip_what_is_not_valid():
    segments = jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 0]])
    valid = jnp.asarray([[True, False, True, False, True, True, False, False]])
    assert positions_in(segments, valid).tolist() == [[0, 0, 1, 0, 0, 1, 0, 0]]


@pytest.mark.parametrize("remat", ["layers", "products"])
def test_recomputed_layers_have_the_same_gradient(ids, golden_llama, assert_close, remat):
    def gradient(model):
        def loss(model):
            return jnp.square(whole(model, model.embed(ids), *plain(ids))).mean()

        return nnx.jit(nnx.grad(loss))(model)

    assert_close(gradient(golden_llama(remat=remat)), gradient(golden_llama()))


def test_bfloat16_is_near(ids, golden_llama):
    """Stored and computed in bfloat16: logits in float32, off by what eight bits are."""
    run, exact = nnx.jit(whole), golden_llama()
    rough = golden_llama(dtype="bfloat16", stored="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough))} == {jnp.bfloat16.dtype}
    a = run(exact, exact.embed(ids), *plain(ids))
    b = run(rough, rough.embed(ids), *plain(ids))
    assert b.dtype == jnp.float32
    assert 1e-4 < jnp.abs(a - b).max() / jnp.abs(a).max() < 0.03


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"head_width": 20}, {"head_width": 264}])
def test_attention_that_cudnn_lacks_is_told_before_anything_is_traced(change):
    fits = LlamaSettings(attention="cudnn")
    assert fits.each_head == 128
    with pytest.raises(
        ValueError, match=r"multiple of 8 up to 256, not for .*: set llm\.attention='xla'"
    ):
        dataclasses.replace(fits, **change)
