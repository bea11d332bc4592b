"""The contrastive loss against the released program's numbers and a plain formula."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.losses import (
    blockwise_contrastive_loss,
    clamp_temperature,
    contrastive_loss,
    shared_positives,
    similarity,
)
from trajvit_jax.models.video_text import unit_length

WEIGHTS = ("vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias")


def project(weights, image, text):
    """Unit vectors of both sides under the released program's two linear layers."""
    vision, vision_bias, words, words_bias = (jnp.asarray(weights[f"sd/{key}"]) for key in WEIGHTS)
    return unit_length(image @ vision.T + vision_bias), unit_length(text @ words.T + words_bias)


@jax.custom_vjp
def released_gather(text):
    """Identity with the backward pass of the released gather between processes.

    It reduces the gradient in place as if its memory were contiguous, but that of the texts is
    a transposed view: their gradient comes out of order. Reproduced to compare what is behind.
    """
    return text


def _gather_forward(text):
    return text, None


def _gather_backward(_, gradient):
    return (gradient.reshape(gradient.shape[::-1]).T,)


released_gather.defvjp(_gather_forward, _gather_backward)


@pytest.mark.parametrize("variant", ["dup", "none"])
def test_loss_and_gradients_equal_the_released_ones(golden, assert_golden, variant):
    g = golden("contrastive_loss")
    ids = g["in/idx"][:, None].astype(np.int32)
    positives = shared_positives(jnp.asarray(ids)) if variant == "dup" else None

    def loss_of(inputs):
        video, text = project(inputs, inputs["image"][:, 0], inputs["text"])
        return contrastive_loss(video, released_gather(text), inputs["temperature"], positives)[0]

    inputs = {f"sd/{key}": jnp.asarray(g[f"sd/{key}"]) for key in WEIGHTS}
    inputs |= {key: jnp.asarray(g[f"in/{key}"]) for key in ("image", "text")}
    inputs["temperature"] = jnp.asarray(g["sd/temp"])
    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(inputs)
    assert_golden(loss, g[f"{variant}/loss"], "loss")
    names = {
        "image": "image",
        "text": "text",
        "temp": "temperature",
        "vision_proj_weight": "sd/vision_proj.weight",
        "text_proj_bias": "sd/text_proj.bias",
    }
    for name, key in names.items():
        assert_golden(gradients[key], g[f"{variant}/grad_{name}"], name)


def test_similarities_equal_the_released_ones(golden, assert_golden):
    g = golden("contrastive_loss")
    temperature = g["sd/temp"]
    video, text = project(g, g["in/image"], g["in/text"])
    one = similarity(video, text[:, None]) / temperature
    assert_golden(one, g["none/sim_i2t"], "one vector")
    assert_golden(one.T, g["none/sim_t2i"], "one vector, from texts")
    # Shared positives change the targets alone.
    for name in ("sim_i2t", "sim_t2i"):
        np.testing.assert_array_equal(g[f"dup/{name}"], g[f"none/{name}"])
    many, prompts = project(g, g["multi/in_image"], g["template/in_text"])
    assert_golden(similarity(many, text[:, None]) / temperature, g["multi/sim_i2t"], "3 vectors")
    # The released template similarity is not divided by the temperature.
    assert_golden(similarity(video, prompts), g["template/sim_i2t"], "4 prompts")


def test_targets_equal_the_released_ones(golden, assert_golden):
    g = golden("contrastive_loss")
    positives = np.asarray(shared_positives(jnp.asarray(g["in/idx"][:, None].astype(np.int32))))
    assert_golden(positives / positives.sum(1, keepdims=True), g["dup/targets"])
    alone = np.asarray(shared_positives(jnp.arange(len(positives))[:, None]), np.float64)
    assert_golden(alone, g["none/targets"])


@pytest.mark.parametrize("variant", ["dup", "none"])
def test_the_released_accuracy_is_of_both_directions_and_of_each_sample_s_own(golden, variant):
    """Ours is that of captions, and counts shared positives: the release counts them in neither."""
    g = golden("contrastive_loss")
    video, text = project(g, g["in/image"][:, 0], g["in/text"])
    temperature = jnp.asarray(g["sd/temp"])
    of_captions, of_videos = (
        contrastive_loss(*sides, temperature)[1]["accuracy"]
        for sides in ((video, text), (text, video))
    )
    assert float(of_captions + of_videos) / 2 == g[f"{variant}/accuracy"]
    assert of_captions != of_videos
    positives = shared_positives(jnp.asarray(g["in/idx"][:, None].astype(np.int32)))
    shared = contrastive_loss(video, text, temperature, positives)[1]["accuracy"]
    best = g["dup/sim_t2i"].argmax(1)
    assert shared == (g["in/idx"][best] == g["in/idx"]).mean() > of_captions


def test_clamp(golden, assert_golden):
    g = golden("contrastive_loss")
    assert_golden(clamp_temperature(jnp.asarray(g["clamp/in"])), g["clamp/out"])


def test_ids_of_several_words_match_only_as_a_whole():
    ids = jnp.asarray([[1, 2], [1, 3], [1, 2]])
    expected = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    np.testing.assert_array_equal(shared_positives(ids), expected)


def test_accuracy_counts_captions_whose_best_video_is_a_positive():
    video = text = jnp.eye(4)
    swapped = text[jnp.asarray([1, 0, 2, 3])]
    temperature = jnp.asarray(0.07)
    _, measures = contrastive_loss(video, swapped, temperature)
    assert float(measures["accuracy"]) == 0.5
    shared = shared_positives(jnp.asarray([[7], [7], [1], [2]]))
    _, measures = contrastive_loss(video, swapped, temperature, shared)
    assert float(measures["accuracy"]) == 1.0


def test_identical_embeddings_cost_log_b():
    ones = jnp.ones((5, 1))
    loss, _ = contrastive_loss(ones, ones, jnp.asarray(0.07))
    assert float(loss) == pytest.approx(np.log(5), rel=1e-6)


@pytest.mark.parametrize("block", [16, None])
def test_blocks_never_hold_the_similarities_of_all_pairs(block):
    """In the compiled gradient, too; the plain loss shows that the test would see them."""
    pairs, width = 512, 8

    def loss(video, text, temperature, ids):
        if block is None:
            return contrastive_loss(video, text, temperature, shared_positives(ids))[0]
        return blockwise_contrastive_loss(video, text, temperature, ids, block=block)[0]

    vectors = jax.ShapeDtypeStruct((pairs, width), jnp.float32)
    temperature = jax.ShapeDtypeStruct((), jnp.float32)
    ids = jax.ShapeDtypeStruct((pairs, 2), jnp.uint32)
    graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    compiled = graded.lower(vectors, vectors, temperature, ids).compile()
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", compiled.as_text())
    largest = max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)
    all_pairs = pairs * pairs
    held = compiled.memory_analysis().temp_size_in_bytes
    if block is None:
        assert largest >= all_pairs and held >= 4 * all_pairs
    else:  # a block of rows, at most with two words of an id for each pair
        assert largest <= 2 * block * pairs and held < 4 * all_pairs / 2
