"""Hugging Face's names for our arrays: ResNet, ViT and BERT.

Names and layouts as transformers 4.44 has them and 5.23 still saves them; `spellings` brings
others to these. Each table is a list of pieces, of arrays named as in `VideoTextModel`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trajvit_jax.convert.pieces import CONV, LINEAR, TOKEN, Form, Piece
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    TextSettings,
    ViT3DSettings,
)

# Each attention part's place in the joint projection, and what a layer's parts are called.
_VIT_LAYER = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attention_out": "attention.output.dense",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "norm_attention": "layernorm_before",
    "norm_mlp": "layernorm_after",
}
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "norm_mlp": "output.LayerNorm",
}


# Row 0 of their position table belongs to CLS, and `spellings.fold_cls` adds it there.
_POSITIONS = Form(lambda x: x[0, 1:], lambda x: np.concatenate([np.zeros_like(x[:1]), x])[None])


def linear(theirs: str, ours: str, *, bias: bool = True) -> Iterator[Piece]:
    """A linear layer."""
    yield Piece(f"{theirs}.weight", f"{ours}.kernel", form=LINEAR)
    if bias:
        yield Piece(f"{theirs}.bias", f"{ours}.bias")


def norm(theirs: str, ours: str) -> Iterator[Piece]:
    """A LayerNorm."""
    yield Piece(f"{theirs}.weight", f"{ours}.scale")
    yield Piece(f"{theirs}.bias", f"{ours}.bias")


def _layers(theirs: str, ours: str, depth: int, names: dict[str, str]) -> Iterator[Piece]:
    """A stack of transformer layers, `theirs` with a place for the layer's number."""
    for layer in range(depth):
        prefix = theirs.format(layer)
        for part, name in enumerate(("query", "key", "value")):
            joint = f"{ours}.query_key_value"
            at = f"{prefix}.{names[name]}"
            yield Piece(f"{at}.weight", f"{joint}.kernel", (layer, slice(None), part), LINEAR)
            yield Piece(f"{at}.bias", f"{joint}.bias", (layer, part))
        for name in ("attention_out", "mlp_in", "mlp_out"):
            at = f"{prefix}.{names[name]}"
            yield Piece(f"{at}.weight", f"{ours}.{name}.kernel", (layer,), LINEAR)
            yield Piece(f"{at}.bias", f"{ours}.{name}.bias", (layer,))
        for name in ("norm_attention", "norm_mlp"):
            at = f"{prefix}.{names[name]}"
            yield Piece(f"{at}.weight", f"{ours}.{name}.scale", (layer,))
            yield Piece(f"{at}.bias", f"{ours}.{name}.bias", (layer,))


def resnet(settings: ResNetSettings, *, theirs: str = "", ours: str = "") -> Iterator[Piece]:
    """Hugging Face's `ResNetModel`; prefixes end with a dot."""

    def conv_norm(at: str, own: str) -> Iterator[Piece]:
        yield Piece(f"{theirs}{at}.convolution.weight", f"{ours}{own}.conv.kernel", form=CONV)
        yield from norm(f"{theirs}{at}.normalization", f"{ours}{own}.norm")
        for stat in ("mean", "var"):
            name = f"{theirs}{at}.normalization.running_{stat}"
            yield Piece(name, f"{ours}{own}.norm.{stat}")

    yield from conv_norm("embedder.embedder", "stem")
    cin = settings.stem
    for stage, (width, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
        for block in range(depth):
            at, own = f"encoder.stages.{stage}.layers.{block}", f"stages.{stage}.{block}"
            for conv in range(2 if settings.block == "basic" else 3):
                yield from conv_norm(f"{at}.layer.{conv}", f"{own}.convs.{conv}")
            if block == 0 and (stage > 0 or cin != width):
                yield from conv_norm(f"{at}.shortcut", f"{own}.shortcut")
            cin = width


def encoder_layers(
    settings: EncoderSettings, *, theirs: str = "encoder.", ours: str = "encoder."
) -> Iterator[Piece]:
    """The layers of Hugging Face's `ViTModel`, without what stands before and after them."""
    yield from _layers(f"{theirs}layer.{{}}", f"{ours}layers", settings.depth, _VIT_LAYER)


def patches(settings: ViT3DSettings) -> Form:
    """A convolution over patches or tubelets that do not overlap, as one linear map of pixels."""
    t, p = settings.tubelet, settings.patch

    def to_ours(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, 3, t, p, p).transpose(2, 3, 4, 1, 0).reshape(t * p * p * 3, -1)

    def to_theirs(x: np.ndarray) -> np.ndarray:
        volume = x.reshape(t, p, p, 3, -1).transpose(4, 3, 0, 1, 2)
        return volume if t > 1 else volume[:, :, 0]

    return Form(to_ours, to_theirs)


def vit(settings: ModelSettings, *, theirs: str = "") -> Iterator[Piece]:
    """Hugging Face's `ViTModel`, without the pooler: tubelets of one frame, and the encoder."""
    projection = f"{theirs}embeddings.patch_embeddings.projection"
    form = patches(settings.vit3d)
    yield Piece(f"{projection}.weight", "tokenizer.embed.kernel", form=form)
    yield Piece(f"{projection}.bias", "tokenizer.embed.bias")
    table = f"{theirs}embeddings.position_embeddings"
    yield Piece(table, "tokenizer.position", form=_POSITIONS)
    yield Piece(f"{theirs}embeddings.cls_token", "encoder.cls", form=TOKEN)
    yield from encoder_layers(settings.encoder, theirs=f"{theirs}encoder.")
    yield from norm(f"{theirs}layernorm", "encoder.norm")


def bert(settings: TextSettings, *, theirs: str = "", ours: str = "text.") -> Iterator[Piece]:
    """Hugging Face's `BertModel`, and the released text tower; without the pooler."""
    for table in ("word", "position", "token_type"):
        yield Piece(f"{theirs}embeddings.{table}_embeddings.weight", f"{ours}{table}.embedding")
    yield from norm(f"{theirs}embeddings.LayerNorm", f"{ours}norm")
    depth = settings.layers_run or settings.depth
    yield from _layers(f"{theirs}encoder.layer.{{}}", f"{ours}layers", depth, _BERT_LAYER)
