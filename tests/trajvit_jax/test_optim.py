"""Schedule and AdamW against the released program's numbers; which parameters decay."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trajvit_jax.optim import OptimizerSettings, decayed, optimizer, schedule


@pytest.mark.parametrize("variant", ["sched_a", "sched_b", "sched_c"])
def test_schedule_equals_the_released_one(golden, assert_golden, variant):
    g = golden("optim_text")
    warmup, total, floor = g[f"{variant}/warmup_total_minmulti"]
    settings = OptimizerSettings(
        learning_rate=1e-4, warmup_fraction=warmup / total, final_fraction=float(floor)
    )
    rates = schedule(settings, int(total))(np.arange(int(total)))
    # Scaled to a peak of 1, so that the tolerance is one of the rate's size.
    assert_golden(rates / 1e-4, g[f"{variant}/lr"][: int(total)] / 1e-4, variant)


def test_schedule_ends_at_its_floor():
    rate = schedule(OptimizerSettings(learning_rate=2.0, final_fraction=0.01), 60)
    assert float(rate(60)) == float(rate(500)) == pytest.approx(0.02)
    assert float(rate(2)) == pytest.approx(2.0)


def test_adamw_equals_the_released_one(golden, assert_golden):
    g = golden("optim_text")
    names = {
        "0.weight": ("first", "kernel"),
        "0.bias": ("first", "bias"),
        "1.weight": ("norm", "scale"),
        "1.bias": ("norm", "bias"),
        "2.weight": ("last", "kernel"),
        "2.bias": ("last", "bias"),
        "extra": ("extra", "kernel"),
    }

    def read(when):
        params = {}
        for name, (layer, kind) in names.items():
            params.setdefault(layer, {})[kind] = jnp.asarray(g[f"adamw/{when}/{name}"])
        return params

    def loss_of(params, x, y):
        x = x @ params["first"]["kernel"].T + params["first"]["bias"]
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * params["norm"]["scale"] + params["norm"]["bias"]
        x = x @ params["last"]["kernel"].T + params["last"]["bias"]
        return 5 * ((x + params["extra"]["kernel"].sum(0) - y) ** 2).sum()

    # The released steps had a constant rate: no warm-up and a floor at the peak.
    decay, undecayed = g["adamw/group_wd"]
    assert undecayed == 0
    settings = OptimizerSettings(
        learning_rate=LEARNING_RATE,
        weight_decay=float(decay),
        warmup_fraction=0.0,
        final_fraction=1.0,
    )
    tx, params = optimizer(settings, 3), read("before")
    state = tx.init(params)
    step = jax.jit(jax.value_and_grad(loss_of))
    for i in range(3):
        loss, gradients = step(params, g[f"adamw/x{i}"], g[f"adamw/y{i}"])
        assert_golden(loss, g[f"adamw/loss{i}"], f"loss {i}")
        assert_golden(optax.global_norm(gradients), g[f"adamw/grad_norm{i}"], f"norm {i}")
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    after = read("after")
    for layer, kind in names.values():
        assert_golden(params[layer][kind], after[layer][kind], f"{layer}.{kind}")


LEARNING_RATE = 1e-2


@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
def test_which_parameters_of_a_model_decay(tiny, random_model, name):
    params = nnx.state(random_model(tiny(name)), nnx.Param)
    leaves = jax.tree_util.tree_flatten_with_path(decayed(params))[0]
    decays = {jax.tree_util.keystr(path): value for path, value in leaves}
    assert len(decays) == len(jax.tree.leaves(params))
    for path, value in decays.items():
        table = path.startswith("['tokenizer']['position'].")  # ViT3D's position embedding
        assert value == ("'kernel'" in path or "'embedding'" in path or table), path
    assert not decays["['encoder']['layers']['mlp_in']['bias'].value"]
    assert decays["['encoder']['layers']['mlp_in']['kernel'].value"]


def test_decay_shrinks_kernels_only():
    settings = dataclasses.replace(OptimizerSettings(warmup_fraction=0.0), learning_rate=0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((3, 2)), "temperature": jnp.ones(())}
    tx = optimizer(settings, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert float(updates["kernel"][0, 0]) == pytest.approx(-0.1 * 0.02)
    assert not updates["bias"].any() and not updates["temperature"].any()
