"""Which programs' checkpoints are known, and how to tell them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from trajvit_jax.config import nearest
from trajvit_jax.convert import names, released, sizes, spellings
from trajvit_jax.convert.pieces import Piece
from trajvit_jax.convert.report import summarize
from trajvit_jax.models.settings import ModelSettings, TrajViTSettings

Arrays = dict[str, np.ndarray]
VIDEO_SIDE = "vision_encoder."  # before the names of the encoder in a released video-text model
TEXT_SIDE = "text_encoder."
_MOST_NAMES = 8
_NOTHING = r"(?!)"  # matches no name
_PASSES = 2  # of the encoder, in the released forward


@dataclasses.dataclass(frozen=True)
class Choices:
    """What arrays do not tell; None = assumed.

    Attributes:
      heads: attention heads of the video encoder, or of a BERT alone; assumed as is usual.
      text_heads: those of the text side of a video-text model; assumed as is usual.
      boxes: the released TrajViT read boxes (`use_bounding_box`), else centres; assumed are
        centres, as in its own config.
      encoder_passes: how often the released TrajViT ran its encoder; assumed twice, as its
        program does.
      image_size: pixels a side of a ViT3D whose file lacks the image ViT; assumed 224.
    """

    heads: int | None = None
    text_heads: int | None = None
    boxes: bool | None = None
    encoder_passes: int | None = None
    image_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
      name: for the command line.
      what: the same in words.
      marker: an array that it always has; what stands before that name stands before all.
      settings: of its arrays, without prefix.
      pieces: of its settings and prefix.
      respell: brings arrays without prefix to the spelling of `pieces`.
      choices: names of the `Choices` that tell something of it.
      unused: pattern of the names, without prefix, that its own program does not read either.
    """

    name: str
    what: str
    marker: str
    settings: Callable[[Arrays, Choices], ModelSettings]
    pieces: Callable[[ModelSettings, str], Iterator[Piece]]
    respell: Callable[[Mapping[str, np.ndarray]], Arrays] = dict
    choices: tuple[str, ...] = ("heads",)
    unused: str = _NOTHING


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a checkpoint's names are built.

    Attributes:
      kind: name of its kind.
      prefix: before the names of the kind.
      whole: a released video-text model, text side and projections included.
    """

    kind: str
    prefix: str = ""
    whole: bool = False

    @property
    def root(self) -> str:
        """Before the names of the whole model."""
        return self.prefix.removesuffix(VIDEO_SIDE) if self.whole else self.prefix


def _bert_settings(found: Arrays, choices: Choices) -> ModelSettings:
    return ModelSettings(text=sizes.text_settings(found, heads=choices.heads))


def _trajvit_settings(found: Arrays, choices: Choices) -> ModelSettings:
    return sizes.released_settings(
        found,
        heads=choices.heads,
        boxes=bool(choices.boxes),
        encoder_passes=choices.encoder_passes or _PASSES,
        # Our rows have empty slots of their own: results must not depend on how many.
        attend_padding=False,
    )


KINDS = {
    kind.name: kind
    for kind in (
        # The released models hold ViTs and ResNets, so they are looked for first.
        Kind(
            "trajvit",
            "released TrajViT",
            "appearance_tokenizer.resnet.embedder.embedder.convolution.weight",
            _trajvit_settings,
            lambda settings, prefix: released.trajvit(settings, theirs=prefix),
            choices=("heads", "boxes", "encoder_passes"),
            unused=r"vision_encoder\.vit\.(embeddings|layernorm|pooler)\.|.*\.rotary_emb\.freqs$"
            r"|.*\.num_batches_tracked$",
        ),
        Kind(
            "vit3d",
            "released ViT3D",
            "patch_embed_3d.weight",
            lambda found, choices: sizes.vit3d_settings(
                found,
                heads=choices.heads,
                image_size=choices.image_size or ModelSettings.image_size,
            ),
            lambda settings, prefix: released.vit3d(settings, theirs=prefix),
            spellings.vit3d,
            choices=("heads", "image_size"),
            unused=r"vit2d\.",
        ),
        Kind(
            "vit",
            "Hugging Face ViT",
            "embeddings.patch_embeddings.projection.weight",
            lambda found, choices: sizes.vit_settings(found, heads=choices.heads),
            lambda settings, prefix: names.vit(settings, theirs=prefix),
            spellings.vit,
        ),
        Kind(
            "bert",
            "Hugging Face BERT",
            "embeddings.word_embeddings.weight",
            _bert_settings,
            lambda settings, prefix: names.bert(settings.text, theirs=prefix),
            spellings.bert,
            unused=r"embeddings\.position_ids$",
        ),
        Kind(
            "resnet",
            "Hugging Face ResNet",
            "embedder.embedder.convolution.weight",
            lambda found, _: ModelSettings(
                trajvit=TrajViTSettings(resnet=sizes.resnet_settings(found))
            ),
            lambda settings, prefix: names.resnet(
                settings.trajvit.resnet, theirs=prefix, ours="tokenizer.appearance.backbone."
            ),
            choices=(),
            unused=r".*\.num_batches_tracked$",
        ),
    )
}


def recognize(found: Collection[str], kind: str | None = None) -> Layout:
    """Tells a checkpoint by the names of its arrays.

    Args:
      found: names.
      kind: one of `KINDS`, to read only that part of a checkpoint that holds several.

    Raises:
      ValueError: an unknown `kind`, or names of no kind; the message says what was seen.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: {nearest(kind, KINDS)}")
    for candidate in KINDS.values() if kind is None else [KINDS[kind]]:
        if layout := _layout(found, candidate):
            return layout
    others = [other.name for other in KINDS.values() if _layout(found, other)]
    if kind is not None and others:
        raise ValueError(
            f"the {len(found)} arrays are not of a {kind} but of a {others[0]} "
            f"({KINDS[others[0]].what}); leave --kind out"
        )
    wanted = KINDS.values() if kind is None else [KINDS[kind]]
    seen = summarize(sorted(found), found)
    more = ", ..." if len(seen) > _MOST_NAMES else ""
    raise ValueError(
        f"the {len(found)} arrays are {'of no known kind' if kind is None else f'not of a {kind}'}"
        ": "
        + "; ".join(f"{known.name} ({known.what}) has {known.marker}" for known in wanted)
        + f"; this one has {', '.join(seen[:_MOST_NAMES])}{more}"
    )


def _layout(found: Collection[str], kind: Kind) -> Layout | None:
    """How the names are built if they are of this kind."""
    marked = [name for name in found if name == kind.marker or name.endswith(f".{kind.marker}")]
    if not marked:
        return None
    prefix = min(marked, key=len).removesuffix(kind.marker)
    layout = Layout(kind.name, prefix, whole=True)
    text = layout.root + TEXT_SIDE + KINDS["bert"].marker
    whole = prefix.endswith(VIDEO_SIDE) and text in found
    return dataclasses.replace(layout, whole=whole)
