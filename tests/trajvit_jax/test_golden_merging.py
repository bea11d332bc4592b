"""Numbers of the authors' own programs: token merging, run-length tokens and TokenLearner.

TokenLearner 1.1 is the version that is built: arrays of 1.0 in its file (`v10`, `v10_mean`,
`encoder_v10`) are compared with nothing.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert.pieces import fill
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    RLTSettings,
    TokenLearnerSettings,
    ToMeSettings,
    ViT3DSettings,
)
from trajvit_jax.models.token_learner import TokenFuser, TokenLearner
from trajvit_jax.models.tokens import no_mask, one_video_a_row
from trajvit_jax.models.transformer import Encoder, unstack
from trajvit_jax.models.video_tokens import rlt, token_learner
from trajvit_jax.models.video_tokens.rlt import RunLengthTokens
from trajvit_jax.models.video_tokens.token_learner import LearnedTokens
from trajvit_jax.models.video_tokens.tome import MergedTokens, merging_layer
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens
from trajvit_jax.ops.run_length import changes, run_lengths, run_starts
from trajvit_jax.ops.token_merging import (
    can_merge,
    follow,
    match_tokens,
    merge_schedule,
    merge_tokens,
)

HEADS = 4  # of both timm ViTs, which no array tells
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def filled(build, arrays):
    return fill(nnx.eval_shape(build), {k: np.asarray(v) for k, v in arrays.items()})


def timm_encoder(state, eps):
    """Our encoder with a timm ViT's layers in it, and no CLS."""
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def stacked(name, form=lambda x: x):
        return np.stack([form(state[f"blocks.{layer}.{name}"]) for layer in range(depth)])

    width = state["blocks.0.norm1.weight"].size
    joint = stacked("attn.qkv.weight", lambda x: x.T.reshape(width, 3, width))
    if "blocks.0.attn.qkv.bias" in state:
        joint_bias = stacked("attn.qkv.bias", lambda x: x.reshape(3, width))
    else:
        query, value = stacked("attn.q_bias"), stacked("attn.v_bias")
        joint_bias = np.stack([query, np.zeros_like(query), value], axis=1)
    arrays = {
        "cls": np.zeros(width, np.float32),
        "layers.query_key_value.kernel": joint,
        "layers.query_key_value.bias": joint_bias,
    }
    for ours, theirs in (
        ("attention_out", "attn.proj"),
        ("mlp_in", "mlp.fc1"),
        ("mlp_out", "mlp.fc2"),
    ):
        arrays[f"layers.{ours}.kernel"] = stacked(f"{theirs}.weight", np.transpose)
        arrays[f"layers.{ours}.bias"] = stacked(f"{theirs}.bias")
    for ours, theirs in (("norm_attention", "norm1"), ("norm_mlp", "norm2")):
        arrays[f"layers.{ours}.scale"] = stacked(f"{theirs}.weight")
        arrays[f"layers.{ours}.bias"] = stacked(f"{theirs}.bias")
    if "norm.weight" in state:
        arrays |= {"norm.scale": state["norm.weight"], "norm.bias": state["norm.bias"]}
    settings = EncoderSettings(
        width=width,
        depth=depth,
        heads=HEADS,
        mlp=state["blocks.0.mlp.fc1.weight"].shape[0],
        layer_norm_eps=eps,
        final_norm="norm.weight" in state,
    )
    return filled(lambda: Encoder(settings, rngs=nnx.Rngs(0)), arrays)


