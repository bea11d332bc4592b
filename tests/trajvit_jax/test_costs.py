"""Tokens and FLOPs by formula, against numbers counted otherwise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from trajvit_jax.models.costs import cost_of
from trajvit_jax.models.flops import NoFlopCount, count_flops, count_forward
from trajvit_jax.models.settings import (
    NAMES,
    SIZES,
    EncoderSettings,
    ModelSettings,
    ResamplerSettings,
    ResNetSettings,
    RLTSettings,
    ToMeSettings,
    TrajViTSettings,
    ViT3DSettings,
)
from trajvit_jax.models.summary import comparison
from trajvit_jax.sharding import MeshSettings, make_mesh

# GFLOPs of a clip of 16 frames at 224 px, counted by hand of the architectures (2 a product).
BY_HAND = {
    ("vit3d", "B"): 361,
    ("vit3d", "L"): 1195,
    ("vivit", "B"): 144,
    ("vivit", "L"): 499,
    ("tome", "B"): 258.7,
    ("tome", "L"): 562,
    ("token_learner", "B"): 188,
    ("token_learner", "L"): 620,
}


@pytest.mark.parametrize(("name", "size"), BY_HAND)
def test_flops_by_formula(name, size):
    total = cost_of(ModelSettings(name=name, encoder=SIZES[size])).total
    assert total / 1e9 == pytest.approx(BY_HAND[name, size], abs=0.6)


@pytest.mark.parametrize("name", NAMES)
def test_the_formula_is_near_xla_s_count(name):
    image = {"frames": 1, "vit3d": ViT3DSettings(tubelet=1)} if name == "vit" else {}
    encoder = EncoderSettings(width=768, depth=2, heads=12, mlp=3072)
    settings = ModelSettings(name=name, encoder=encoder, tome=ToMeSettings(merged=300), **image)
    found, formula = count_forward(settings), cost_of(settings)
    # XLA counts norms and softmax, too, and no products with the padding of convolutions.
    assert formula.total == pytest.approx(found.total, rel=0.07)
    assert formula.transformer == pytest.approx(found.transformer, rel=0.05)


def test_flops_are_counted_on_a_cpu_whatever_device_computes(monkeypatch):
    x, y = jnp.ones((3, 5)), jax.ShapeDtypeStruct((5, 7), jnp.float32)
    assert count_flops(jnp.matmul, x, y) == 2 * 3 * 5 * 7

    def product(x, y):  # An ambient mesh would choose the device.
        assert jax.sharding.get_abstract_mesh().empty
        return x @ y

    with jax.set_mesh(make_mesh(MeshSettings(), jax.devices()[:1])):
        assert count_flops(product, x, y) == 2 * 3 * 5 * 7
        assert not jax.sharding.get_abstract_mesh().empty
    asked = []

    def none(*, backend):
        asked.append(backend)
        raise RuntimeError("Unknown backend")

    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(NoFlopCount, match="JAX_PLATFORMS=cuda,cpu"):
        count_flops(jnp.matmul, x, y)
    assert asked == ["cpu"]


@pytest.mark.parametrize("trajectories", [196, 400])
def test_the_formula_pools_each_stage_as_the_program_does(trajectories):
    # More than the 196 or 49 cells of a stage, whose channels are so few that their sums are
    # projected all the same.
    resnet = ResNetSettings(stem=8, widths=(8, 16, 32, 64), depths=(1, 1, 1, 1))
    own = TrajViTSettings(max_trajectories=trajectories, resnet=resnet)
    encoder = EncoderSettings(width=192, depth=1, heads=3, mlp=192)
    settings = ModelSettings(image_size=112, frames=8, encoder=encoder, trajvit=own)
    found, formula = count_forward(settings), cost_of(settings)
    tokenizer = found.total - found.transformer
    assert formula.tokenizer == pytest.approx(tokenizer, rel=0.12)


RESAMPLERS = {
    "two layers": {"resampler": ResamplerSettings(depth=2)},
    "two layers of positions": {"position_depth": 2},
    "two queries": {"resampler": ResamplerSettings(queries=2)},
    "four queries": {"resampler": ResamplerSettings(queries=4)},
    "latent blocks": {"resampler": ResamplerSettings(depth=2, latent_block=True)},
    "learned positions": {"resampler": ResamplerSettings(frame_positions="learned")},
    "narrow features": {"feature_width": 64},
    "no position": {"position": "none"},
    "frames told": {"position": "boxes_and_frames"},
    "released": {
        "position": "centers",
        "position_features": "released",
        "resampler": ResamplerSettings(depth=2),
        "queries_as": "sum",
    },
}


@pytest.mark.parametrize("changes", RESAMPLERS.values(), ids=RESAMPLERS.keys())
def test_the_formula_is_near_xla_s_count_whatever_reads_trajectories(changes):
    # A small backbone, so that what reads its features is most of the cost.
    resnet = ResNetSettings(stem=8, widths=(8, 16), depths=(1, 1))
    own = TrajViTSettings(max_trajectories=40, resnet=resnet, **changes)
    encoder = EncoderSettings(width=192, depth=1, heads=3, mlp=192)
    settings = ModelSettings(image_size=64, frames=8, encoder=encoder, trajvit=own)
    assert cost_of(settings).total == pytest.approx(count_forward(settings).total, rel=0.15)


def test_shared_rows_halve_run_length_tokens_cost():
    alone = ModelSettings(name="rlt", encoder=SIZES["B"])
    shared = dataclasses.replace(alone, rlt=RLTSettings(group=2, slots=1569))
    assert cost_of(shared).transformer * 2 == cost_of(alone).transformer


def test_the_table_of_all_models(tiny):
    sizes = tiny(vit3d=ViT3DSettings(patch=8), tome=ToMeSettings(merged=5))
    lines = list(comparison(sizes, ("trajvit", "vit", "tome"), (4, 8)))
    assert len(lines) == 1 + 2 + 1 + 2
    assert [line.split()[0] for line in lines[1:]] == ["trajvit"] * 2 + ["vit"] + ["tome"] * 2
    assert "33 -> 23" in lines[4] and "65 -> 55" in lines[5]
    with pytest.raises(ValueError, match="vit3d does not read 3 frames"):
        next(comparison(sizes, ("trajvit", "vit3d"), (3,)))


def test_what_trajvit_is_fed_decides_how_many_tokens_there_are(tiny):
    sizes = tiny(image_size=64, trajvit=TrajViTSettings(max_trajectories=10))
    names = ("trajvit", "segmentation_only", "tracking_only")
    lines = list(comparison(sizes, names, (2, 4)))[1:]
    # CLS, and 10 trajectories, or of them 4 in each frame, or squares of 16 pixels.
    tokens = [int(line.split()[3]) for line in lines]
    assert tokens == [11, 11, 1 + 4 * 2, 1 + 4 * 4, 17, 17]


def test_settings_of_one_model_and_length_do_not_leak_into_others(tiny):
    def tokens(settings, name, frames):
        return list(comparison(settings, (name,), (frames,)))[1].split()[3]

    base = tiny(vit3d=ViT3DSettings(patch=8), rlt=RLTSettings(group=2, slots=20))
    assert [tokens(base, "rlt", frames) for frames in (4, 8)] == ["33", "65"]
    image = dataclasses.replace(base, name="vit", frames=1, vit3d=ViT3DSettings(8, tubelet=1))
    assert tokens(image, "vit3d", 8) == "65"
