"""Parameter counts against the released program's and Table 8 of the paper, and their table."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from trajvit_jax import config as configs
from trajvit_jax.models.settings import (
    SIZES,
    EncoderSettings,
    ModelSettings,
    ResamplerSettings,
    TrajViTSettings,
)
from trajvit_jax.models.summary import TABLE_8, parts, table

ROOT = Path(__file__).parents[2]
GOLDENS = Path(os.environ.get("TRAJVIT_GOLDENS", ROOT / "tests/goldens"))
COUNTS = json.loads((GOLDENS / "official_param_counts.json").read_text("utf-8"))
# Name in the file, encoder, layers of the appearance's and of the position's resampler.
RELEASED = [
    ("vit-base_d768_bb0", SIZES["B"], 2, 2),
    ("vit-large_d1024_bb0", SIZES["L"], 4, 2),
    ("vit-large_d512_bb0", EncoderSettings(width=512, mlp=2048), 4, 2),
]


def counts(settings: ModelSettings) -> dict[str, int]:
    return {part.name: part.parameters for part in parts(settings)}


@pytest.mark.parametrize(("name", "encoder", "appearance", "position"), RELEASED)
def test_released_models_have_as_many_parameters_as_their_program_says(
    name, encoder, appearance, position
):
    found = counts(
        ModelSettings(
            encoder=dataclasses.replace(encoder, final_norm=False, passes=2),
            trajvit=TrajViTSettings(
                position="centers",
                position_features="released",
                resampler=ResamplerSettings(depth=appearance),
                position_depth=position,
                queries_as="sum",
            ),
        )
    )
    said = COUNTS[name]
    assert found["backbone and projection"] == said["resnet_total"]
    # Every layer there counts its rotary frequencies, which are not trained.
    frequencies = (appearance + position) * (encoder.width // encoder.heads // 4)
    resamplers = said["app_perceiver"] + said["pos_perceiver"] - frequencies
    assert found["resamplers"] == resamplers
    assert found["transformer"] == said["vit_encoder"] + said["cls"]
    assert "position features" not in found
    used = sum(found[part] for part in ("backbone and projection", "resamplers", "transformer"))
    assert used == said["total_used"] - frequencies


@pytest.mark.parametrize("size", ["base", "large"])
def test_vit3d_has_as_many_parameters_as_the_released_one(size):
    encoder = SIZES[size[0].upper()]
    found = counts(ModelSettings(name="vit3d", encoder=encoder))
    said = COUNTS[f"vit3d_vit-{size}"]
    # Ours has no row of positions that nothing reads, and a final norm.
    assert found["patches"] == said["patch"] + said["pos"] - encoder.width
    assert found["transformer"] == said["encoder"] + 3 * encoder.width


def test_the_paper_s_model_has_the_parameters_of_its_table():
    found = counts(ModelSettings())
    assert found["transformer"] / 1e6 == pytest.approx(TABLE_8["transformer"], rel=0.01)
    assert found["resamplers"] / 1e6 == pytest.approx(TABLE_8["resamplers"], rel=0.01)
    # Projections to 512 are what the table's 11.6 M fits.
    narrow = counts(ModelSettings(trajvit=TrajViTSettings(feature_width=512)))
    widen = 512 * 1024 + 1024
    projected = narrow["backbone and projection"] - widen
    assert projected / 1e6 == pytest.approx(TABLE_8["backbone and projection"], rel=0.01)
    # One of the table's two linear maps; the paper does not say where the other stands.
    assert found["position features"] == 64 * 1024 + 1024
    video = sum(count for name, count in found.items() if not name.startswith("text"))
    assert video / 1e6 == pytest.approx(324, rel=0.01)


def test_the_table_names_the_paper_s_numbers_beside_the_paper_s_model_alone():
    text = table(ModelSettings())
    assert "304 M" in text and "16 frames, 256 tokens with CLS" in text
    assert text.count("GFLOPs by ") == 2
    small = ModelSettings(encoder=dataclasses.replace(SIZES["S"], depth=1))
    assert "304 M" not in table(small)


ABLATIONS = ("none", "resnet50", "hiera", "last_stage", "no_position", "mean", "queries2")
ABLATIONS += ("queries4", "width64", "width512", "released")


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_configs_of_the_ablations_are_models(ablation):
    config = configs.load(f"{ROOT}/configs/models.py:size=S,ablation={ablation}")
    settings = configs.to_settings(ModelSettings, config.model)
    assert settings.encoder.width == 384
    assert counts(settings)["transformer"] > 20e6


def test_unknown_ablations_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'hiera'"):
        configs.load(f"{ROOT}/configs/models.py:ablation=hierra")