@pytest.mark.parametrize("cls", [False, True])
def test_bipartite_matching(golden, assert_golden, cls):
    g = golden("tome")
    x, size = jnp.asarray(g["bsm/x"]), jnp.asarray(g["bsm/size"])[..., 0]
    cases = below(g, f"bsm/cls{cls:d}_r")
    counts = {int(name.partition("/")[0]) for name in cases}
    assert counts
    for merged in counts:
        expected = below(cases, f"{merged}/")
        count = min(merged, can_merge(x.shape[1], cls=cls))
        place = match_tokens(jnp.asarray(g["bsm/metric"]), count, cls=cls)
        source = jax.nn.one_hot(place, x.shape[1] - count).swapaxes(1, 2)
        np.testing.assert_array_equal(source, expected["source"], err_msg=f"r={merged}")
        alone, ones = merge_tokens(x, jnp.ones_like(size), place, count)
        assert_golden(alone, expected["wavg_x_nosize"], f"r={merged}")
        assert_golden(alone, expected["merge_mean"], f"r={merged}")
        assert_golden(ones[..., None], expected["wavg_size_nosize"], f"r={merged}")
        means, sizes = merge_tokens(x, size, place, count)
        assert_golden(means, expected["wavg_x"], f"r={merged}")
        assert_golden(sizes[..., None], expected["wavg_size"], f"r={merged}")
        back = jnp.take_along_axis(means, place[..., None], axis=1)
        assert_golden(back, expected["unmerge_of_wavg"], f"r={merged}")


def test_schedules(golden):
    schedules = below(golden("tome"), "parse_r/")
    assert len(schedules) > 1
    for name, expected in schedules.items():
        if name == "list":  # which is its own schedule
            continue
        depth, merged, *rest = name.split("_")
        inflection = float(rest[0].removeprefix("inflect")) if rest else 0.0
        schedule = merge_schedule(int(depth[1:]), int(merged[1:]), inflection)
        assert schedule == tuple(expected), name


def merged_a_layer(g, outputs):
    return g["vit/x"].shape[1] - outputs["block0_x"].shape[1]


@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("cls", [False, True])
def test_merging_layers(golden, assert_golden, cls, weigh):
    g = golden("tome")
    expected = below(g, f"vit/cls{cls:d}_prop{weigh:d}/")
    encoder = timm_encoder(below(g, "vit/sd/"), eps=1e-6)
    merged = merged_a_layer(g, expected)

    @nnx.jit
    def run(encoder, x):
        size, trail = jnp.ones(x.shape[:2]), []
        source = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        for layer in unstack(encoder.layers):
            x, size, place = merging_layer(layer, x, size, merged, weigh=weigh, cls=cls)
            source = follow(source, place)
            trail.append((x, size))
        return encoder.finish(x), source, trail

    out, source, trail = run(encoder, jnp.asarray(g["vit/x"]))
    for number, (x, size) in enumerate(trail):
        assert_golden(x, expected[f"block{number}_x"], f"layer {number}")
        assert_golden(size[..., None], expected[f"block{number}_size"], f"sizes {number}")
    assert_golden(out, expected["out"])
    held = jax.nn.one_hot(source, out.shape[1]).swapaxes(1, 2)
    np.testing.assert_array_equal(held, expected["source"])


@pytest.mark.parametrize("weigh", [False, True])
def test_merged_tokens_are_those_of_the_layers(golden, assert_golden, weigh):
    g = golden("tome")
    expected = below(g, f"vit/cls1_prop{weigh:d}/")
    encoder = timm_encoder(below(g, "vit/sd/"), eps=1e-6)
    patches = g["vit/x"].shape[1] - 1
    settings = ModelSettings(
        name="tome",
        image_size=16,
        frames=2 * patches,
        encoder=encoder.settings,
        vit3d=ViT3DSettings(patch=16, tubelet=2),
        tome=ToMeSettings(merged=merged_a_layer(g, expected), weigh=weigh),
    )
    tokenizer = MergedTokens(settings, rngs=nnx.Rngs(0))

    @nnx.jit
    def run(encoder, x):
        encoder.cls[...] = x[0, 0]  # our CLS is the encoder's own, alike for all videos
        given = one_video_a_row(x, jnp.ones(x.shape[:2], bool))
        states, _, named = tokenizer.encode(encoder, given, 1)
        return states, named["labels"], named["sizes"]

    for number, x in enumerate(g["vit/x"]):
        states, labels, sizes = run(encoder, jnp.asarray(x[None]))
        assert_golden(states, expected["out"][[number]])
        last = f"block{encoder.settings.depth - 1}_size"
        assert_golden(sizes, expected[last][[number], :, 0])
        held = jax.nn.one_hot(labels.reshape(-1), states.shape[1]).T
        np.testing.assert_array_equal(held, expected["source"][number][:, 1:])


