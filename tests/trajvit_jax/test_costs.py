"""Tokens and FLOPs by formula, against numbers counted otherwise."""

from __future__ import annotations

import dataclasses

import pytest

from trajvit_jax.models.costs import cost_of
from trajvit_jax.models.flops import count_forward
from trajvit_jax.models.settings import (
    NAMES,
    SIZES,
    EncoderSettings,
    ModelSettings,
    RLTSettings,
    ToMeSettings,
    ViT3DSettings,
)
from trajvit_jax.models.summary import comparison

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


def test_shared_rows_halve_run_length_tokens_cost():
    alone = ModelSettings(name="rlt", encoder=SIZES["B"])
    shared = dataclasses.replace(alone, rlt=RLTSettings(group=2, slots=1569))
    assert cost_of(shared).transformer * 2 == cost_of(alone).transformer


def test_the_table_of_all_models(tiny):
    sizes = tiny(vit3d=ViT3DSettings(patch=8), tome=ToMeSettings(merged=5))
    lines = comparison(sizes, ("trajvit", "vit", "tome"), (4, 8)).splitlines()
    assert len(lines) == 1 + 2 + 1 + 2
    assert [line.split()[0] for line in lines[1:]] == ["trajvit"] * 2 + ["vit"] + ["tome"] * 2
    assert "33 -> 23" in lines[4] and "65 -> 55" in lines[5]
    # The network of TrajViT, whatever its records are.
    names = ("trajvit", "segmentation_only", "tracking_only")
    ours, *others = (line.split() for line in comparison(sizes, names, (4,)).splitlines()[1:])
    assert [name for name, *_ in others] == list(names[1:])
    assert all(numbers == ours[1:] for _, *numbers in others)
    with pytest.raises(ValueError, match="vit3d does not read 3 frames"):
        comparison(sizes, ("vit3d",), (3,))
