"""`model.deterministic`: no sum in the training step whose order a GPU's threads would decide."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.settings import (
    NAMES,
    AutoMergeSettings,
    ResamplerSettings,
    RLTSettings,
    TokenLearnerSettings,
    ToMeSettings,
    TrajViTSettings,
)
from trajvit_jax.models.video_text import VideoTextModel

SCATTER = re.compile(r'"stablehlo\.scatter"\(.*?\}\) : \(.*?\) -> \S+', re.DOTALL)
MODELS = {
    "token_learner": {"token_learner": TokenLearnerSettings(tokens=2)},
    "tome": {"tome": ToMeSettings(merged=2)},
    "rlt": {"rlt": RLTSettings(length_encoding=True, group=2, slots=16)},
    "automerge": {"automerge": AutoMergeSettings(tokens=3)},
}
VARIANTS = {
    "two tokens each, centres": {
        "trajvit": TrajViTSettings(
            max_trajectories=6, position="centers", resampler=ResamplerSettings(queries=2)
        )
    },
}


@pytest.fixture(scope="module")
def settings_of(tiny):
    def make(name: str, *, deterministic: bool = True):
        changes = MODELS.get(name, VARIANTS.get(name, {}))
        if name == "vit":
            changes = {"frames": 1, "vit3d": dataclasses.replace(tiny().vit3d, tubelet=1)}
        name = "trajvit" if name in VARIANTS else name
        return tiny(name, deterministic=deterministic, **changes)

    return make


def inputs(settings, seed=0):
    """Videos, labels and captions in which words and labels repeat."""
    rng, b = np.random.default_rng(seed), 4
    side, frames, grid = settings.image_size, settings.frames, settings.image_size // 4
    return (
        jnp.asarray(rng.integers(0, 256, (b, frames, side, side, 3), dtype=np.uint8)),
        jnp.asarray(rng.integers(0, 7, (b, frames, grid, grid)), jnp.int32),
        jnp.asarray(rng.integers(1, 9, (b, settings.text.length)), jnp.int32),
    )


def gradients(model, *inputs):
    def loss(model, video, labels, ids):
        embedded = model.embed_video(video, labels, train=True)
        text = model.embed_text(ids, ids > 0)
        probe = jnp.cos(jnp.arange(text.size).reshape(text.shape))
        return (embedded * probe).sum() + (text * probe[::-1]).sum()

    return nnx.value_and_grad(loss)(model, *inputs)


def sums_in_any_order(program: str) -> list[str]:
    """Scatters of floating-point numbers that may meet at one place; order makes no difference to
    whole numbers, or where every place is written once."""
    found = []
    for scatter in SCATTER.findall(program):
        result = scatter.rsplit("-> ", 1)[1]
        if "unique_indices = true" not in scatter and not re.search(r"x[iu]\d+>|xi1>", result):
            found.append(result)
    return found


def program(settings) -> str:
    model = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs(settings))
    run = jax.jit(lambda state, *inputs: gradients(nnx.merge(graph, state), *inputs))
    return run.lower(state, *shapes).as_text()


@pytest.mark.parametrize("name", [*NAMES, *VARIANTS])
def test_no_model_s_step_adds_in_any_order(name, settings_of):
    lowered = program(settings_of(name))
    assert "stablehlo.scatter" in lowered  # it is what the search looks through
    assert sums_in_any_order(lowered) == []
    assert "select_and_scatter" not in lowered


def test_without_it_they_do(settings_of):
    """Merged tokens and their sizes, in two layers, and words: the search finds them."""
    assert len(sums_in_any_order(program(settings_of("tome", deterministic=False)))) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trajvit", "tome", "rlt"])
def test_values_and_gradients_are_the_same(name, settings_of, random_model, assert_close):
    run = nnx.jit(gradients)
    found = []
    for deterministic in (True, False):
        settings = settings_of(name, deterministic=deterministic)
        found.append(run(random_model(settings), *inputs(settings)))
    assert_close(*(jax.tree.map(np.asarray, nnx.to_pure_dict(one[1])) for one in found))
    assert_close(found[0][0], found[1][0])


@pytest.mark.parametrize(
    "changes", [{"trajvit": TrajViTSettings(pooling="corners")}, {"impl": "reference"}]
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_what_has_no_such_form_is_refused(changes, tiny):
    with pytest.raises(ValueError, match=r"with deterministic=True, set impl='fast' and"):
        tiny(deterministic=True, **changes)
