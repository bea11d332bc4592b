"""Which settings must agree for arrays of one model to mean the same in another.

Shapes do not tell them all: a model that runs its encoder once takes the arrays of one that runs
it twice, and gives other numbers. The table names what each module's numbers depend on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trajvit_jax.models.settings import HieraSettings, ModelSettings, ResNetSettings

_POSITION = ("trajvit.position", "trajvit.position_features", "trajvit.position_reader")
_RESAMPLER = ("queries", "frame_positions", "latent_block")
_TRAJVIT = {
    "tokenizer": (
        "name",
        *_POSITION,
        "trajvit.queries_as",
        "trajvit.attend_padding",
    ),
    "tokenizer.appearance": (
        "trajvit.hierarchical",
        "trajvit.feature_width",
        "trajvit.pooling",
        "trajvit.appearance",
    ),
    "tokenizer.appearance.backbone": ("trajvit.backbone", "trajvit.resnet", "trajvit.hiera"),
    "tokenizer.appearance.summary.layers": (
        "encoder.heads",
        "trajvit.resampler.depth",
        *(f"trajvit.resampler.{name}" for name in _RESAMPLER),
    ),
    "tokenizer.position": _POSITION,
    "tokenizer.position.summary.layers": (
        "encoder.heads",
        "trajvit.position_depth",
        *(f"trajvit.resampler.{name}" for name in _RESAMPLER),
    ),
}
_TUBELETS = ("name", "image_size", "frames", "vit3d")
_AUTOMERGE = _TRAJVIT | {
    "tokenizer": (
        *_TRAJVIT["tokenizer"],
        "image_size",
        "automerge.tokens",
        "automerge.patch",
    )
}
_REST = {
    "encoder": ("encoder.passes", "encoder.final_norm"),
    "encoder.layers": (
        "encoder.width",
        "encoder.depth",
        "encoder.heads",
        "encoder.mlp",
        "encoder.layer_norm_eps",
        "encoder.head_width",
        "encoder.gelu",
    ),
    "encoder.norm": ("encoder.layer_norm_eps",),
    "text": ("text.vocabulary", "text.positions", "text.width", "text.heads", "text.mlp"),
    "project_video": ("projection",),
    "project_text": ("projection",),
}
# What each module's numbers depend on, by the name of the model.
DEPENDS = {
    "trajvit": _TRAJVIT | _REST,
    "vit3d": {"tokenizer": _TUBELETS} | _REST,
    "vit": {"tokenizer": _TUBELETS} | _REST,
    "automerge": _AUTOMERGE | _REST,
} | {
    name: {"tokenizer": (*_TUBELETS, name)} | _REST
    for name in ("vivit", "token_learner", "tome", "rlt")
}


def disagreements(
    stored: ModelSettings, model: ModelSettings, parts: Collection[str], names: Collection[str]
) -> list[str]:
    """Settings that make other numbers of the same arrays: `encoder.passes: 2 in the folder, ...`.

    How a model reads positions is no such where the folder's has none: as all that the folder
    lacks, what reads them stays as it is.

    What modules depend on is compared where they are taken whole. Of a part inside one, what the
    smallest module around it depends on: `encoder.layers` alone may be run as often as one likes.

    Args:
      stored: of the arrays.
      model: of the model that takes them.
      parts: dotted paths of what is taken.
      names: of all arrays that are taken.
    """
    modules = DEPENDS[stored.name]
    settings = [
        name
        for part in parts
        for module in _modules(part, modules)
        if any(is_below(array, module) for array in names)
        for name in modules[module]
    ]
    if stored.trajvit.position == "none":
        settings = [name for name in settings if name not in _POSITION]
    ours, theirs = leaves(_plain(model)), leaves(_plain(stored))
    return [
        f"{name}: {theirs[name]} in the folder, {ours[name]} in the model"
        for name in theirs
        if theirs[name] != ours[name] and any(is_below(name, setting) for setting in settings)
    ]


def is_below(path: str, other: str) -> bool:
    """Whether a dotted path is the other one, or inside it."""
    return path == other or path.startswith(f"{other}.")


def leaves(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""

    def walk() -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(settings):
            value, path = getattr(settings, field.name), f"{prefix}{field.name}"
            if dataclasses.is_dataclass(value):
                yield from leaves(value, f"{path}.").items()
            else:
                yield path, value

    return dict(walk())


def _modules(part: str, modules: Mapping[str, Any]) -> list[str]:
    """Those at or inside a part; if there are none, the smallest one around it."""
    inside = [module for module in modules if is_below(module, part)]
    around = [module for module in modules if is_below(part, module)]
    return inside or sorted(around, key=len)[-1:]


def _plain(settings: ModelSettings) -> ModelSettings:
    """The same model, with what its zeros stand for, and defaults where a setting is not read."""
    own = settings.trajvit
    resnet = own.backbone == "resnet"
    own = dataclasses.replace(
        own,
        feature_width=own.feature_width or settings.encoder.width,
        position_depth=own.position_depth or own.resampler.depth,
        resnet=own.resnet if resnet else ResNetSettings(),
        hiera=HieraSettings() if resnet else own.hiera,
    )
    encoder = settings.encoder
    if encoder.head_width * encoder.heads == encoder.width:
        encoder = dataclasses.replace(encoder, head_width=0)
    return dataclasses.replace(settings, trajvit=own, encoder=encoder)
