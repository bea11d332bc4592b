"""The released ViT3D's and ViViT's outputs, through the entries for parity.

Of ViViT the factorised encoder with a CLS (model 2) is what is built: the file's arrays of mean
pooling and of factorised self-attention are compared with nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert import released
from trajvit_jax.convert.official import encode_vit3d, encode_vivit
from trajvit_jax.convert.official_patches import ReleasedPatches
from trajvit_jax.convert.pieces import fill, paths, read, their_shapes
from trajvit_jax.convert.sizes import vivit_settings

GOLDENS = Path(os.environ.get("TRAJVIT_GOLDENS", Path(__file__).parents[1] / "goldens"))


@pytest.fixture(scope="module")
def g(golden):
    return golden("vit3d_vivit")


@pytest.fixture(scope="module")
def video(g):
    """[b, 3, t, h, w], in the range that the golden program was fed with."""
    return g["in/video_u8"].astype(np.float32) / 127.5 - 1


def heads(g):
    return g["vit3d_poolcls_norm0/attn_l0"].shape[1]


def vit3d_arrays(g, *, norm):
    state = below(g, "vit3d/sd/")
    return state if norm else {k: v for k, v in state.items() if not k.startswith("norm.")}


@pytest.mark.parametrize("norm", [0, 1])
def test_vit3d(g, video, assert_golden, norm):
    state, outputs = vit3d_arrays(g, norm=norm), below(g, f"vit3d_poolcls_norm{norm}/")
    clips = {"out_t8": video[:, :, :8], "out_t4": video[:, :, :4], "out_t16_interp": video}
    clips["out_t8_btchw"] = video[:, :, :8].swapaxes(1, 2)
    for name, clip in clips.items():
        assert_golden(encode_vit3d(state, clip, heads=heads(g)), outputs[name], name)


def test_some_of_vit3d_s_tubelets(g, video, assert_golden):
    state, keep = vit3d_arrays(g, norm=0), g["in/keep_idx"]
    states = encode_vit3d(state, video[:, :, :8], heads=heads(g), keep=keep)
    assert_golden(states, g["vit3d_poolcls_norm0/out_masked"])


def test_vivit(g, video, assert_golden):
    state, outputs = below(g, "vivit/sd/"), below(g, "vivit_factorized_encoder_cls/")
    for name, frames in (("out_t8", 8), ("out_t16_interp", 16)):
        states = encode_vivit(state, video[:, :, :frames], heads=heads(g))
        assert_golden(states, outputs[name], name)


def test_vivit_s_patches(g, video, assert_golden):
    state, expected = below(g, "vivit/sd/"), g["vivit_factorized_encoder_cls/patch_embed"]
    settings = vivit_settings(state, heads=heads(g), image_size=video.shape[-1])
    shapes = nnx.eval_shape(lambda: ReleasedPatches(settings, rngs=nnx.Rngs(0)))
    arrays, _ = read(tuple(released.vivit(settings)), state, paths(shapes))
    tokenizer = fill(shapes.tokenizer, below(arrays, "tokenizer."))
    clip = np.moveaxis(video[:, :, : expected.shape[1] * tokenizer.tubelet], 1, -1)
    patches = tokenizer.embed_blocks(tokenizer.blocks(jnp.asarray(clip)))
    assert_golden(patches.reshape(expected.shape), expected)


@pytest.mark.parametrize("size", ["base", "large"])
def test_vivit_has_the_released_names_and_shapes(size):
    path = GOLDENS / f"official_vivit_keys_vit-{size}.json"
    found = {name: tuple(shape) for name, shape in json.loads(path.read_text("utf-8")).items()}
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}
    settings = vivit_settings(arrays)
    assert settings.vivit.temporal_depth * 2 == settings.encoder.depth
    shapes = paths(nnx.eval_shape(lambda: ReleasedPatches(settings, rngs=nnx.Rngs(0))))
    assert their_shapes(released.vivit(settings), shapes) == found


def test_what_does_not_fit_is_said(g, video):
    state = vit3d_arrays(g, norm=1)
    with pytest.raises(ValueError, match=r"expected video \[b, 3, t, h, w\]"):
        encode_vit3d(state, video[:, :2, :8], heads=4)
    with pytest.raises(ValueError, match="tubelets of 2 frames"):
        encode_vit3d(state, video[:, :, :7], heads=4)
    with pytest.raises(ValueError, match=r"within 0\.\.63"):
        encode_vit3d(state, video[:, :, :8], heads=4, keep=np.full((2, 3), 64))
    with pytest.raises(ValueError, match="do not fill an image of 30 px"):
        encode_vivit(below(g, "vivit/sd/"), video[..., :30, :30], heads=4)
    broken = video.copy()
    broken[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        encode_vit3d(state, broken, heads=4)


@pytest.mark.usefixtures("annotations_unchecked")
def test_inputs_of_another_kind_are_named(g, video):
    state = vit3d_arrays(g, norm=1)
    with pytest.raises(ValueError, match="normalized floats, got uint8"):
        encode_vit3d(state, g["in/video_u8"], heads=4)
    with pytest.raises(ValueError, match="nothing to read"):
        encode_vivit(below(g, "vivit/sd/"), video[:0], heads=4)
    for keep in ([0, 1], [[0.5], [1.5]]):
        with pytest.raises(ValueError, match=r"keep must be whole numbers \[2, k\]"):
            encode_vit3d(state, video[:, :, :8], heads=4, keep=keep)