def normalized(g):
    video = np.moveaxis(g["in/video_u8"], 1, -1)
    return jnp.asarray((video.astype(np.float32) / 255 - MEAN) / STD)


def tubelets(g):
    """Of the transformer, and of all arrays whose names do not say otherwise."""
    tubelet, patch, _ = g["vit/sd/patch_embed.proj.weight"].shape[2:]
    return ViT3DSettings(patch=patch, tubelet=tubelet)


def test_run_lengths(golden):
    g = golden("rlt")
    own = tubelets(g)
    change = np.asarray(changes(normalized(g), tubelet=own.tubelet, patch=own.patch))
    thresholds = {name.partition("/")[0] for name in g if name.startswith("th")}
    assert thresholds
    for threshold in thresholds:
        expected = below(g, f"{threshold}/")
        kept = change > float(threshold.removeprefix("th"))
        np.testing.assert_array_equal(kept.reshape(len(kept), -1), expected["mask"])
        np.testing.assert_array_equal(kept.sum((1, 2, 3)), expected["num_tokens"])
        lengths = np.asarray(run_lengths(jnp.asarray(kept)))
        np.testing.assert_array_equal(lengths[kept], expected["lengths_token_order"])
        starts = np.asarray(run_starts(jnp.asarray(kept)))
        where = np.ogrid[: len(kept), : kept.shape[1], : kept.shape[2], : kept.shape[3]]
        counted = np.zeros(kept.shape, int)
        np.add.at(counted, (where[0], starts, where[2], where[3]), 1)
        np.testing.assert_array_equal(counted[kept], lengths[kept])
    raw = jnp.asarray(np.moveaxis(g["in/video_u8"], 1, -1))
    plain = np.asarray(changes(raw, tubelet=own.tubelet, patch=own.patch)) > 2
    np.testing.assert_array_equal(plain.reshape(len(plain), -1), g["u8_th2/mask"])
    fine = np.asarray(changes(normalized(g)[:, :8], tubelet=1, patch=8)) > 0.1
    np.testing.assert_array_equal(fine.reshape(len(fine), -1), g["tub1_p8_th0.1/mask"])


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.1])
def test_run_length_transformer(golden, assert_golden, monkeypatch, threshold, encoded):
    g = golden("rlt")
    state, video = below(g, "vit/sd/"), normalized(g)
    encoder = timm_encoder(state, eps=1e-5)
    settings = ModelSettings(
        name="rlt",
        image_size=video.shape[2],
        frames=video.shape[1],
        encoder=encoder.settings,
        vit3d=tubelets(g),
        rlt=RLTSettings(threshold=threshold or 0.0, length_encoding=encoded),
    )
    kernel = state["patch_embed.proj.weight"].transpose(2, 3, 4, 1, 0)
    [position] = [array for name, array in g.items() if name.startswith("sincos/pos_")]
    arrays = {
        "embed.kernel": kernel.reshape(-1, kernel.shape[-1]),
        "embed.bias": state["patch_embed.proj.bias"],
        "position": position,
    }
    if encoded:
        arrays["length"] = state["length_embed"][0]
    if encoded and threshold is None:
        # All tubelets are tokens there, those that repeat too: each a run of one.
        all_new = lambda *x, **sizes: 1 + changes(*x, **sizes)  # noqa: E731
        monkeypatch.setattr(rlt, "changes", all_new)
    elif encoded:
        # The authors' program reads lengths in another order than tokens.
        lengths = np.ones(g[f"th{threshold}/mask"].shape, np.int32)
        lengths[g[f"th{threshold}/mask"]] = g[f"th{threshold}/lengths_official_order"]
        monkeypatch.setattr(rlt, "run_lengths", lambda kept: lengths.reshape(kept.shape))
    kind = RunLengthTokens if encoded or threshold is not None else TubeletTokens
    tokenizer = filled(lambda: kind(settings, rngs=nnx.Rngs(0)), arrays)

    @nnx.jit
    def run(tokenizer, encoder, video):
        unused = jnp.zeros((*video.shape[:2], 1, 1), jnp.int32)
        tokens, _ = tokenizer(video, unused, train=False)
        used = (tokens.video > 0)[:, 1:]
        states = encoder.run(tokens.values[:, 1:], used[:, None, None])
        return (states * used[..., None]).sum(1) / used.sum(1, keepdims=True)

    pooled = np.asarray(run(tokenizer, encoder, video))
    centred = pooled - pooled.mean(-1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    normed = normed * state["fc_norm.weight"] + state["fc_norm.bias"]
    logits = normed @ state["head.weight"].T + state["head.bias"]
    for number, one in enumerate(logits):
        assert_golden(one[None, None], g[f"vit/out_len{encoded:d}_th{threshold}_b{number}"])


def weights_of_patches(state):
    mlp = {"hidden": "token_masking/Dense_0", "out": "token_masking/Dense_1"}
    return {
        **{f"weigh.norm.{kind}": state[f"LayerNorm_0/{kind}"] for kind in ("scale", "bias")},
        **{
            f"weigh.{ours}.{kind}": state[f"{theirs}/{kind}"]
            for ours, theirs in mlp.items()
            for kind in ("kernel", "bias")
        },
    }


def learner_of(state):
    bottleneck, tokens = state["token_masking/Dense_1/kernel"].shape
    width = state["LayerNorm_0/scale"].size
    build = lambda: TokenLearner(width, tokens, bottleneck, rngs=nnx.Rngs(0))  # noqa: E731
    return filled(build, weights_of_patches(state))


def fuser_of(state):
    bottleneck, tokens = state["token_masking/Dense_1/kernel"].shape
    width, normalize = state["LayerNorm_0/scale"].size, "fuser_mix_norm1/scale" in state
    arrays = {f"mix.{kind}": state[f"Dense_0/{kind}"] for kind in ("kernel", "bias")}
    if normalize:
        for ours, theirs in (("norm_before", "fuser_mix_norm1"), ("norm_after", "fuser_mix_norm2")):
            arrays |= {f"{ours}.{k}": state[f"{theirs}/{k}"] for k in ("scale", "bias")}

    def build():
        return TokenFuser(width, tokens, bottleneck, normalize=normalize, rngs=nnx.Rngs(0))

    return filled(build, arrays | weights_of_patches(state))


def scenic_encoder(state):
    """Our encoder with a scenic ViT's blocks in it, and no CLS."""
    depth = len({name.split("/")[0] for name in state if name.startswith("encoderblock")})

    def stacked(name, form=lambda x: x):
        return np.stack([form(state[f"encoderblock_{layer}/{name}"]) for layer in range(depth)])

    attention = "MultiHeadDotProductAttention_0"
    width, heads, _ = state[f"encoderblock_0/{attention}/query/kernel"].shape
    three = ("query", "key", "value")
    kernels = [stacked(f"{attention}/{n}/kernel", lambda x: x.reshape(width, -1)) for n in three]
    biases = [stacked(f"{attention}/{name}/bias", np.ravel) for name in three]
    arrays = {
        "cls": np.zeros(width, np.float32),
        "layers.query_key_value.kernel": np.stack(kernels, axis=2),
        "layers.query_key_value.bias": np.stack(biases, axis=1),
        "layers.attention_out.kernel": stacked(
            f"{attention}/out/kernel", lambda x: x.reshape(-1, width)
        ),
        "layers.attention_out.bias": stacked(f"{attention}/out/bias"),
        **{f"norm.{kind}": state[f"encoder_norm/{kind}"] for kind in ("scale", "bias")},
    }
    for ours, theirs in (("mlp_in", "MlpBlock_0/Dense_0"), ("mlp_out", "MlpBlock_0/Dense_1")):
        arrays |= {f"layers.{ours}.{k}": stacked(f"{theirs}/{k}") for k in ("kernel", "bias")}
    for ours, theirs in (("norm_attention", "LayerNorm_0"), ("norm_mlp", "LayerNorm_1")):
        arrays |= {f"layers.{ours}.{k}": stacked(f"{theirs}/{k}") for k in ("scale", "bias")}
    settings = EncoderSettings(
        width=width,
        depth=depth,
        heads=heads,
        mlp=arrays["layers.mlp_in.bias"].shape[-1],
        layer_norm_eps=1e-6,
        gelu="tanh",
    )
    return filled(lambda: Encoder(settings, rngs=nnx.Rngs(0)), arrays)


def test_token_learner_and_fusers(golden, assert_golden):
    g = golden("tokenlearner")
    patches = jnp.asarray(g["in/x4"])
    patches = patches.reshape(len(patches), -1, patches.shape[-1])
    learn = nnx.jit(lambda learner, x: learner(x))
    tokens, weights = learn(learner_of(below(g, "v11/params/")), patches)
    assert_golden(tokens, g["v11/out"])
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    fuse = nnx.jit(lambda fuser, *x: fuser(*x))
    for name in ("fuser", "fuser_nonorm"):
        fuser = fuser_of(below(g, f"{name}/params/"))
        fused = fuse(fuser, jnp.asarray(g["in/tokens"]), jnp.asarray(g["in/orig"]))
        assert_golden(fused, g[f"{name}/out"], name)


def test_a_new_fuser_says_nothing_and_learns():
    tokens, patches = (jax.random.normal(jax.random.key(i), (2, n, 8)) for i, n in ((0, 3), (1, 5)))
    fuser = TokenFuser(8, 3, 4, rngs=nnx.Rngs(0))
    fused, gradient = nnx.value_and_grad(lambda own: own(tokens, patches).sum())(fuser)
    assert fused == 0 and jnp.abs(fuser(tokens, patches)).max() == 0
    assert jnp.abs(gradient.mix.kernel[...]).max() > 0


@pytest.mark.parametrize("fuse", [False, True])
def test_token_learner_in_an_encoder(golden, assert_golden, monkeypatch, fuse):
    g = golden("tokenlearner")
    name = "encoder_fuser" if fuse else "encoder_v11"
    state = below(g, f"{name}/params/")
    encoder, count = scenic_encoder(state), 2 if fuse else 1
    x = jnp.asarray(g["in/seq"] + state["posembed_input/pos_embedding"])
    tokens = state["TokenLearnerModuleV11_0/token_masking/Dense_1/bias"].size
    steps = g["encoder_v11/out"].shape[1] // tokens  # the fuser's output has all patches again
    settings = ModelSettings(
        name="token_learner",
        image_size=4 * math.isqrt(x.shape[1] // steps),
        frames=2 * steps,
        encoder=encoder.settings,
        vit3d=ViT3DSettings(patch=4, tubelet=2),
        token_learner=TokenLearnerSettings(tokens=tokens, place=0.5, fuse=fuse),
    )
    tokenizer = LearnedTokens(settings, rngs=nnx.Rngs(0))
    learners = [learner_of(below(state, f"TokenLearnerModuleV11_{i}/")) for i in range(count)]
    fusers = [fuser_of(below(state, f"TokenFuser_{i}/")) for i in range(count if fuse else 0)]
    assert len(tokenizer.learners) == count and len(tokenizer.fusers) == len(fusers)
    tokenizer.learners, tokenizer.fusers = nnx.List(learners), nnx.List(fusers)
    # The authors' encoder has no CLS: nobody sees ours.
    monkeypatch.setattr(token_learner, "no_mask", lambda x: no_mask(x).at[..., 0].set(False))

    @nnx.jit
    def run(tokenizer, encoder, x):
        with_cls = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
        given = one_video_a_row(with_cls, jnp.ones(with_cls.shape[:2], bool))
        return tokenizer.encode(encoder, given, len(x))[0][:, 1:]

    assert_golden(run(tokenizer, encoder, x), g[f"{name}/out"])
