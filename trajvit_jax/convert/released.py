"""The released programs' names for our arrays: TrajViT, ViT3D, and the video-text model of each.

Names and layouts as in RAIVNLab/trajvit, whose ResNet, encoder layers and BERT are those of
transformers, and whose resampler is its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from trajvit_jax.convert import names
from trajvit_jax.convert.names import linear, norm
from trajvit_jax.convert.pieces import LINEAR, TOKEN, Form, Piece
from trajvit_jax.models.settings import ModelSettings, ResamplerSettings

# The first patch reads row 0 of the position table, and nothing the last row.
_POSITIONS = Form(lambda x: x[0, :-1], lambda x: np.concatenate([x, np.zeros_like(x[:1])])[None])

# Query, key and value in one matrix, one under the other; ours lie side by side.
_JOINT = Form(lambda x: x.T.reshape(x.shape[1], 3, -1), lambda x: x.reshape(x.shape[0], -1).T)
_JOINT_BIAS = Form(lambda x: x.reshape(3, -1), lambda x: x.reshape(-1))


def _resampler(theirs: str, ours: str, settings: ResamplerSettings) -> Iterator[Piece]:
    yield Piece(f"{theirs}.latents", f"{ours}.query")
    if settings.frame_positions == "learned":
        yield Piece(f"{theirs}.media_pos_emb", f"{ours}.positions")
    for layer in range(settings.depth):
        at, own = f"{theirs}.layers.{layer}.0", f"{ours}.layers.{layer}"
        yield from norm(f"{at}.norm_media", f"{own}.norm_frames")
        yield from norm(f"{at}.norm_latents", f"{own}.norm_query")
        yield from linear(f"{at}.to_q", f"{own}.to_query", bias=False)
        yield from linear(f"{at}.to_kv", f"{own}.to_key_value", bias=False)
        yield from linear(f"{at}.to_out", f"{own}.to_out", bias=False)
        if settings.latent_block:
            at, own = f"{theirs}.layers.{layer}.1", f"{own}.latent_block"
            yield from norm(f"{at}.norm1", f"{own}.norm_attention")
            yield from norm(f"{at}.norm2", f"{own}.norm_mlp")
            joint = f"{own}.query_key_value"
            yield Piece(f"{at}.self_attn.in_proj_weight", f"{joint}.kernel", form=_JOINT)
            yield Piece(f"{at}.self_attn.in_proj_bias", f"{joint}.bias", form=_JOINT_BIAS)
            yield from linear(f"{at}.self_attn.out_proj", f"{own}.attention_out")
            yield from linear(f"{at}.ff.0", f"{own}.mlp_in")
            yield from linear(f"{at}.ff.2", f"{own}.mlp_out")
    yield from norm(f"{theirs}.norm", f"{ours}.norm")


def trajvit(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """The released TrajViT (`VideoTokenViT`): ours are `tokenizer.` and `encoder.`.

    Its unused arrays (2-D embeddings, LayerNorm and pooler of the ViT) have no pieces.
    """
    own = settings.trajvit
    appearance = f"{theirs}appearance_tokenizer"
    yield from names.resnet(
        own.resnet, theirs=f"{appearance}.resnet.", ours="tokenizer.appearance.backbone."
    )
    stages = len(own.resnet.widths)
    for number, stage in enumerate(range(stages) if own.hierarchical else [stages - 1]):
        yield from linear(
            f"{appearance}.linear_layers.{stage}", f"tokenizer.appearance.project.{number}"
        )
    yield from norm(f"{appearance}.layer_norm", "tokenizer.appearance.norm")

    mapper, summary = f"{theirs}appearance_token_mapper", "tokenizer.appearance.summary"
    if own.appearance == "resampler":
        yield from _resampler(mapper, summary, own.resampler)
    else:
        yield from linear(mapper, summary)

    mapper = f"{theirs}pos_encoder.motion_token_mapper"
    if own.position != "none" and own.position_reader == "resampler":
        depth = own.position_depth or own.resampler.depth
        reader = dataclasses.replace(own.resampler, depth=depth)
        yield from _resampler(mapper, "tokenizer.position.summary", reader)
    elif own.position != "none" and own.position_reader == "mlp":
        yield from linear(f"{mapper}.0", "tokenizer.position.mlp.0")
        yield from linear(f"{mapper}.2", "tokenizer.position.mlp.1")

    yield Piece(f"{theirs}vision_encoder.cls_token", "encoder.cls", form=TOKEN)
    yield from names.encoder_layers(settings.encoder, theirs=f"{theirs}vision_encoder.vit.encoder.")
    if settings.encoder.final_norm:
        yield from norm(f"{theirs}norm", "encoder.norm")


def vit3d(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """The released `ViT3D`; without the image ViT that it keeps beside its own layers."""
    projection, form = f"{theirs}patch_embed_3d", names.patches(settings.vit3d)
    yield Piece(f"{projection}.weight", "tokenizer.embed.kernel", form=form)
    yield Piece(f"{projection}.bias", "tokenizer.embed.bias")
    table = f"{theirs}positional_embeddings_3d"
    yield Piece(table, "tokenizer.position", form=_POSITIONS)
    yield Piece(f"{theirs}cls_token", "encoder.cls", form=TOKEN)
    yield from names.encoder_layers(settings.encoder, theirs=f"{theirs}encoder.")
    if settings.encoder.final_norm:
        yield from norm(f"{theirs}norm", "encoder.norm")


def vivit(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """The released `Vivit`, of it the factorised encoder. Its attention has no biases."""
    pixels, embed = f"{theirs}to_patch_embedding", "tokenizer.embed"
    t, p = settings.vit3d.tubelet, settings.vit3d.patch

    def to_ours(x: np.ndarray) -> np.ndarray:
        # A tubelet's numbers are in the order (p1 p2 t c) there, (t p1 p2 c) here.
        x = x.reshape(*x.shape[:-1], p, p, t, 3)
        return np.moveaxis(x, -2, -4).reshape(*x.shape[:-4], -1)

    def to_theirs(x: np.ndarray) -> np.ndarray:
        x = x.reshape(*x.shape[:-1], t, p, p, 3)
        return np.moveaxis(x, -4, -2).reshape(*x.shape[:-4], -1)

    order = Form(to_ours, to_theirs)
    yield Piece(f"{pixels}.1.weight", "tokenizer.norm_pixels.scale", form=order)
    yield Piece(f"{pixels}.1.bias", "tokenizer.norm_pixels.bias", form=order)
    kernel = Form(lambda x: to_ours(x).T, lambda x: to_theirs(x.T))
    yield Piece(f"{pixels}.2.weight", f"{embed}.kernel", form=kernel)
    yield Piece(f"{pixels}.2.bias", f"{embed}.bias")
    yield from norm(f"{pixels}.3", "tokenizer.norm_patches")
    table = Form(lambda x: x.reshape(-1, x.shape[-1]), lambda x: _by_step(x, settings))
    yield Piece(f"{theirs}pos_embedding", "tokenizer.position", form=table)
    yield Piece(f"{theirs}spatial_cls_token", "encoder.cls", form=TOKEN)
    yield Piece(f"{theirs}temporal_cls_token", "tokenizer.step_cls", form=TOKEN)
    spatial = settings.encoder.depth - settings.vivit.temporal_depth
    for layer in range(settings.encoder.depth):
        at = f"spatial_transformer.layers.{layer}"
        if layer >= spatial:
            at = f"temporal_transformer.layers.{layer - spatial}"
        yield from _vivit_layer(f"{theirs}{at}", (layer,))
    yield from norm(f"{theirs}spatial_transformer.norm", "tokenizer.norm_spatial")
    yield from norm(f"{theirs}temporal_transformer.norm", "encoder.norm")


def _by_step(x: np.ndarray, settings: ModelSettings) -> np.ndarray:
    cells = (settings.image_size // settings.vit3d.patch) ** 2
    return x.reshape(1, -1, cells, x.shape[-1])


def _vivit_layer(at: str, index: tuple[int, ...]) -> Iterator[Piece]:
    own = "encoder.layers"
    yield Piece(f"{at}.0.to_qkv.weight", f"{own}.query_key_value.kernel", index, _JOINT)
    for theirs, ours in (
        ("0.to_out.0", "attention_out"),
        ("1.net.1", "mlp_in"),
        ("1.net.4", "mlp_out"),
    ):
        yield Piece(f"{at}.{theirs}.weight", f"{own}.{ours}.kernel", index, LINEAR)
        yield Piece(f"{at}.{theirs}.bias", f"{own}.{ours}.bias", index)
    for theirs, ours in (("0.norm", "norm_attention"), ("1.net.0", "norm_mlp")):
        yield Piece(f"{at}.{theirs}.weight", f"{own}.{ours}.scale", index)
        yield Piece(f"{at}.{theirs}.bias", f"{own}.{ours}.bias", index)


def rest_of_clip(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """What a released video-text model (`VideoTokCLIP`, `VideoViT`) has beside its video side."""
    yield from names.bert(settings.text, theirs=f"{theirs}text_encoder.")
    yield from linear(f"{theirs}vision_proj", "project_video")
    yield from linear(f"{theirs}text_proj", "project_text")
    yield Piece(f"{theirs}temp", "temperature")
