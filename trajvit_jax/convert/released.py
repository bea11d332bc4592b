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
from trajvit_jax.convert.pieces import TOKEN, Form, Piece
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


def rest_of_clip(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """What a released video-text model (`VideoTokCLIP`, `VideoViT`) has beside its video side."""
    yield from names.bert(settings.text, theirs=f"{theirs}text_encoder.")
    yield from linear(f"{theirs}vision_proj", "project_video")
    yield from linear(f"{theirs}text_proj", "project_text")
    yield Piece(f"{theirs}temp", "temperature")
