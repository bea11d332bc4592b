"""Layers heed every argument that they take, and give what Flax's do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.linear import Conv, Linear, LinearGroups

LAYERS = {
    "linear": (Linear, nnx.Linear, (4, 3), {}, (2, 5, 4)),
    "groups": (LinearGroups, nnx.LinearGeneral, (4, (3, 2)), {}, (2, 5, 4)),
    "conv": (Conv, nnx.Conv, (2, 3, (3, 3)), {"strides": 2, "padding": 1}, (2, 8, 6, 2)),
    "patches": (Conv, nnx.Conv, (2, 3, (7, 7)), {"strides": 4, "padding": 3}, (2, 8, 8, 2)),
}
# What Flax's layers would do with these is not what these here do.
REFUSED = {
    "linear": {
        "precision": "highest",
        "dot_general": jax.lax.dot_general,
        "param_dtype": "float16",
    },
    "groups": {"axis": -2, "precision": "highest", "batch_axis": {0: 2}},
    "conv": {"feature_group_count": 2, "kernel_dilation": 2, "mask": jnp.ones((3, 3, 2, 3))},
    "patches": {"input_dilation": 2, "precision": "highest", "preferred_element_type": "float32"},
}


@pytest.mark.parametrize("changes", [{}, {"use_bias": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_parameters_and_results_are_those_of_flax(name, changes):
    ours, flax, sizes, more, shape = LAYERS[name]
    start = {"bias_init": nnx.initializers.normal(1.0)}
    one, other = (
        make(*sizes, **more, **changes, **start, rngs=nnx.Rngs(0)) for make in (ours, flax)
    )
    states = (nnx.to_pure_dict(nnx.state(layer, nnx.Param)) for layer in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *states)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    np.testing.assert_allclose(one(x), other(x), atol=1e-6)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, own in REFUSED.items() for argument in own]
)
def test_what_would_not_be_heeded_is_refused(name, argument):
    ours, flax, sizes, more, _ = LAYERS[name]
    given = more | {argument: REFUSED[name][argument]}
    nnx.eval_shape(lambda: flax(*sizes, **given, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=argument):
        ours(*sizes, **given, rngs=nnx.Rngs(0))
