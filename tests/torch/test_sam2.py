"""The extra `sam2`: SAM 2's video predictor builds, without CUDA and without weights."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.usefixtures("torch")
def test_video_predictor_builds():
    build_sam = pytest.importorskip("sam2.build_sam", reason="sam2 is not installed: `make sam2`")
    predictor = build_sam.build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        ckpt_path=None,
        device="cpu",
        hydra_overrides_extra=["++model.image_size=256"],
    )
    assert predictor.image_size == 256
