"""The contrastive loss against the released program's numbers and a plain formula."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.trajvit_jax.plain_loss import contrastive_loss
from trajvit_jax.losses import blockwise_contrastive_loss, clamp_temperature
from trajvit_jax.models.video_text import unit_length

WEIGHTS = ("vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias")


def project(weights, image, text):
    """Unit vectors of both sides under the released program's two linear layers."""
    vision, vision_bias, words, words_bias = (jnp.asarray(weights[f"sd/{key}"]) for key in WEIGHTS)
    return unit_length(image @ vision.T + vision_bias), unit_length(text @ words.T + words_bias)


def captions_of(g, variant):
    """The ids of the released samples' captions; with `none` no two are shared."""
    ids = g["in/idx"].astype(np.int32)
    return jnp.asarray(ids if variant == "dup" else np.arange(len(ids), dtype=np.int32))[:, None]


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
    ids = captions_of(g, variant)

    def loss_of(inputs):
        video, text = project(inputs, inputs["image"][:, 0], inputs["text"])
        return blockwise_contrastive_loss(video, released_gather(text), inputs["temperature"], ids)[
            0
        ]

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


@pytest.mark.parametrize("variant", ["dup", "none"])
def test_the_released_accuracy_is_of_both_directions_and_of_each_sample_s_own(golden, variant):
    """Ours is that of captions, and counts shared positives: the release counts them in neither."""
    g = golden("contrastive_loss")
    video, text = project(g, g["in/image"][:, 0], g["in/text"])
    temperature = jnp.asarray(g["sd/temp"])
    of_captions, of_videos = (
        blockwise_contrastive_loss(*sides, temperature, captions_of(g, "none"))[1]["accuracy"]
        for sides in ((video, text), (text, video))
    )
    assert float(of_captions + of_videos) / 2 == g[f"{variant}/accuracy"]
    assert of_captions != of_videos
    shared = blockwise_contrastive_loss(video, text, temperature, captions_of(g, "dup"))
    best = g["dup/sim_t2i"].argmax(1)
    assert shared[1]["accuracy"] == (g["in/idx"][best] == g["in/idx"]).mean() > of_captions


def test_clamp(golden, assert_golden):
    g = golden("contrastive_loss")
    assert_golden(clamp_temperature(jnp.asarray(g["clamp/in"])), g["clamp/out"])


@pytest.mark.parametrize(
    ("ids", "accuracy"),
    [
        ([[0, 0], [1, 0], [2, 0], [3, 0]], 0.5),
        ([[7, 1], [7, 2], [1, 0], [2, 0]], 0.5),  # ids of two words match only as a whole
        ([[7, 1], [7, 1], [1, 0], [2, 0]], 1.0),
    ],
)
def test_accuracy_counts_captions_whose_best_video_is_a_positive(ids, accuracy):
    video = text = jnp.eye(4)
    swapped = text[jnp.asarray([1, 0, 2, 3])]
    _, measures = blockwise_contrastive_loss(video, swapped, jnp.asarray(0.07), jnp.asarray(ids))
    assert float(measures["accuracy"]) == accuracy


def test_identical_embeddings_cost_log_b():
    ones = jnp.ones((5, 1))
    loss, _ = blockwise_contrastive_loss(ones, ones, jnp.asarray(0.07), jnp.arange(5)[:, None])
    assert float(loss) == pytest.approx(np.log(5), rel=1e-6)


@pytest.mark.parametrize("absent", [(), (0, 4)])
def test_blocks_add_up_to_the_plain_loss(absent):
    rng = np.random.default_rng(0)
    vectors = unit_length(jnp.asarray(rng.normal(size=(2, 7, 16)), jnp.float32))
    ids = jnp.asarray([[0, 1], [0, 2], [0, 1], [3, 3], [0, 1], [3, 3], [9, 9]])
    present = jnp.asarray(~np.isin(np.arange(7), absent))
    expected, actual = (
        jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
            *vectors, jnp.asarray(0.07), ids, present, **options
        )
        for loss, options in ((contrastive_loss, {}), (blockwise_contrastive_loss, {"block": 3}))
    )
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_no_product_is_left_to_what_hardware_takes_for_float32():
    """At a temperature of 0.001, TF32 could move a logit by a whole unit."""

    def loss(vectors):
        return blockwise_contrastive_loss(*vectors, jnp.asarray(0.001), jnp.arange(4)[:, None])[0]

    lowered = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((2, 4, 8)))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert len(products) >= 4 and all("HIGHEST" in line for line in products)


@pytest.mark.parametrize("block", [16, None])
def test_blocks_never_hold_the_similarities_of_all_pairs(block):
    """In the compiled gradient, too; the plain loss shows that the test would see them."""
    pairs, width = 512, 8

    def loss(video, text, temperature, ids):
        if block is None:
            return contrastive_loss(video, text, temperature, ids)[0]
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
