"""The released ViT3D's numbers: outputs, patch tokens, attention and gradients."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert import released
from trajvit_jax.convert.conversion import abstract_model, convert
from trajvit_jax.convert.kinds import Choices
from trajvit_jax.convert.pieces import fill, write
from trajvit_jax.models.transformer import trace_stack

TABLE = "positional_embeddings_3d"
BUILT_FOR = 8  # frames


@pytest.fixture(scope="module")
def g(golden):
    return golden("vit3d_vivit")


@pytest.fixture(scope="module")
def video(g):
    """Channels last, in the range that the golden program was fed with."""
    return np.moveaxis(g["in/video_u8"], 1, -1).astype(np.float32) / 127.5 - 1


class ViT3D(nnx.Module):
    """The video side of our ViT3D, without the text side that the file lacks."""

    def __init__(self, converted):
        converted.report.raise_if_incomplete()
        model = abstract_model(converted.settings)
        self.tokenizer = fill(model.tokenizer, below(converted.arrays, "tokenizer."))
        self.encoder = fill(model.encoder, below(converted.arrays, "encoder."))

    def tokens(self, video):
        labels = jnp.zeros((*video.shape[:2], 1, 1), jnp.int32)
        return self.tokenizer(video, labels, train=False)

    def __call__(self, video):
        return self.encoder(self.tokens(video)[0])

    def without_cls(self, video):
        """States, patch tokens, positions and attention of the first layer, as with pool=None."""
        tokens, named = self.tokens(video)
        x = tokens.values[:, 1:]
        everything = jnp.ones((len(x), 1, 1, x.shape[1]), bool)
        attention = trace_stack(self.encoder.layers, x, everything).attention[0]
        return self.encoder.run(x, everything), named["patches"], attention

    def attention(self, video):
        return self.encoder.trace(self.tokens(video)[0]).attention[0]


def choices(g):
    """The number of heads, which weights do not tell."""
    return Choices(heads=g["vit3d_poolcls_norm0/attn_l0"].shape[1])


def make(g, *, norm, frames):
    """The model for a number of frames: as theirs, one for fewer reads the table's first rows."""
    state = below(g, "vit3d/sd/")
    if not norm:
        state = {k: v for k, v in state.items() if not k.startswith("norm.")}
    rows = (state[TABLE].shape[1] - 1) * frames // BUILT_FOR
    state[TABLE] = state[TABLE][:, : rows + 1]
    return convert(state, choices=choices(g))


@pytest.mark.parametrize("norm", [0, 1])
@pytest.mark.parametrize("frames", [8, 4])
def test_outputs(g, video, assert_golden, frames, norm):
    converted = make(g, norm=norm, frames=frames)
    assert converted.layout.kind == "vit3d"
    assert converted.settings.frames == frames
    assert all(name.startswith("vit2d.") for name in converted.report.left_over)
    model, clip = ViT3D(converted), jnp.asarray(video[:, :frames])
    assert_golden(
        nnx.jit(ViT3D.__call__)(model, clip), g[f"vit3d_poolcls_norm{norm}/out_t{frames}"]
    )
    states, patches, attention = nnx.jit(ViT3D.without_cls)(model, clip)
    assert_golden(states, g[f"vit3d_poolnone_norm{norm}/out_t{frames}"], "without CLS")
    if frames == 8:
        assert_golden(patches, g[f"vit3d_poolnone_norm{norm}/tokens"], "patches")
        used = g[f"vit3d_poolcls_norm{norm}/pos_used"]
        assert_golden(model.tokenizer.position[...], used[0], "positions")
        assert_golden(attention, g[f"vit3d_poolnone_norm{norm}/attn_l0"], "without CLS")
        own = nnx.jit(ViT3D.attention)(model, clip)
        assert_golden(own, g[f"vit3d_poolcls_norm{norm}/attn_l0"], "attention")


def test_gradients(g, video, assert_golden):
    expected = below(g, "vit3d_grad/")
    weight = jnp.asarray(expected.pop("loss_weight"))
    converted = make(g, norm=0, frames=8)
    model, clip = ViT3D(converted), jnp.asarray(video[:, :8])

    @nnx.jit
    def gradients(model):
        return nnx.grad(lambda model: (model(clip) * weight).sum() / 100)(model)

    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(gradients(model)))
    ours = {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}
    theirs = write(released.vit3d(converted.settings), ours)
    # The image ViT's layers are the same arrays under a second name.
    for name, gradient in expected.items():
        assert_golden(theirs[re.sub("^vit2d[.]", "", name)], gradient, name)


def test_layers_under_their_second_name_alone(g):
    state = below(g, "vit3d/sd/")
    second = {k: v for k, v in state.items() if not k.startswith("encoder.")}
    both = convert(state, choices=choices(g))
    one = convert(second, choices=choices(g))
    assert one.report.is_complete
    for name, array in both.arrays.items():
        np.testing.assert_array_equal(one.arrays[name], array, err_msg=name)
