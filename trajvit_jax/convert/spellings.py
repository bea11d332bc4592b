"""Other spellings of the arrays that `names` knows, brought to the one spelling of its tables."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

# What BERT's first checkpoints, converted from TensorFlow, call a LayerNorm's arrays.
_BERT = (
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)
# A ViT in the memory of transformers 5; in its files the names are still the old ones.
_VIT_LAYER = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_VIT = (
    *(
        (re.compile(rf"^layers\.(\d+)\.{re.escape(new)}\."), rf"encoder.layer.\1.{old}.")
        for new, old in _VIT_LAYER.items()
    ),
    (re.compile(r"^layers\.(\d+)\."), r"encoder.layer.\1."),
)


def bert(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """BERT's arrays under today's names."""
    return _respell(found, _BERT)


def vit(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ViT's arrays, without prefix, under the names in files; CLS holds its position."""
    return fold_cls(_respell(found, _VIT))


def vit3d(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The released ViT3D's arrays without prefix: its layers are in files twice, or once."""
    twice = "vit2d.encoder.layer."
    own = {n.removeprefix("vit2d."): a for n, a in found.items() if n.startswith(twice)}
    if any(name in found for name in own):
        return dict(found)
    return {n: a for n, a in found.items() if not n.startswith(twice)} | own


def fold_cls(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds CLS's row of the position table to the CLS vector: our encoder keeps only the sum."""
    token, table = "embeddings.cls_token", "embeddings.position_embeddings"
    if token not in found or table not in found:
        return dict(found)
    cls, positions = found[token], found[table]
    if cls.ndim != 3 or positions.ndim != 3 or cls.shape[-1] != positions.shape[-1]:
        return dict(found)  # the report will say so
    # In float32 whatever the file is in: bfloat16 would round the sum.
    return {**found, token: cls.astype(np.float32) + positions[:, :1].astype(np.float32)}


def _respell(
    found: Mapping[str, np.ndarray], rules: tuple[tuple[re.Pattern[str], str], ...]
) -> dict[str, np.ndarray]:
    spelled = {}
    for name, array in found.items():
        for pattern, replacement in rules:
            name = pattern.sub(replacement, name)
        spelled[name] = array
    return spelled
